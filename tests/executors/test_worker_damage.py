"""Whatever a task leaves behind or breaks with, the run goes on, ends, and leaves no process."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from pbt import Experiment, Float, Placement, Plan, truncation
from pbt.core.events import Failed
from pbt.executors import process_tree
from pbt.executors.processes import ProcessExecutor
from pbt.executors.retry import Limits
from pbt.executors.worker import WorkerSpec
from pbt.store.files import StateFiles
from pbt.testing.executors import CLOSE_SECONDS, finish, make_task, reports
from pbt.testing.invariants import violations
from tests.executors import fleet_damage
from tests.helpers.paths import ROOT
from tests.helpers.processes import runs, until


@pytest.mark.parametrize("executor", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_odd_failures_are_data(tmp_path, executor) -> None:
    """An error without a text, one with half a character and NaN are failures of their members."""
    run = Experiment(
        task=fleet_damage.break_oddly,
        space={"lr": Float(0.1, 1)},
        plan=Plan(exploit=truncation(0.2)),
        population=6,
        rounds=2,
        placement=Placement(executor=executor, workers=2),
    ).run(tmp_path / "run")
    failed = {(event.member, event.round): event.message for event in run.events if isinstance(event, Failed)}
    assert set(failed) == {(member, round_) for member in (1, 2, 4) for round_ in (1, 2)}
    assert failed[1, 1].startswith("UnspeakableError, whose text cannot be formatted: RuntimeError (fleet_damage.py:")
    assert failed[2, 1].startswith("ValueError: a name that is no text: \\udcff (fleet_damage.py:")
    assert run.history()["note"][0] == "half a character: \\udcff"
    assert violations(tmp_path / "run") == []


@pytest.mark.long
def test_what_a_task_leaves_behind_is_ended(tmp_path) -> None:
    """Threads, programs and forked processes of a task hold up neither the next round nor the end, and are ended."""
    setup = WorkerSpec(task=fleet_damage.leave_things, states=StateFiles(None))
    executor = ProcessExecutor(setup, ["cpu", "cpu"])
    outcomes = finish(executor, [make_task(m, hparams={"folder": str(tmp_path)}) for m in range(4)])
    assert len(reports(outcomes)) == 4
    left = [int(path.name) for path in tmp_path.iterdir()]
    assert len(left) == 8
    assert all(map(runs, left))
    executor.close()
    until(lambda: not any(map(runs, left)))


@pytest.mark.long
def test_a_stopped_worker_with_children(tmp_path) -> None:
    """A stopped worker is replaced at once, although a child of its own holds everything open; the child goes too."""
    setup = WorkerSpec(task=fleet_damage.leave_and_stop, states=StateFiles(None))
    with ProcessExecutor(setup, ["cpu"], Limits(silence=2.0, attempts=1)) as executor:
        outcomes = finish(executor, [make_task(0, hparams={"folder": str(tmp_path)})])
        assert "silent" in outcomes[0, 1].message
        left = [int(path.name) for path in tmp_path.iterdir()]
        until(lambda: not any(map(runs, left)))


@pytest.mark.slow
def test_close_with_many_stopped_workers(tmp_path, monkeypatch) -> None:
    """Four stopped workers with children are waited for together, not one after another, at most five seconds."""
    setup = WorkerSpec(task=fleet_damage.leave_and_stop, states=StateFiles(None))
    executor = ProcessExecutor(setup, ["cpu"] * 4)
    executor.submit([make_task(member, hparams={"folder": str(tmp_path)}) for member in range(4)])
    while len(list(tmp_path.iterdir())) < 8:
        executor._watch()
        for slot in executor._slots:
            if slot.connection.poll():
                executor._listen(slot)
        executor._deal()
        time.sleep(0.01)
    left = [int(path.name) for path in tmp_path.iterdir()]
    waited = []
    wait = process_tree._wait
    monkeypatch.setattr(
        process_tree, "_wait", lambda those, most: (waited.append((len(those), most)), wait(those, most))
    )
    executor.close()
    assert [number for number, _ in waited] == [4, 4]
    # Descendants that end by themselves get half of the time of a death.
    assert sum(most for _, most in waited) + process_tree.DEATH_SECONDS / 2 < CLOSE_SECONDS
    until(lambda: not any(map(runs, left)))


def test_workers_notice_a_dead_parent_whose_pipes_live_on(tmp_path) -> None:
    """A process that the parent had forked holds the pipes open; the workers end all the same when it is killed."""
    program = f"""
        import os, sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from tests.executors import fleet
        from pbt.executors.processes import ProcessExecutor
        from pbt.executors.worker import WorkerSpec
        from pbt.store.files import StateFiles
        from pbt.testing.executors import finish, make_task

        if __name__ == "__main__":
            executor = ProcessExecutor(WorkerSpec(task=fleet.own_pid, states=StateFiles(None)), ["cpu"])
            (outcome,) = finish(executor, [make_task(0)]).values()
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            print(outcome.reported["pid"], child, flush=True)
            time.sleep(60)
    """
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(program))
    parent = subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True)
    worker, child = map(int, parent.stdout.readline().split())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    try:
        assert runs(child)
        until(lambda: not runs(worker))
    finally:
        os.kill(child, signal.SIGKILL)
