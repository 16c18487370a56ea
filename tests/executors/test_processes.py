"""Spawned workers keep the contract and give the bits of the inline executor, whatever befalls a worker."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import types
from pathlib import Path

import numpy as np
import pytest

from pbt import Experiment, Float, Placement, Plan, truncation
from pbt.core.events import Decided, Failed
from pbt.core.population import StateRef
from pbt.errors import TaskError, WorkerError
from pbt.executors.base import Executor, Failure, Report
from pbt.executors.processes import ProcessExecutor
from pbt.executors.retry import Limits
from pbt.executors.transport import load_module
from pbt.executors.worker import WorkerSpec
from pbt.store.files import StateFiles
from pbt.store.reader import RunReader
from pbt.testing.executors import ExecutorContract, finish, make_task, reports
from tests.executors import fleet
from tests.helpers.paths import ROOT
from tests.helpers.processes import runs, until

SPACE = {"lr": Float(0.01, 0.5, "log")}
EVOLVE = Plan(exploit=truncation(0.4), interval=3)


def open_workers(task, workers=1, limits=None):
    return ProcessExecutor(WorkerSpec(task=task, states=StateFiles(None)), ["cpu"] * workers, limits)


def train(task, run_dir=None, *, workers=None, limits=None, population=5, rounds=4, space=SPACE, plan=EVOLVE):
    """The log of a run; workers None: inline."""
    where = Placement(workers=workers, limits=limits or Limits(), executor="processes" if workers else "inline")
    experiment = Experiment(
        task=task, space=space, plan=plan, population=population, rounds=rounds, seed=5, placement=where
    )
    return experiment.run(run_dir).events


def start_program(text, folder):
    """A user's program, beside the folder, with everything imported that it may need."""
    header = f"""
        import sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from tests.executors import fleet
        from pbt.executors.retry import Limits
        from pbt.executors.processes import ProcessExecutor
        from pbt.executors.worker import WorkerSpec
        from pbt.store.files import StateFiles
        from pbt.testing.executors import finish, make_task
    """
    file = folder.parent / f"{folder.name}.py"
    file.write_text(textwrap.dedent(header) + textwrap.dedent(text))
    return subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True, start_new_session=True)


class TestProcesses(ExecutorContract):
    def make_executor(self, setup: WorkerSpec) -> Executor:
        return ProcessExecutor(setup, ["cpu", "cpu"])


@pytest.fixture(scope="module")
def undisturbed():
    events = train(fleet.walk)
    # A run in which nobody copies would show nothing.
    assert any(isinstance(event, Decided) and event.decision.kind == "exploit" for event in events)
    return events


@pytest.mark.parametrize("workers", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_bits_of_inline(workers, undisturbed) -> None:
    """One, two and three workers for five members log what the inline executor logs, every digest included."""
    assert train(fleet.walk, workers=workers) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 3))])
def test_bits_of_inline_with_a_network(workers) -> None:
    """The same for a network with dropout, batch normalization, momentum, and data that are drawn when loaded."""
    from tests.executors import small_net

    space = {"lr": Float(0.01, 0.5, "log"), "p": Float(0.1, 0.6)}
    logs = [train(small_net.TASK, workers=w, population=4, rounds=3, space=space) for w in (None, workers)]
    assert logs[0] == logs[1]
    assert any(isinstance(event, Decided) and event.decision.donor is not None for event in logs[0])


