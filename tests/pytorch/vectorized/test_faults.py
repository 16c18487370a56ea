"""An exception of one member, wherever it is raised, costs that member only; and programs that cannot continue."""

import logging
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pbt import Experiment, Float, Plan, keep, never
from pbt.core.events import Failed, Reported
from pbt.core.population import StateRef
from pbt.errors import TaskError
from pbt.executors.base import Failure, Report
from pbt.executors.inline import InlineExecutor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import attribute, augment, clip_norm, loss, optimizer
from pbt.pytorch.vectorized import VectorizedExecutor
from pbt.runs.auto_placement import choose
from pbt.runs.placement import Placement
from pbt.store.files import StateFiles
from pbt.testing.executors import finish, make_task
from pbt.testing.states import check_close, state_of
from tests.helpers.tasks import PLAIN, doubled

VALUES = [{"lr": 0.05, "a": 0.5}, {"lr": 0.1, "a": 2.0}, {"lr": 0.02, "a": 0.7}]
"""The second member fails."""


class Inverse(nn.Module):
    """Inverts a matrix that is singular for a temperature of 2."""

    def __init__(self, evaluation=False):
        super().__init__()
        self.inner, self.evaluation, self.temperature = nn.Linear(6, 3), evaluation, 0.0

    def forward(self, x):
        if self.training == self.evaluation:
            return self.inner(x)
        return self.inner(x) @ torch.linalg.inv((2.0 - self.temperature) * torch.eye(3, dtype=x.dtype))


def failing_loss(outputs, targets, a=0.0):
    if a > 1:
        raise ValueError("no loss above 1")
    return F.cross_entropy(outputs, targets)


def failing_augment(x, generator, a=0.0):
    if a > 1:
        raise ValueError("no strength above 1")
    return x


class FailingSGD(torch.optim.SGD):
    """Fails in its step for large rates."""

    def step(self, closure=None):
        if self.param_groups[0]["lr"] >= 0.1:
            raise ValueError("no rate from 0.1 on")
        return super().step(closure)


def failing_schedule(rule):
    """A scheduler that fails for large rates."""
    return torch.optim.lr_scheduler.LambdaLR(rule, partial(_factor, rule))


def _factor(rule, step):
    if step and rule.param_groups[0]["initial_lr"] >= 0.1:
        raise ValueError("no schedule from 0.1 on")
    return 1.0


def failing_metric(outputs, targets):
    """Fails for outputs of large size, which only the second member has."""
    if float(outputs.abs().max()) > 30:
        raise ValueError("no outputs above 30")
    return outputs.abs().mean()


class Large(nn.Module):
    """Multiplies its outputs."""

    def __init__(self):
        super().__init__()
        self.inner, self.factor = nn.Linear(6, 3), 1.0

    def forward(self, x):
        return self.inner(x) * (1 if self.training else self.factor**8)


def bound(task, binding):
    return replace(task, bind={"lr": optimizer("lr"), "a": binding})


SILENT = replace(PLAIN, bind={"lr": optimizer("lr"), "a": attribute("model.0.unread")})


def with_attribute():
    model = doubled(partial(nn.Sequential, nn.Linear(6, 3)))
    model[0].unread = 0.0
    return model


RATED = replace(SILENT, model=with_attribute)
PLACES = {
    "forward": bound(replace(PLAIN, model=partial(doubled, Inverse)), attribute("model.temperature")),
    "evaluation": bound(replace(PLAIN, model=partial(doubled, Inverse, True)), attribute("model.temperature")),
    "loss": bound(replace(PLAIN, loss=failing_loss), loss("a")),
    "score": bound(
        replace(PLAIN, model=partial(doubled, Large), metrics={"m": failing_metric}, score="m"),
        attribute("model.factor"),
    ),
    "optimizer": replace(RATED, optimizer=FailingSGD),
    "scheduler": replace(RATED, scheduler=failing_schedule),
    "augment": bound(replace(PLAIN, augment=failing_augment), augment("a")),
}


def outcomes_of(executor, task, values=VALUES, first=1):
    with executor(WorkerSpec(task=task, states=StateFiles(None))) as one:
        return finish(one, [make_task(m, first, hparams=own, steps=3) for m, own in enumerate(values)])


