"""A run that is killed at any moment and resumed is, to the bit, the run that nobody disturbed.

A sample of what `scripts/crash --full` does; docs/reliability.md has the figures of the whole.
"""

import os
import re
import subprocess
import sys

import pytest

needs_strace = pytest.mark.needs("strace")


def crash(*words):
    """The lines of the table that the harness prints: trials, struck, strikes, identical, differ, most lost."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", "--untimed", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, *lines = done.stdout.splitlines()
    return {line.split()[0]: [int(number) for number in line.split()[1:7]] for line in lines}


@needs_strace
@pytest.mark.parametrize(
    ("executor", "task", "calls", "instants"),
    [
        ("inline", "walk", 8, 2),
        pytest.param("processes", "walk", 2, 2, marks=pytest.mark.long),
        pytest.param("vectorized", "network", 2, 1, marks=pytest.mark.slow),
    ],
)
def test_a_sample(executor, task, calls, instants) -> None:
    """Killed before system calls spread over the run and at random instants: all the same, a round lost at most."""
    words = ("--executor", executor, "--task", task, "--calls", str(calls), "--instants", str(instants))
    found = crash("--full", *words, "--kind", "call", "--kind", "instant")
    trials, struck, *_ = found[f"{executor}/{task}/call"]
    # A call before the run directory exists is not counted; with workers, which one that is depends on the machine.
    assert calls - (executor == "processes") <= trials <= calls
    # With torch a call has not always the same number: some files are opened in one run and not in another.
    assert struck == trials or task == "network"
    assert found[f"{executor}/{task}/instant"][0] == instants
    for trials, _, _, identical, differ, lost in found.values():
        assert (identical, differ) == (trials, 0)
        assert lost <= 4  # members


@pytest.mark.long
@needs_strace
def test_a_worker_that_dies_while_it_writes() -> None:
    """A worker is killed before it syncs a file, with the rest of the run and alone: nothing is lost but its round."""
    # The first worker may get a single state that is worth a file: it syncs that file, and then its folder.
    found = crash("processes/walk/workercall:fsync:1", "processes/walk/workercall:fsync:2")
    assert found["processes/walk/workercall"][:5] == [2, 2, 2, 2, 0]


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
@needs_strace
@pytest.mark.parametrize(
    ("executor", "task", "calls", "instants"),
    [
        ("inline", "walk", 10_000, 200),
        ("inline", "digits", 60, 30),
        ("processes", "walk", 60, 30),
        ("vectorized", "network", 60, 30),
        ("programs", "network", 20, 10),
        ("ray", "walk", 0, 5),
    ],
)
def test_more(executor, task, calls, instants) -> None:
    """The same in earnest; `scripts/crash --full` leaves nothing out."""
    words = ("--executor", executor, "--task", task, "--calls", str(calls), "--instants", str(instants))
    kinds = ("--kind", "call", "--kind", "workercall", "--kind", "instant")
    for trials, _, _, identical, differ, _ in crash("--full", *words, *kinds).values():
        assert (identical, differ) == (trials, 0)


@pytest.mark.long
@pytest.mark.parametrize("count", [1, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_workers_that_die_all_the_time(count) -> None:
    """Random workers are killed through a whole run: its bits, and every loss and attempt in the journal."""
    found = crash(*(f"processes/walk/workers:{i}" for i in range(count)))["processes/walk/workers"]
    assert found[:2] + found[3:5] == [count, count, count, 0]
    assert found[2] >= count


@pytest.mark.long
@pytest.mark.parametrize(
    ("executor", "kind", "count"),
    [
        pytest.param("inline", "instant", 2, marks=pytest.mark.slow),
        ("processes", "child", 1),
        pytest.param("inline", "child", 50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
        pytest.param("processes", "instant", 50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
        pytest.param("processes", "child", 50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_programs_as_members(executor, kind, count) -> None:
    """SIGKILL of driver, worker, program, its supervisor or its children: the same run, and no process is left."""
    found = crash(*(f"{executor}/program/{kind}:{i}" for i in range(count)))[f"{executor}/program/{kind}"]
    assert (found[0], *found[3:5]) == (count, count, 0)


@needs_strace
def test_what_differs_is_told(tmp_path) -> None:
    """A difference ends the harness with 1, and with the command that shows it again."""
    code = "import sys; from tests.crash import __main__ as crash, trials as t; "
    code += "t.differences = lambda *_, **__: ['made up']; t.Bench.undisturbed = lambda *_: (None, 0.1); "
    code += "sys.exit(crash.main())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = ["--dir", str(tmp_path), "--seed", "4", "inline/walk/call:fdatasync:9"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "made up" in done.stderr
    assert re.search(r"^ *scripts/crash --seed 4 inline/walk/call:fdatasync:9$", done.stdout, re.MULTILINE)
    assert (next(tmp_path.iterdir()) / "inline-walk-call-fdatasync-9" / "run.db").exists()
