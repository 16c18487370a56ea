"""Trouble with a device: too little memory, and a device that is lost; each is one line, and nothing is lost.

The errors are torch's own, raised where a device would raise them.
"""

import logging
import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import pbt
from pbt.errors import TaskError, WorkerError
from pbt.executors import devices
from pbt.executors.base import Failure, Report
from pbt.executors.retry import LOST
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import Data, Split, SupervisedTask, optimizer
from pbt.pytorch.vectorized import VectorizedWorkerSpec
from pbt.pytorch.vectorized.population import Population
from pbt.pytorch.vectorized.training_steps import TrainingSteps
from pbt.runs.auto_placement import PlacementChoice, choose
from pbt.store.files import StateFiles
from pbt.testing.executors import make_task

SHORT = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.19 GiB of which 1.12 GiB is free."
    " Including non-PyTorch memory, this process has 78.06 GiB memory in use."
)
NEED = "Tried to allocate 2.50 GiB, total capacity of 79.19 GiB of which 1.12 GiB is free"
ASSERT = "CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' in the documentation"
GONE = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"


class Net(nn.Linear):
    """Fails in its forward pass, in training, by its `failing`."""

    def __init__(self, failing=None):
        super().__init__(3, 2)
        self.failing = failing

    def forward(self, x):
        if self.failing is not None and self.training:
            FAILURES[self.failing]()
        return super().forward(x)


def fail(kind, message):
    raise kind(message)


def once():
    """Lose the device in the first worker process."""
    path = os.environ["PBT_TEST_LOST"]
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    fail(torch.AcceleratorError, GONE)


FAILURES = {
    "short": partial(fail, torch.OutOfMemoryError, SHORT),
    "gone": partial(fail, torch.AcceleratorError, GONE),
    "assert": partial(fail, torch.AcceleratorError, ASSERT),
    "once": once,
}


def data():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long()
    return Data(train=Split(x[:30], y[:30]), validation=Split(x[30:], y[30:]))


TASK = SupervisedTask(
    model=Net, data=data, optimizer=partial(torch.optim.SGD, lr=0.1), bind={"lr": optimizer("lr")}, batch_size=10
)


def experiment(executor="vectorized", rounds=2, task=TASK, **fields):
    return pbt.Experiment(
        task=task,
        space={"lr": pbt.Float(0.001, 0.1, "log")},
        plan=pbt.Plan(interval=3),
        population=5,
        rounds=rounds,
        placement=pbt.Placement(executor=executor, device="cpu", threads=1, **fields),
    )


@pytest.fixture
def room(monkeypatch):
    """Memory for so many members: the steps of more raise torch's error."""

    def limit(most):
        run = TrainingSteps.run

        def limited(self, wave, *given, **named):
            if len(wave) > most:
                fail(torch.OutOfMemoryError, SHORT)
            return run(self, wave, *given, **named)

        monkeypatch.setattr(TrainingSteps, "run", limited)

    return limit


@pytest.fixture
def unprobed(monkeypatch):
    """No measurement before the start, which would notice."""
    monkeypatch.setattr("pbt.runs.experiment.choose", lambda placement, *_: PlacementChoice(placement=placement))


def digests(run):
    return [event.digest for event in run.events if hasattr(event, "digest")]


@pytest.mark.usefixtures("unprobed")
def test_a_program_that_does_not_fit_is_halved_once(room, tmp_path, caplog):
    """Five members become programs of three and two: said once, recorded, and kept by a resumed run."""
    expected = experiment(members_per_program=3).run()
    room(3)
    with caplog.at_level(logging.WARNING, logger="pbt"):
        run = experiment(rounds=1).run(tmp_path / "run")
    (line,) = caplog.messages
    assert all(part in line for part in ("5 members", "'cpu'", NEED, "3 train at a time"))
    assert run.meta["place"]["members_per_program"] == 3
    (entry,) = [entry for entry in run.journal() if entry.kind == "memory"]
    assert entry.details["message"] == line
    caplog.clear()
    resumed = experiment().run(tmp_path / "run", resume=True)
    assert not caplog.messages
    assert digests(resumed) == digests(expected)


def test_later_rounds_stay_halved(room):
    """The worker does not try the whole wave again."""
    room(3)
    population = Population(WorkerSpec(task=TASK, states=StateFiles(None)), TASK)
    wave = tuple(make_task(member, hparams={"lr": 0.1}, steps=2) for member in range(5))
    for expected in (1, 0):
        assert all(isinstance(outcome, Report) for outcome in population.run(wave))
        assert len(population.incidents()) == expected


def test_half_does_not_fit_either(room):
    """After that the run stops, with the need and the remedy, and no member is blamed."""
    room(2)
    population = Population(WorkerSpec(task=TASK, states=StateFiles(None)), TASK)
    outcomes = population.run(tuple(make_task(member, hparams={"lr": 0.1}, steps=2) for member in range(5)))
    first = outcomes[0]
    assert isinstance(first, Failure)
    assert first.cause == "refused"
    assert all(part in first.message for part in ("3 members", NEED, "members_per_program", "batch_size"))


