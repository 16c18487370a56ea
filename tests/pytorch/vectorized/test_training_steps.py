"""Steps of a round: the batches of the inline executor, and a graph that hyperparameters do not invalidate."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from pbt.executors.worker import WorkerSpec
from pbt.pytorch import attribute, clip_norm, dropout, loss, optimizer
from pbt.pytorch.noise import Noise
from pbt.pytorch.vectorized import training_steps
from pbt.pytorch.vectorized.population import Population
from pbt.pytorch.vectorized.program import Program
from pbt.pytorch.vectorized.settings import HParamReader
from pbt.pytorch.vectorized.training_steps import TrainingSteps
from pbt.pytorch.vectorized.tuning import ACCELERATOR, Tuning
from pbt.store.files import StateFiles
from tests.helpers.tasks import DENSE, PLAIN

TASK = replace(
    DENSE,
    optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    clip_norm=1.0,
    bind={
        "lr": optimizer("lr"),
        "p": dropout(),
        "clip": clip_norm(),
        "s": loss("label_smoothing"),
        "momentum": optimizer("momentum"),
        "nesterov": optimizer("nesterov"),
    },
)
FIRST = {"lr": 0.1, "p": 0.2, "clip": 1.0, "s": 0.1}


def configured(program, reader, *members):
    program.configure([reader.settle(hparams, None) for hparams in members])
    return program


def program_of(task, *members):
    reader = HParamReader(task)
    program = Program(task, len(members), "cpu", reader.stand_in, ACCELERATOR)
    return configured(program, reader, *members), reader


@pytest.mark.parametrize("order", ["shared", "member", "stored"])
@pytest.mark.parametrize("drop_last", [True, False])
def test_examples_are_those_of_members_alone(order, drop_last):
    """Examples taken by place are those that a member trained alone sees, over an epoch's end and a short batch."""
    task, members = replace(DENSE, order=order, drop_last=drop_last), [4, 1, 7]
    batches = task.batches(task.data(), "cpu", members=3)
    one = task.batches(task.data(), "cpu")
    for step in range(2, 8):
        indices = batches.indices(step, 5, members, 12)
        assert len(indices) == (3 if order == "member" else 1)
        for row, member in enumerate(members):
            inputs, targets = batches.take(indices[row if order == "member" else 0])
            alone = one.at(step, 5, member, 0)
            assert all(map(torch.equal, (*inputs, targets), (*alone[0], alone[1])))


def test_hyperparameters_change_tensors_in_place():
    """New learning rates, dropout, clipping and smoothing leave the signature of a graph, and write where it reads."""
    others = {"lr": 0.3, "p": 0.4, "clip": 0.5, "s": 0.2}
    program, reader = program_of(TASK, FIRST, others)
    tensors = [program._stepper._numbers, program._norms, program._measures._smoothing]
    tensors += [layer._columns for layer in program._net._dropouts]
    before, signature, places = [t.clone() for t in tensors], repr(program.signature), [t.data_ptr() for t in tensors]
    configured(program, reader, others | {"lr": 0.01, "clip": 2.0, "s": 0.3, "p": 0.1}, FIRST | {"p": 0.6})
    assert repr(program.signature) == signature
    assert [t.data_ptr() for t in tensors] == places
    assert not any(map(torch.equal, tensors, before))


@pytest.mark.parametrize(
    "change", [{"momentum": 0.0}, {"nesterov": True}, {"p": 0.0}], ids=["momentum off", "nesterov", "no dropout"]
)
def test_what_a_graph_depends_on(change):
    """A value that decides which operations run changes the signature, so a graph is captured again."""
    program, reader = program_of(TASK, FIRST, FIRST)
    signature = repr(program.signature)
    configured(program, reader, FIRST | change, FIRST | change)
    assert repr(program.signature) != signature


def test_counters_and_attributes_are_part_of_it():
    """An attribute that the network keeps in Python, or that differs between members, changes the signature."""
    task = replace(PLAIN, bind={**PLAIN.bind, "slope": attribute("model.1.negative_slope")}, model=sloped)
    program, reader = program_of(task, {"lr": 0.1, "slope": 0.1}, {"lr": 0.1, "slope": 0.1})
    signature = repr(program.signature)
    configured(program, reader, {"lr": 0.1, "slope": 0.2}, {"lr": 0.1, "slope": 0.2})
    common = repr(program.signature)
    assert common != signature
    configured(program, reader, {"lr": 0.1, "slope": 0.2}, {"lr": 0.1, "slope": 0.3})
    assert repr(program.signature) != common


class Graphs:
    """Stands for `graphs.capture`, which needs a device: a replay runs the body again.

    Args:
        fail: Called with each body instead of recording it.
    """

    def __init__(self, fail=None):
        self.fail, self.captured, self.replayed = fail, 0, 0

    def __call__(self, body, device):
        self.captured += 1
        if self.fail is not None:
            self.fail()

        def replay():
            self.replayed += 1
            body()

        return replay


def population_of(task, births, steps=6):
    population = Population(WorkerSpec(task=task, states=StateFiles(None)), task)
    return population, population.try_out(births, steps)[0]


