"""A run that is killed at any moment and resumed elsewhere is, to the bit, the run that nobody disturbed."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crash_tasks import experiment

from pbt import Run
from pbt.core.events import Decided, Failed
from pbt.store.reader import RunReader
from pbt.store.verify import verify_run

PROGRAM = Path(__file__).with_name("crash_tasks.py")
ROWS = "SELECT id, round, member, kind, data FROM events ORDER BY id"
PATIENCE = 60.0


def start(path, task, executor):
    command = [sys.executable, str(PROGRAM), str(path), task, executor]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


def finish(path, task, executor):
    program = start(path, task, executor)
    assert program.wait(PATIENCE) == 0


def rows(path):
    with contextlib.closing(sqlite3.connect(f"file:{path / 'run.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(ROWS).fetchall()


def count(path):
    """Events that are logged; none while the run directory is not made yet."""
    try:
        return len(RunReader(path).rows())
    except Exception:  # noqa: BLE001 (there is no run yet, or half of one)
        return 0


def digests(path):
    with RunReader(path) as reader:
        return {ref: reader.stored(ref).digest for ref in reader.refs()}


def kill_when(path, task, executor, logged, delay):
    """Start a run, and kill it that long after so many events were logged; whether it was still running."""
    program = start(path, task, executor)
    deadline = time.monotonic() + PATIENCE
    while count(path) < logged and program.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    running = program.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.kill(program.pid, signal.SIGKILL)
    program.wait()
    return running


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    made = {}

    def make(task):
        if task not in made:
            made[task] = tmp_path_factory.mktemp("undisturbed") / task
            experiment(task, "inline").run(made[task])
        return made[task]

    return make


def check_same(path, expected):
    """Every row but the clock, every state and every row of the history are those of the undisturbed run."""
    assert rows(path) == rows(expected)
    assert digests(path) == digests(expected)
    found, wanted = Run.open(path), Run.open(expected)
    assert dict(found.history()) == dict(wanted.history())
    assert found.best == wanted.best
    for ref in digests(expected):
        found.load_state(ref)
    assert verify_run(path) == []
    assert not list((path / "states").glob("*.tmp"))


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_killed_again_and_again(executor, tmp_path, undisturbed) -> None:
    """Killed in the middle of five rounds, once before the first is over, each time resumed by a new process."""
    expected = undisturbed("walk")
    path = tmp_path / "run"
    kills = 0
    # Five births are logged at once; then a round adds ten events.
    for logged, delay in ((5, 0.02), (5, 0.1), (15, 0.07), (25, 0.0), (35, 0.04), (45, 0.09)):
        kills += kill_when(path, "walk", executor, logged, delay)
    assert kills >= 5
    assert len(rows(path)) < len(rows(expected))
    finish(path, "walk", executor)
    check_same(path, expected)
    assert any(isinstance(event, Failed) for event in Run.open(path).events)
    assert any(isinstance(e, Decided) and e.decision.kind == "exploit" for e in Run.open(path).events)


def test_killed_while_it_begins(tmp_path, undisturbed) -> None:
    """Killed within the first moments, when the run directory is made, it is begun again or resumed."""
    for i, delay in enumerate((0.0, 0.005, 0.02)):
        path = tmp_path / f"run{i}"
        program = start(path, "walk", "inline")
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            assert time.monotonic() < deadline
        time.sleep(delay)
        program.kill()
        program.wait()
        finish(path, "walk", "inline")
        check_same(path, undisturbed("walk"))


def test_killed_with_a_network(tmp_path, undisturbed) -> None:
    """The same with dropout, batch normalization and Adam, killed inline and resumed in worker processes."""
    path = tmp_path / "run"
    assert kill_when(path, "network", "inline", logged=25, delay=0.01)
    finish(path, "network", "processes")
    check_same(path, undisturbed("network"))