@pytest.mark.usefixtures("unprobed")
def test_the_run_stops_with_one_line(room):
    """The engine raises the worker's message."""
    room(1)
    with pytest.raises(TaskError, match="fewer members_per_program"):
        experiment().run()


def test_a_probe_that_does_not_fit(room):
    """Before the start, one member that does not fit is refused for its memory, not as a kind of task."""
    room(0)
    with pytest.raises(TaskError) as caught:
        experiment().run()
    assert NEED in str(caught.value)
    assert "batch_size" in str(caught.value)
    assert "as one program" not in str(caught.value)


def test_one_member_does_not_fit():
    """A member trained alone that does not fit fails: its batch size may be its own."""
    task = replace(TASK, model=partial(Net, "short"))
    worker = WorkerSpec(task=task, states=StateFiles(None)).open()
    (outcome,) = worker.run((make_task(0, hparams={"lr": 0.1}),))
    assert outcome.cause == "exception"
    assert NEED in outcome.message
    assert "batch_size" in outcome.message


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize("executor", ["inline", "vectorized"])
def test_a_lost_device_ends_the_run(executor, tmp_path):
    """In this process nothing can be trained any more: the log stays as it is, and the run can be resumed."""
    experiment(executor, rounds=1).run(tmp_path / "run")
    before = pbt.Run.open(tmp_path / "run").events
    with pytest.raises(WorkerError) as caught:
        experiment(executor, task=replace(TASK, model=partial(Net, "gone"))).run(tmp_path / "run", resume=True)
    message = str(caught.value)
    assert all(part in message for part in ("'cpu'", GONE.splitlines()[0], "resume", "'processes'"))
    assert "\n" not in message
    assert pbt.Run.open(tmp_path / "run").events[: len(before)] == before
    assert len(experiment(executor).run(tmp_path / "run", resume=True).events) > len(before)


@pytest.mark.slow
@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize("together", [False, True])
def test_a_worker_that_lost_its_device_is_replaced(together, tmp_path, monkeypatch):
    """A new process trains the round again, with the same bits; the journal names the device's error."""
    fields = {"workers": 2, **({"members_per_program": 3} if together else {})}
    executor = "vectorized" if together else "processes"
    task = replace(TASK, model=partial(Net, "once"))
    path = tmp_path / "lost"
    path.touch()
    monkeypatch.setenv("PBT_TEST_LOST", str(path))
    expected = experiment(executor, task=task, **fields).run()
    path.unlink()
    run = experiment(executor, task=task, **fields).run()
    assert digests(run) == digests(expected)
    lost = [entry.details["message"] for entry in run.journal() if entry.kind == LOST]
    assert lost
    assert all("lost its device" in message and GONE.splitlines()[0] in message for message in lost)


def test_an_index_out_of_range_is_explained():
    """The most frequent cause of a device-side assert is named, because the device does not."""
    text = devices.lost_text("cuda:0", torch.AcceleratorError(ASSERT))
    assert "index is out of range" in text
    assert "\n" not in text
    assert "index" not in devices.lost_text("cuda:0", torch.AcceleratorError(GONE))


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (torch.AcceleratorError(GONE), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (torch.OutOfMemoryError(SHORT), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA"), False),
    ],
)
def test_kinds_of_errors(error, lost):
    """Memory and the user's mistakes leave a device usable."""
    assert devices.device_lost(error) == lost
    assert devices.out_of_memory(error) == isinstance(error, torch.OutOfMemoryError)
    wrapped = TaskError("it failed")
    wrapped.__cause__ = error
    assert devices.out_of_memory(wrapped) == isinstance(error, torch.OutOfMemoryError)


def test_multi_process_service(tmp_path, monkeypatch):
    """MPS is on if its daemon runs; a file that a killed one left is not enough."""
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not devices.mps_is_on()
    pid = tmp_path / "nvidia-cuda-mps-control.pid"
    pid.write_text(str(os.getpid()))
    assert devices.mps_is_on()
    pid.write_text(str(2**22 + 1))
    assert not devices.mps_is_on()
    pid.unlink()
    (tmp_path / "control").touch()
    assert devices.mps_is_on()


@pytest.mark.parametrize(("on", "how"), [(True, "at the same time"), (False, "in turns")])
def test_workers_that_share_a_gpu(on, how, monkeypatch):
    """More worker processes than GPUs share them, and the run says how."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("pbt.runs.auto_placement.mps_is_on", lambda: on)
    births = [{"lr": 0.1}] * 4
    choice = choose(pbt.Placement(executor="processes", workers=3, device="cuda"), TASK, births)
    assert choice.why == f"processes: 3 workers share 1 GPU, {how}: MPS is {'on' if on else 'off'}"
    assert choose(pbt.Placement(executor="processes", device="cuda"), TASK, births).why == ""
    assert choose(pbt.Placement(executor="processes", workers=3, device="cpu"), TASK, births).why == ""


def test_spec_of_workers():
    """Programs in worker processes report their incidents, too."""
    assert isinstance(VectorizedWorkerSpec(task=TASK, states=StateFiles(None)).open(), Population)