OTHERS = [FIRST, FIRST | {"lr": 0.02, "p": 0.4, "clip": 0.3}]


@pytest.fixture
def graphs(monkeypatch):
    monkeypatch.setattr(Tuning, "of", classmethod(lambda cls, device: ACCELERATOR))
    graphs = Graphs()
    monkeypatch.setattr(training_steps, "capture", graphs)
    return graphs


def test_a_step_is_captured_once_and_replayed(graphs):
    """Two eager steps, one capture for each size of a batch, then replays; the next rounds replay, with new values."""
    population, run = population_of(TASK, OTHERS, steps=8)
    losses = run()[0].clone()
    assert (graphs.captured, graphs.replayed) == (2, 6)  # an epoch ends with a short batch
    run()
    assert (graphs.captured, graphs.replayed) == (2, 14)
    _, eager = population_of(TASK, OTHERS, steps=8)
    assert torch.equal(eager(eager=True)[0], losses)
    values = [own | {"lr": 0.3, "p": 0.1} for own in OTHERS]
    population._program.configure([HParamReader(TASK).settle(own, None) for own in values])
    run()
    assert graphs.captured == 2
    population._program.configure([HParamReader(TASK).settle(own | {"nesterov": True}, None) for own in values])
    run()
    assert graphs.captured == 4


def test_a_round_of_replays_alone_is_kept(graphs):
    """What an optimizer keeps of a fresh member is part of its state, although a graph ran no Python."""
    population, run = population_of(replace(TASK, drop_last=True), OTHERS)
    run()
    program = population._program
    program._stepper.load(0, {})
    for size in population._steps._graphs:
        # The device counts, and no Python runs.
        population._steps._graphs[size] = partial(program._stepper._steps.add_, 1)
    run()
    assert set(program._stepper.dump(0)[0]) == {"momentum_buffer"}


def test_a_step_that_cannot_be_captured_runs_all_the_same(graphs, caplog):
    """A failing capture costs a log line and nothing else; it is tried again only for a graph that differs."""
    population, run = population_of(TASK, OTHERS)
    graphs.fail = lambda: (_ for _ in ()).throw(RuntimeError("operation not permitted\nwhen stream is capturing"))
    with caplog.at_level("INFO", logger="pbt"):
        losses = run()[0].clone()
        run()
    assert (graphs.captured, graphs.replayed) == (1, 0)
    assert [record.message for record in caplog.records] == [
        "training steps are not captured as a graph: RuntimeError: operation not permitted"
    ]
    _, eager = population_of(TASK, OTHERS)
    assert torch.equal(eager(eager=True)[0], losses)
    graphs.fail = None
    population._program.configure([HParamReader(TASK).settle(own | {"nesterov": True}, None) for own in OTHERS])
    run()
    assert graphs.replayed


def test_a_fault_of_the_capture_is_not_the_members(graphs):
    """A loss or a metric that fails during capture, as by reading a value, leaves the members without a fault."""
    population, run = population_of(TASK, OTHERS)
    faults = population._program._measures.faults
    graphs.fail = lambda: faults.setdefault(1, RuntimeError("a value was read"))
    run()
    assert graphs.captured == 1
    assert not graphs.replayed
    assert not faults


def shifted(inputs, generator):
    return inputs + 1


def sloped():
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LeakyReLU(0.1), torch.nn.Linear(4, 3)).double()


def test_reasons_against_a_graph():
    """An optimizer without arithmetic of its own here, and a scheduler that is stepped by steps, are named."""

    def reason(**changes):
        return program_of(replace(TASK, bind={"lr": optimizer("lr")}, **changes), {"lr": 0.1})[0].uncapturable

    schedulers = torch.optim.lr_scheduler
    assert reason() is None
    assert "optimizer" in reason(optimizer=partial(torch.optim.NAdam, lr=0.1))
    assert "scheduler" in reason(scheduler=partial(schedulers.StepLR, step_size=2))
    assert reason(scheduler=partial(schedulers.ReduceLROnPlateau, patience=2)) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"augment": shifted}, "augmentation"),
        ({"optimizer": partial(torch.optim.NAdam, lr=0.1)}, "optimizer"),
    ],
)
def test_a_reason_is_logged_once(changes, reason, caplog):
    """Steps that are not captured say why, in one line of level INFO for all rounds."""
    task = replace(TASK, bind={"lr": optimizer("lr")}, **changes)
    program, _ = program_of(task, {"lr": 0.1})
    steps = TrainingSteps(task, program, task.batches(task.data(), "cpu"), "cpu")
    with caplog.at_level("INFO", logger="pbt"):
        assert [steps._may_capture() for _ in range(3)] == [reason is None] * 3
    messages = [record.message for record in caplog.records]
    assert len(messages) == (reason is not None)
    assert all(reason in message for message in messages)


def test_noise_of_the_cpu_is_not_that_of_an_accelerator():
    """The choices for an accelerator draw by counter, whatever the device."""
    program, _ = program_of(TASK, FIRST)
    assert type(program.noise) is not Noise
