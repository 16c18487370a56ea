"""States that stay on a device: the bits of stored ones, in places where loading would put them."""

from collections import OrderedDict, deque
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import pbt
from pbt.core.population import StateRef
from pbt.executors.base import Report
from pbt.executors.processes import ProcessExecutor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import Data, Split, SupervisedTask, dropout, optimizer
from pbt.pytorch.kept_states import KeptStates, on_host
from pbt.pytorch.trainer import SupervisedTrainer
from pbt.store.codec import decode, digest, encode
from pbt.store.files import StateFiles
from pbt.testing.executors import make_task


def net():
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(48, 2)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def data():
    images = torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    targets = (images.mean(dim=(1, 2, 3)) > 0).long()
    return Data(train=Split(images[:30], targets[:30]), validation=Split(images[30:], targets[30:]))


TASK = SupervisedTask(
    model=net,
    data=data,
    optimizer=partial(torch.optim.Adam, lr=0.01),
    bind={"lr": optimizer("lr"), "p": dropout()},
    batch_size=10,
)
SPACE = {"lr": pbt.Float(0.001, 0.1, "log"), "p": pbt.Float(0.0, 0.5)}
VARIETIES = {
    "adam": {},
    "fused": {"optimizer": partial(torch.optim.AdamW, lr=0.01, fused=True)},
    "momentum and an average": {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9), "ema": 0.9},
    "a scheduler": {"scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=2)},
    "a plateau": {"scheduler": partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=1)},
}


@pytest.fixture
def keeping(monkeypatch):
    """Keep states on the CPU as on a GPU."""
    monkeypatch.setattr(KeptStates, "of", classmethod(lambda cls, device: cls(2**20)))


def run(task, **fields):
    return pbt.run(
        task, SPACE, plan=pbt.Plan(exploit=pbt.truncation(0.3), interval=3), population=4, rounds=4, threads=1, **fields
    )


def digests(run):
    return [event.digest for event in run.events if hasattr(event, "digest")]


@pytest.mark.parametrize("variety", VARIETIES)
def test_the_same_bits_as_loaded_states(variety, monkeypatch, tmp_path):
    """A run in which no state is loaded from the store gives every state of one that loads all of them."""
    task = replace(TASK, **VARIETIES[variety])
    expected = run(task)
    monkeypatch.setattr(KeptStates, "of", classmethod(lambda cls, device: cls(2**20)))
    monkeypatch.setattr(StateFiles, "get", None)
    found = run(task)
    monkeypatch.undo()
    assert digests(found) == digests(expected)
    assert any(event.decision.donor is not None for event in found.events if hasattr(event, "decision"))


def state_of(task=TASK):
    worker = WorkerSpec(task=task, states=StateFiles(None)).open()
    (report,) = worker.run((make_task(0, hparams={"lr": 0.01, "p": 0.1}, steps=3),))
    return worker, report


@pytest.mark.usefixtures("keeping")
def test_copies():
    """A kept state is that of the store in every container and value, and nothing changes it."""
    worker, report = state_of()
    trainer = worker._train
    first = trainer.recall(report.stored.digest)
    stored = decode(report.stored.blob)
    assert digest(first) == report.stored.digest
    assert encode(first) == report.stored.blob
    assert type(first["model"]) is OrderedDict
    assert vars(first["model"]) == vars(stored["model"])
    for tensor in (*first["model"].values(), first["optimizer"]["state"][0]["exp_avg"]):
        assert tensor.is_contiguous()
        tensor.zero_()
    first["optimizer"]["param_groups"][0]["lr"] = 7.0
    assert digest(trainer.recall(report.stored.digest)) == report.stored.digest


def test_nothing_is_kept_on_the_cpu():
    """Loading is as fast there."""
    worker, report = state_of()
    assert isinstance(report, Report)
    assert worker._train.recall(report.stored.digest) is None


def test_room():
    """The oldest states make room, and one that is larger than all of it is not kept."""

    def state(numbers):
        return {"model": {"w": torch.zeros(numbers)}, "optimizer": {"param_groups": []}}

    kept = KeptStates(1000)
    for name in "ab":
        kept.keep(name, state(100))
    assert kept.get("a") is not None
    kept.keep("c", state(100))
    assert [kept.get(name) is not None for name in "abc"] == [True, False, True]
    kept.keep("d", state(300))
    assert [kept.get(name) is not None for name in "acd"] == [True, True, False]
    assert kept.clear()
    assert not kept.clear()


@pytest.mark.usefixtures("keeping")
def test_memory_for_copies_is_missing(monkeypatch):
    """Keeping a state never costs a round."""

    def fail(state):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("pbt.pytorch.kept_states._placed", fail)
    worker, report = state_of()
    assert isinstance(report, Report)
    assert worker._train.recall(report.stored.digest) is None


@pytest.mark.usefixtures("keeping")
def test_kept_states_make_room_for_a_round(monkeypatch):
    """A round without enough memory is trained again after they are freed, once."""
    worker, _ = state_of()
    fit, calls = SupervisedTrainer._fit, []

    def short(self, *given):
        calls.append(len(self._kept._states))
        if calls[-1] or short.always:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return fit(self, *given)

    monkeypatch.setattr(SupervisedTrainer, "_fit", short)
    tasks = [(make_task(member, hparams={"lr": 0.01, "p": 0.1}, steps=3),) for member in (1, 2)]
    short.always = False
    assert isinstance(worker.run(tasks[0])[0], Report)
    assert calls == [1, 0]
    short.always = True
    assert "Tried to allocate 1.00 GiB" in worker.run(tasks[1])[0].message
    assert calls == [1, 0, 1, 0]


def test_the_worker_that_holds_the_state_continues_it():
    """On a GPU a worker prefers a round that starts from its own state, and takes the first one otherwise."""
    executor = ProcessExecutor(WorkerSpec(task=TASK, states=StateFiles(None)), ["cpu"])
    waiting = [(replace(make_task(member), start=StateRef(member, 1)),) for member in (3, 1, 2)]
    executor._queue.extend(waiting)

    def next_of(device, *members):
        held = deque(StateRef(member, 1) for member in members)
        return executor._next(SimpleNamespace(device=device, held=held))[0].member

    assert next_of("cuda:0", 5, 1) == 1
    assert next_of("cuda:0", 7) == 3
    executor._queue.appendleft(waiting[0])
    assert next_of("cpu", 2) == 3
    executor.close()


def test_states_of_the_cpu_are_not_copied():
    """There a state shares the memory of its parts until it is encoded."""
    state = {"model": {"w": torch.zeros(3)}}
    assert on_host(state, "cpu") is state
