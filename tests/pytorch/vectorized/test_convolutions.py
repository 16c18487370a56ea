"""Convolutions of a program on an accelerator: the fastest way, timed once before a run, and kept with it."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import pbt
from pbt.errors import UsageError
from pbt.executors.base import CONVOLUTIONS, Executor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import Data, Split, SupervisedTask, optimizer
from pbt.pytorch.noise import CounterNoise, Noise
from pbt.pytorch.vectorized import VectorizedExecutor, autotune
from pbt.pytorch.vectorized.tuning import ACCELERATOR, Tuning
from pbt.report.facts import environment
from pbt.report.snapshot import snapshot_of
from pbt.runs.auto_placement import choose
from pbt.runs.replay import compare, replay
from tests.helpers.varieties import NetworksContract

EAGER = replace(ACCELERATOR, capture=False)


@pytest.fixture
def accelerator(monkeypatch):
    """The choices for an accelerator, on the CPU."""
    monkeypatch.setattr(Tuning, "of", classmethod(lambda cls, device: EAGER))
    monkeypatch.setattr(Noise, "of", staticmethod(CounterNoise))


class Ways(NetworksContract):
    """Networks in a program with this way for convolutions, compared with members alone."""

    exact = False

    def __init__(self, way):
        self._way = way

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return VectorizedExecutor(setup, convolutions=self._way)


@pytest.mark.long
@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("name", ["residual", "depthwise"])
@pytest.mark.parametrize("way", CONVOLUTIONS)
def test_every_way_agrees(way, name):
    """Each way trains what the members alone would."""
    Ways(way).agree(name)


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 2))


def data():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(40, 1, 6, 6, generator=generator)
    targets = (images.mean(dim=(1, 2, 3)) > 0).long()
    return Data(train=Split(images[:30], targets[:30]), validation=Split(images[30:], targets[30:]))


TASK = SupervisedTask(
    model=net, data=data, optimizer=partial(torch.optim.SGD, lr=0.1), bind={"lr": optimizer("lr")}, batch_size=10
)
BIRTHS = [{"lr": 0.01 * (i + 1)} for i in range(3)]
TOGETHER = pbt.Placement(executor="vectorized", device="cpu", workers=1, threads=1)


def experiment(rounds=2, **fields):
    return pbt.Experiment(
        task=TASK,
        space={"lr": pbt.Float(0.001, 0.1, "log")},
        plan=pbt.Plan(interval=3),
        population=3,
        rounds=rounds,
        placement=replace(TOGETHER, **fields),
    )


def timed(monkeypatch, **seconds):
    """Ways take these seconds; those without one fail."""
    tried = []

    def step(population, births, layout, room, device):
        way = population._tuning.convolutions
        tried.append(way)
        if way not in seconds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return seconds[way]

    monkeypatch.setattr(autotune, "_step_of_all", step)
    return tried


@pytest.mark.usefixtures("accelerator")
def test_the_fastest_is_chosen(monkeypatch):
    """All ways are timed with the network's own step; the choice and all times are said."""
    timed(monkeypatch, grouped=0.003, separate=0.002, unfolded=0.004)
    choice = choose(TOGETHER, TASK, BIRTHS)
    assert choice.placement.convolutions == "separate"
    assert choice.why == "convolutions separate: a step takes grouped 3.0 ms, separate 2.0 ms, unfolded 4.0 ms"


@pytest.mark.usefixtures("accelerator")
def test_ways_are_really_timed():
    """Each way runs a step of this network."""
    choice = choose(TOGETHER, TASK, BIRTHS)
    assert choice.placement.convolutions in CONVOLUTIONS
    assert all(f"{way} " in choice.why for way in CONVOLUTIONS)


@pytest.mark.usefixtures("accelerator")
def test_a_way_that_fails_is_left_out(monkeypatch, caplog):
    """Patches may not fit into memory; the other ways are compared."""
    timed(monkeypatch, grouped=0.003, separate=0.002)
    with caplog.at_level("INFO", logger="pbt"):
        choice = choose(TOGETHER, TASK, BIRTHS)
    assert choice.placement.convolutions == "separate"
    assert ["unfolded" in message and "OutOfMemoryError" in message for message in caplog.messages] == [True]


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize(("task", "way"), [(TASK, "unfolded"), (replace(TASK, model=linear), None)])
def test_nothing_to_choose(task, way, monkeypatch):
    """A given way is not compared with others, and a network without convolutions has none."""
    tried = timed(monkeypatch, grouped=0.003, separate=0.002, unfolded=0.004)
    choice = choose(replace(TOGETHER, convolutions=way), task, BIRTHS)
    assert choice.placement.convolutions == way
    assert choice.why == ""
    assert len(tried) == 1


def test_nothing_is_timed_on_the_cpu(monkeypatch):
    """One call per member is always fastest there."""
    tried = timed(monkeypatch, separate=0.002)
    choice = choose(TOGETHER, TASK, BIRTHS)
    assert choice.placement.convolutions is None
    assert tried == ["separate"]
    assert Tuning.of("cpu").convolving("grouped").convolutions == "separate"


def test_unknown_way():
    with pytest.raises(UsageError, match="grouped, separate, unfolded"):
        pbt.Placement(convolutions="fft")


@pytest.mark.usefixtures("accelerator")
def test_the_run_keeps_its_way(tmp_path, monkeypatch):
    """The choice is recorded and shown; a resumed run and a replay use it, and time nothing again."""
    used = []
    monkeypatch.setattr(
        Tuning, "convolving", lambda self, way: (used.append(way), replace(self, convolutions=way or "grouped"))[1]
    )
    with monkeypatch.context() as times:
        timed(times, grouped=0.003, separate=0.004, unfolded=0.002)
        whole, run = experiment().run(), experiment(1).run(tmp_path / "run")
    assert run.meta["place"]["convolutions"] == "unfolded"
    assert environment(snapshot_of(run))["convolutions"] == "unfolded"
    (why,) = [entry.details["why"] for entry in run.journal() if entry.kind == "executor"]
    assert why.startswith("convolutions unfolded: a step takes")
    used.clear()
    monkeypatch.setattr(autotune, "probe", None)
    resumed = experiment().run(tmp_path / "run", resume=True)
    assert used == ["unfolded"]
    assert resumed.meta["place"]["convolutions"] == "unfolded"
    assert [event.digest for event in resumed.events if hasattr(event, "digest")] == [
        event.digest for event in whole.events if hasattr(event, "digest")
    ]
    used.clear()
    assert compare(resumed, replay(resumed, TASK)).identical
    assert used == ["unfolded"]
