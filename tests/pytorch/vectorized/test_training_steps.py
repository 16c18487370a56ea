"""Steps of a round: the batches of the inline executor, and a graph that hyperparameters do not invalidate."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from pbt.executors.base import RoundTask
from pbt.pytorch import attribute, clip_norm, dropout, loss, optimizer
from pbt.pytorch.noise import Noise
from pbt.pytorch.vectorized.program import Program
from pbt.pytorch.vectorized.settings import HParamReader
from pbt.pytorch.vectorized.tuning import ACCELERATOR
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
def test_places_are_those_of_members_alone(order, drop_last):
    """Examples taken by place are those that a member trained alone sees, over an epoch's end and a short batch."""
    task, members = replace(DENSE, order=order, drop_last=drop_last), [4, 1, 7]
    batches = task.batches(task.data(), "cpu", members=3)
    first = RoundTask(member=4, round=1, start=None, hparams={}, first_step=2, steps=6, seed=5)
    for number in range(6):
        places = batches.places(first, members, 12, number)
        assert len(places) == (3 if order == "member" else 1)
        for row, member in enumerate(members):
            inputs, targets = batches.take(places[row if order == "member" else 0])
            alone = batches.at(2 + number, 5, member, 0)
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


def test_noise_of_the_cpu_is_not_that_of_an_accelerator():
    """The choices for an accelerator draw by counter, whatever the device."""
    program, _ = program_of(TASK, FIRST)
    assert type(program.noise) is not Noise
