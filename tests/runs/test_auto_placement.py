"""What `executor="auto"` means, and what is recorded of it."""

import logging
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import pbt
from pbt.domains import Float
from pbt.errors import TaskError, UsageError
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import Data, Split, SupervisedTask, optimizer
from pbt.pytorch.vectorized.autotune import Layout, Probe, probe
from pbt.runs.auto_placement import choose
from pbt.runs.placement import Placement
from pbt.store.files import StateFiles
from tests.helpers.paths import ROOT

BIRTHS = [{"lr": 0.01 * (i + 1)} for i in range(4)]
CPU = Placement(executor="auto", device="cpu", workers=2)


class Branching(nn.Linear):
    """A network whose way depends on its data."""

    def forward(self, x):
        return super().forward(x if float(x.detach().sum() + self.weight.detach().sum()) > 0 else -x)


class BranchingLater(nn.Linear):
    """The same in evaluation alone."""

    def forward(self, x):
        return super().forward(x if self.training or float(x.sum() + self.weight.sum()) > 0 else -x)


def branching_later():
    return BranchingLater(3, 2)


def branching():
    return Branching(3, 2)


def plain():
    return nn.Linear(3, 2)


def data():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long()
    return Data(train=Split(x[:30], y[:30]), validation=Split(x[30:], y[30:]))


TASK = SupervisedTask(model=plain, data=data, optimizer=torch.optim.SGD, bind={"lr": optimizer("lr")}, batch_size=10)
SPACE = {"lr": Float(0.001, 0.1, "log")}


def own_loop(hparams, state, steps, ctx):
    return {"steps": ctx.first_step + steps}, hparams["lr"]


@pytest.mark.parametrize(
    ("task", "births", "wanted", "executor", "why"),
    [
        (TASK, BIRTHS[:1], CPU, "inline", "there is one member"),
        (own_loop, BIRTHS, CPU, "processes", "2 workers"),
        (own_loop, BIRTHS, replace(CPU, workers=1), "inline", "room for one worker"),
        (lambda *_: None, BIRTHS, CPU, "inline", "cannot be sent"),
        (TASK, BIRTHS, replace(CPU, members_per_program=1), "processes", "2 workers"),
        (replace(TASK, model=branching), BIRTHS, CPU, "processes", "cannot be trained as one program"),
        (replace(TASK, model=branching_later), BIRTHS, CPU, "processes", "cannot be trained as one program"),
    ],
)
def test_rules(task, births, wanted, executor, why) -> None:
    """Where it is clear the executor follows from the task and the machine, and the reason is said."""
    choice = choose(wanted, task, births)
    assert choice.placement == replace(wanted, executor=executor)
    assert why in choice.why


@pytest.mark.parametrize(("together", "executor"), [(0.01, "vectorized"), (0.03, "processes")])
def test_what_was_measured_decides(together, executor, monkeypatch) -> None:
    """The faster way is taken; both times are named."""
    layout = Layout(workers=1, threads=1)
    found = Probe(member_bytes=1, free_bytes=100, room=4, layout=layout, together=together, apart=0.02)
    monkeypatch.setattr("pbt.runs.auto_placement._probe", lambda *_: found)
    choice = choose(CPU, TASK, BIRTHS)
    assert choice.placement.executor == executor
    assert choice.placement.members_per_program == (4 if executor == "vectorized" else None)
    assert f"takes {1000 * together:,.1f} ms as one program, 20.0 apart" in choice.why


def test_what_is_measured() -> None:
    """Both ways are timed on the task itself, with the number of threads that is faster for one program."""
    setup = WorkerSpec(task=TASK, states=StateFiles(None))
    layouts = [Layout(workers=1, threads=1), Layout(workers=1, threads=2), Layout(workers=2, threads=1)]
    found = probe(TASK, setup, BIRTHS, layouts, (2, 1))
    assert 0 < found.together < 10
    assert 0 < found.apart < 10
    assert found.layout in layouts
    assert found.room >= len(BIRTHS)
    # Four times two by three weights and two biases of four bytes, aligned to 64, and what a step keeps.
    assert 4 * 8 * 4 < found.member_bytes < 10_000
    assert probe(TASK, setup, BIRTHS, layouts[:1], None).apart == 0


def test_a_population_larger_than_memory_is_cut(monkeypatch) -> None:
    """As many members in one program as half of the free memory holds, at least one; it is said."""
    monkeypatch.setattr("pbt.pytorch.vectorized.autotune.free_memory", lambda _: 10_000)
    choice = choose(Placement(executor="vectorized", device="cpu"), TASK, BIRTHS * 8)
    assert 1 <= choice.placement.members_per_program < 32
    assert f"{choice.placement.members_per_program} in one program" in choice.why
    assert (
        choose(
            Placement(executor="vectorized", device="cpu", members_per_program=7), TASK, BIRTHS * 8
        ).placement.members_per_program
        == 7
    )