@pytest.mark.parametrize("place", PLACES)
def test_an_exception_costs_one_member(place) -> None:
    """The member fails with its own exception, as alone; all others end with the states and scores of members alone."""
    found, expected = (outcomes_of(executor, PLACES[place]) for executor in (VectorizedExecutor, InlineExecutor))
    assert isinstance(expected[1, 1], Failure)
    assert (found[1, 1].cause, found[1, 1].message) == (expected[1, 1].cause, expected[1, 1].message)
    for member in (0, 2):
        own, alone = found[member, 1], expected[member, 1]
        assert isinstance(own, Report), own
        check_close(state_of(own.stored), state_of(alone.stored), f"member {member}")
        check_close(own.scores, alone.scores)


def test_an_exception_of_a_binding_costs_one_member() -> None:
    """A value that a binding refuses fails the member, before anybody is trained."""
    values = [{"lr": 0.1, "a": norm} for norm in (1.0, -1.0, 2.0)]
    outcomes = outcomes_of(VectorizedExecutor, bound(PLAIN, clip_norm()), values)
    assert "expected a norm above 0, got -1.0" in outcomes[1, 1].message
    assert [type(outcomes[member, 1]) for member in (0, 2)] == [Report, Report]


@pytest.mark.parametrize("place", ["forward", "optimizer"])
def test_a_run_goes_on(place) -> None:
    """The run begins, because members alone fail, too, only where the program does; the member retires."""
    run = Experiment(
        task=PLACES[place],
        space={"lr": Float(0.001, 1.0), "a": Float(0.0, 3.0)},
        plan=Plan(exploit=never(), explore=keep(), interval=3),
        initial=VALUES,
        population=3,
        rounds=2,
        placement=Placement(executor="vectorized", workers=1, threads=1),
    ).run()
    assert [(e.member, e.round) for e in run.events if isinstance(e, Failed)] == [(1, 1)]
    assert [(e.member, e.round) for e in run.events if isinstance(e, Reported)] == [(0, 1), (2, 1), (0, 2), (2, 2)]
    assert run.load_state(StateRef(2, 2))


def test_a_task_that_no_executor_trains() -> None:
    """The message does not recommend an executor that fails, too, and has the task's own reason and line."""
    task = replace(PLAIN, model=partial(doubled, Broken), bind={"lr": optimizer("lr")})
    for name in ("vectorized", "auto"):
        placement = Placement(executor=name, device="cpu", workers=2 if name == "auto" else 1, threads=1)
        births = [{"lr": 0.1}, {"lr": 0.2}]
        if name == "vectorized":
            with pytest.raises(TaskError) as caught:
                choose(placement, task, births)
            text = str(caught.value)
        else:
            text = choose(placement, task, births).why
        assert "cannot be trained by any executor: ValueError: nothing to compute" in text
        assert "test_faults.py" in text
        assert "use the executor" not in text


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        raise ValueError("nothing to compute")


class TooManyMembers(nn.Module):
    """Fails if several members are trained at once, from its third step on: a limit of the program, not of a member."""

    def __init__(self):
        super().__init__()
        self.inner, self.steps = nn.Linear(6, 3), 0

    def forward(self, x):
        self.steps += self.training
        whole = torch._C._functorch.get_unwrapped(x) if torch._C._functorch.is_batchedtensor(x) else x[None]
        if self.steps > 2 and len(whole) > 1:
            raise MemoryError("too many members")
        return self.inner(x)


def test_a_program_that_fails_falls_back(caplog) -> None:
    """A round in which only the program fails is trained one member after the other, and one line says so."""
    task = replace(PLAIN, model=partial(doubled, TooManyMembers), order="member", bind={"lr": optimizer("lr")})
    values = [{"lr": own["lr"]} for own in VALUES]
    with caplog.at_level(logging.WARNING, "pbt"):
        found = outcomes_of(VectorizedExecutor, task, values)
    assert [record.message for record in caplog.records if "one member after the other" in record.message]
    assert "too many members" in caplog.text
    for key, alone in outcomes_of(InlineExecutor, task, values).items():
        assert isinstance(found[key], Report), found[key]
        check_close(state_of(found[key].stored), state_of(alone.stored))