@pytest.mark.slow
def test_torch_imported_by_the_task() -> None:
    """The first round of a worker, in which the task imports torch, draws as the same round does later on."""
    with open_workers(fleet.imports_torch) as executor:
        drawn = [reports(finish(executor, [make_task(0)]))[0, 1].reported for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_killed_in_the_middle_of_a_round(tmp_path, undisturbed) -> None:
    """A worker that is killed costs its round and nothing else: run again with the same bits, noted in the journal."""
    marks = tmp_path / "marks"
    marks.mkdir()
    events = train(fleet.Doomed(str(marks), member=3, round=2, times=2), tmp_path / "run", workers=2)
    assert events == undisturbed
    journal = RunReader(tmp_path / "run").journal()
    lost = [entry.details for entry in journal if entry.kind == "worker lost"]
    assert [(note["member"], note["round"], note["attempt"]) for note in lost] == [(3, 2, 1), (3, 2, 2)]
    assert all("SIGKILL" in note["message"] for note in lost)
    rounds = [entry.details for entry in journal if entry.kind == "round"]
    assert [note["attempt"] for note in rounds if (note["member"], note["round"]) == (3, 2)] == [3]


@pytest.mark.slow
def test_killed_at_every_attempt(tmp_path) -> None:
    """A round whose workers die each time is the member's failure after `attempts` tries; it is replaced."""
    task = fleet.Doomed(str(tmp_path), member=3, round=2, times=100)
    events = train(task, workers=2, limits=Limits(attempts=2), rounds=3)
    failed = [event for event in events if isinstance(event, Failed)]
    assert [(event.member, event.round, event.cause) for event in failed] == [(3, 2, "worker")]
    assert len(list(tmp_path.iterdir())) == 2
    decisions = [event.decision for event in events if isinstance(event, Decided)]
    (replaced,) = (decision for decision in decisions if (decision.member, decision.round) == (3, 3))
    assert replaced.kind == "replace"
    assert replaced.start == StateRef(replaced.donor, 2)
    assert replaced.donor != 3


@pytest.mark.long
def test_stopped_worker(tmp_path) -> None:
    """A worker that is stopped gives no sign of life; it is killed after the silence, and its round run again."""
    task = fleet.Doomed(str(tmp_path), member=1, round=1, signal=signal.SIGSTOP)
    with open_workers(task, limits=Limits(silence=3.0)) as executor:
        outcomes = reports(finish(executor, [make_task(0), make_task(1)]))
        (incident,) = executor.incidents()
    assert outcomes[1, 1].attempt == 2
    assert "silent" in incident.message
    assert (incident.member, incident.round, incident.attempt) == (1, 1, 1)


@pytest.mark.slow
def test_stopped_while_it_is_sent_a_state() -> None:
    """A stopped worker does not hold up its parent either in the middle of a message that no pipe can hold."""
    ref = StateRef(9, 1)
    stored = StateFiles(None).put(ref, {"place": np.zeros(500_000)})
    with open_workers(fleet.stop_afterwards, limits=Limits(silence=3.0)) as executor:
        finish(executor, [make_task(0)])
        time.sleep(1.5)
        outcome = finish(executor, [make_task(1, 2, (ref, stored))])[1, 2]
    assert isinstance(outcome, Report)
    assert outcome.attempt == 2


@pytest.mark.long
def test_time_limit() -> None:
    """A round that takes longer than `task_timeout` is given up; the others of its wave are not."""
    with open_workers(fleet.oversleep, limits=Limits(attempts=1, task_timeout=1.5)) as executor:
        outcomes = finish(executor, [make_task(m) for m in range(3)])
    slow = outcomes.pop((1, 1))
    assert isinstance(slow, Failure)
    assert slow.cause == "worker"
    assert "time limit" in slow.message
    assert len(reports(outcomes)) == 2


@pytest.mark.slow
def test_hard_exit() -> None:
    """A task that ends its process is told by its exit code; the other members go on."""
    with open_workers(fleet.exit_hard, workers=2, limits=Limits(attempts=2)) as executor:
        outcomes = finish(executor, [make_task(m) for m in range(4)])
        assert [incident.attempt for incident in executor.incidents()] == [1, 2]
    failed = outcomes.pop((1, 1))
    assert isinstance(failed, Failure)
    assert (failed.cause, failed.attempt) == ("worker", 2)
    assert "exit code 5" in failed.message
    assert len(reports(outcomes)) == 3


@pytest.mark.long
def test_dead_with_its_pipe_held_open(tmp_path) -> None:
    """A worker's death is seen at once although a child that it forked still holds the pipe."""
    tasks = [make_task(m, hparams={"lr": 0.1, "folder": str(tmp_path)}) for m in range(2)]
    with open_workers(fleet.leave_a_child, limits=Limits(attempts=1)) as executor:
        finish(executor, tasks[:1])
        outcome = finish(executor, tasks[1:])[1, 1]
        (child,) = (int(path.name) for path in tmp_path.iterdir())
        assert runs(child)
    os.kill(child, signal.SIGKILL)
    assert isinstance(outcome, Failure)
    assert "SIGKILL" in outcome.message


@pytest.mark.long
def test_dead_at_start(capfd) -> None:
    """Workers that die before they are ready, again and again, end the run with a clear error."""
    with open_workers(fleet.DeadlyToOpen()) as executor:
        executor.submit([make_task(0)])
        with pytest.raises(WorkerError, match=r"exit code 7\) during its start, 3 times"):
            executor.wait()


@pytest.mark.long
def test_interrupted_at_start(capfd) -> None:
    """Ctrl-C, which reaches the whole process group, neither ends a starting worker nor makes it print a traceback."""
    others = set(multiprocessing.active_children())
    with open_workers(fleet.walk) as executor:
        executor.submit([make_task(0)])
        (child,) = set(multiprocessing.active_children()) - others
        for _ in range(20):
            os.kill(child.pid, signal.SIGINT)
            time.sleep(0.01)
        (outcome,) = executor.wait()
        assert (outcome.attempt, executor.incidents()) == (1, [])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("make", [lambda: lambda *_: (None, 1.0), lambda: fleet.Wrapped(lambda *_: (None, 1.0))])
def test_what_cannot_be_sent(make) -> None:
    """Lambdas and closures are refused before anything starts, with the remedy."""
    with pytest.raises(TaskError, match=r"top level of a module.*the executor 'inline'"):
        open_workers(make())


@pytest.mark.long
def test_not_importable_in_the_worker(monkeypatch) -> None:
    """A task from a module that the worker cannot import ends the run with the worker's error."""
    module = types.ModuleType("made_up")
    exec("def task(hparams, state, steps, ctx): return None, 1.0", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_up", module)
    with open_workers(module.task) as executor:
        executor.submit([make_task(0)])
        with pytest.raises(TaskError, match="No module named 'made_up'"):
            executor.wait()


@pytest.mark.long
def test_error_while_opened() -> None:
    """What goes wrong while a task is opened ends the run with that error; it is no member's failure."""
    with open_workers(fleet.FailsToOpen()) as executor:
        executor.submit([make_task(0)])
        with pytest.raises(TaskError, match="no data here"):
            executor.wait()


@pytest.mark.long
def test_module_loaded_by_path(tmp_path) -> None:
    """Workers find a module that was loaded from a file, also where the task only holds something of it."""
    file = tmp_path / "my file.py"
    file.write_text("def task(hparams, state, steps, ctx):\n    return None, 4.5\n")
    module = load_module("by_path", file)
    try:
        for task in (module.task, fleet.Wrapped(module.task)):
            with open_workers(task) as executor:
                assert reports(finish(executor, [make_task(0)]))[0, 1].scores == (4.5,)
    finally:
        del sys.modules["by_path"]


def test_module_that_fails_to_load(tmp_path) -> None:
    """A file that fails while it is loaded leaves no half-made module behind."""
    file = tmp_path / "broken.py"
    file.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_module("broken_by_path", file)
    assert "broken_by_path" not in sys.modules


def test_a_program_without_a_guard_is_one_line(tmp_path) -> None:
    """A program that calls `pbt.run` at its top level is refused with the remedy, and leaves no run directory."""
    file = tmp_path / "program.py"
    file.write_text(
        textwrap.dedent(f"""
            import pbt

            def train(hparams, state, steps, ctx):
                return state, hparams["lr"]

            try:
                pbt.run(train, {{"lr": pbt.Float(0.1, 1.0)}}, population=2, rounds=1, executor="processes", workers=2,
                        run_dir={str(tmp_path / "run")!r})
            except pbt.PBTError as error:
                print(error)
        """)
    )
    ended = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
    assert 'under `if __name__ == "__main__":`' in ended.stdout
    assert (len(ended.stdout.splitlines()), ended.stderr) == (1, "")
    assert not (tmp_path / "run").exists()


def test_no_orphans(tmp_path) -> None:
    """A parent that is killed leaves no worker behind, be it idle, computing or asleep."""
    program = f"""
        if __name__ == "__main__":
            busy = ProcessExecutor(WorkerSpec(task=fleet.stay_busy, states=StateFiles(None)), ["cpu"] * 2)
            busy.submit([make_task(member, hparams={{"folder": {str(tmp_path)!r}}}) for member in range(2)])
            idle = ProcessExecutor(WorkerSpec(task=fleet.walk, states=StateFiles(None)), ["cpu"])
            finish(idle, [make_task(0)])
            busy.wait()
    """
    parent = start_program(program, tmp_path)
    try:
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        busy = {int(path.name) for path in tmp_path.iterdir()}
        assert busy < set(children)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    until(lambda: not any(map(runs, children)))


@pytest.mark.slow
def test_close_with_busy_workers(tmp_path) -> None:
    """Closing ends a computing, a sleeping and a stopped worker."""
    executor = open_workers(fleet.stay_busy, workers=4)
    executor.submit([make_task(member, hparams={"folder": str(tmp_path)}) for member in range(3)])
    pids = []
    while len(pids) < 3:
        # An outcome now and then, because rounds are handed out only while somebody waits.
        finish(executor, [make_task(9)])
        pids = [int(path.name) for path in tmp_path.iterdir()]
    os.kill(pids[2], signal.SIGSTOP)
    executor.close()
    assert not any(map(runs, pids))


@pytest.mark.long
def test_loud_task(capfd) -> None:
    """A task that prints megabytes blocks nobody."""
    with open_workers(fleet.shout, workers=2) as executor:
        assert len(reports(finish(executor, [make_task(m) for m in range(3)]))) == 3
    out, err = capfd.readouterr()
    assert min(len(out), len(err)) >= 3 * 64 * 65536


@pytest.mark.long
def test_helpers_of_a_task() -> None:
    """A task may start threads, programs and processes of its own."""
    with open_workers(fleet.with_helpers) as executor:
        report = reports(finish(executor, [make_task(0)]))[0, 1]
    assert report.reported["results"] == [1, 2, 3]


@pytest.mark.long
def test_workers_live_on() -> None:
    """A worker is started when there is a task for it, trains the next wave as well, and is gone after the end."""
    with open_workers(fleet.own_pid, workers=3) as executor:
        assert executor.slots == 3
        pids = [reports(finish(executor, [make_task(0, round_)]))[0, round_].reported["pid"] for round_ in (1, 2)]
        assert [process.pid for process in multiprocessing.active_children()] == [pids[0]]
        assert pids[0] == pids[1] != os.getpid()
        finish(executor, [make_task(member) for member in range(5)])
        assert len(multiprocessing.active_children()) == 3
    assert multiprocessing.active_children() == []


def test_sees_through_its_own_pause(tmp_path) -> None:
    """Where the parent itself was stopped (Ctrl-Z), nobody was silent, and no round is lost."""
    program = f"""
        if __name__ == "__main__":
            setup = WorkerSpec(task=fleet.nap, states=StateFiles(None))
            with ProcessExecutor(setup, ["cpu"], Limits(silence=3.0)) as executor:
                tasks = [make_task(0, hparams={{"folder": {str(tmp_path)!r}}})]
                print(finish(executor, tasks)[0, 1].attempt, executor.incidents())
    """
    parent = start_program(program, tmp_path)
    try:
        until(lambda: list(tmp_path.iterdir()))
        os.killpg(parent.pid, signal.SIGSTOP)
        time.sleep(6.0)
        os.killpg(parent.pid, signal.SIGCONT)
        out, _ = parent.communicate(timeout=30)
    finally:
        parent.kill()
    assert out.split(maxsplit=1) == ["1", "[]\n"]


def test_slow_to_start(tmp_path) -> None:
    """A worker that needs longer than the silence to import the user's program is waited for."""
    program = """
        if __name__ == "__mp_main__":
            time.sleep(3)
        if __name__ == "__main__":
            setup = WorkerSpec(task=fleet.walk, states=StateFiles(None))
            with ProcessExecutor(setup, ["cpu"], Limits(silence=1.5)) as executor:
                print(finish(executor, [make_task(0)])[0, 1].attempt, executor.incidents())
    """
    out, _ = start_program(program, tmp_path).communicate(timeout=60)
    assert out.split(maxsplit=1) == ["1", "[]\n"]