def test_one_program_is_refused_for_its_evaluation(tmp_path) -> None:
    """What one program cannot evaluate is refused before there is a run."""
    with pytest.raises(TaskError, match=r"it decides by the values in a tensor.*use the executor 'processes'"):
        pbt.run(
            replace(TASK, model=branching_later), SPACE, population=3, placement="vectorized", run_dir=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_one_program_is_refused_with_the_reason() -> None:
    """Asked for by name, one program is an error for a task that cannot be one; it names what can train it."""
    asked = Placement(executor="vectorized", device="cpu")
    for task, what in ((own_loop, "own loop"), (replace(TASK, model=branching), "cannot be trained as one program")):
        with pytest.raises(TaskError, match=what) as caught:
            choose(asked, task, BIRTHS)
        assert "the executor 'processes'" in str(caught.value)


@pytest.mark.usefixtures("warm")
def test_the_choice_is_recorded_and_kept(tmp_path, caplog, monkeypatch) -> None:
    """The run says what was chosen and why; going on keeps executor, threads and chunk, whatever is faster now."""
    caplog.set_level(logging.INFO, "pbt")
    settings = {"population": 32, "seed": 1, "plan": pbt.Plan(interval=3)}
    settings |= {"placement": pbt.Placement(executor="auto", device="cpu")}
    pbt.run(TASK, SPACE, rounds=1, run_dir=tmp_path / "run", **settings)
    begun = pbt.Run.open(tmp_path / "run").meta["place"]
    assert begun["executor"] in {"vectorized", "processes"}
    assert f"executor {begun['executor']}: " in caplog.text
    monkeypatch.setattr("pbt.runs.experiment.choose", None)
    caplog.clear()
    run = pbt.run(TASK, SPACE, rounds=2, run_dir=tmp_path / "run", resume=True, **settings)
    assert "resumed with another placement" not in caplog.text
    assert run.history()["round"][-1] == 2


def test_going_on_with_another_executor_is_told(tmp_path, caplog) -> None:
    """A run may go on anywhere; what its bits depend on is named where it changed."""
    settings = {"population": 4, "seed": 1, "plan": pbt.Plan(interval=3)}
    together = pbt.Placement(executor="vectorized", device="cpu", workers=1)
    pbt.run(TASK, SPACE, rounds=1, run_dir=tmp_path / "run", placement=together, **settings)
    pbt.run(
        TASK,
        SPACE,
        rounds=2,
        run_dir=tmp_path / "run",
        placement=replace(together, executor="inline"),
        resume=True,
        **settings,
    )
    assert "executor vectorized -> inline" in caplog.text


def test_a_directory_in_use_is_refused_before_anything_is_tried(tmp_path, monkeypatch) -> None:
    """What stands in the way of a run is found before its task is measured."""
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("pbt.runs.experiment.choose", None)
    with pytest.raises(pbt.PBTError, match="file"):
        pbt.run(TASK, SPACE, population=4, rounds=1, placement="auto", run_dir=tmp_path)


def test_bad_chunks() -> None:
    """A chunk holds at least one member."""
    with pytest.raises(UsageError, match="at least 1 of members_per_program"):
        Placement(members_per_program=0)


def test_programs_of_a_task_that_stays_here() -> None:
    """A task that cannot be sent to workers is one program in this process; workers asked for are refused."""
    task = replace(TASK, model=lambda: nn.Linear(3, 2))
    assert choose(Placement(executor="vectorized", device="cpu"), task, BIRTHS).placement.workers == 1
    with pytest.raises(TaskError, match="top level"):
        choose(Placement(executor="vectorized", device="cpu", workers=2), task, BIRTHS)


@pytest.mark.parametrize("layout", [Layout(workers=2, threads=1), Layout(workers=1, threads=2)])
def test_shares(layout, monkeypatch) -> None:
    """A worker has its share of the members, as far as its part of the memory has room."""
    found = Probe(member_bytes=1, free_bytes=100, room=32, layout=layout, together=0.01, apart=0.02)
    monkeypatch.setattr("pbt.runs.auto_placement._probe", lambda *_: found)
    choice = choose(replace(CPU, workers=None), TASK, BIRTHS * 10)
    chosen = choice.placement
    assert (chosen.executor, chosen.workers, chosen.threads) == ("vectorized", layout.workers, layout.threads)
    assert chosen.members_per_program == (16 if layout.workers == 2 else 32)
    assert choose(replace(CPU, workers=None), TASK, BIRTHS * 5).placement.members_per_program == 20 // layout.workers
    assert ("2 programs at once" in choice.why) == (layout.workers == 2)
    assert f"{chosen.members_per_program} in one program" in choice.why


def test_a_task_from_a_prompt() -> None:
    """What is defined where no other process can find it is refused before anything starts."""
    task = "def task(h, s, n, c): return s, 1.0"
    program = f"import pbt\n{task}\npbt.run(task, {{'a': pbt.Float(0, 1)}}, placement='processes')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "TaskError: the task is defined at a prompt or in a notebook" in ended.stderr


@pytest.mark.parametrize(
    "definition", ["def task(h, s, n, c): return s, 1.0", "from tests.executors.fleet import walk as task"]
)
def test_a_program_from_standard_input(definition) -> None:
    """A worker cannot run the program again, wherever its task is defined; none is started."""
    program = f"import pbt\n{definition}\npbt.run(task, {{'lr': pbt.Float(0, 1)}}, placement='processes')"
    ended = subprocess.run(
        [sys.executable, "-"], input=program, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert "TaskError: the program is read from standard input" in last
    assert "put it into a file, or use the executor 'inline'" in last
    assert "worker" not in last
