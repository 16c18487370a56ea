"""Optimizers with a training and an evaluation mode, and with counters in their groups."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional

import pbt
from pbt import Float, Plan, keep, never
from pbt.core.population import StateRef
from pbt.pytorch import optimizer
from tests.helpers.optimizers import ScheduleFree
from tests.pytorch.tasks import EXAMPLES, NET, make_data

EXECUTORS = [
    ("inline", 1),
    ("pool", 2),
    pytest.param("processes", 1, marks=pytest.mark.slow),
    pytest.param("processes", 2, marks=pytest.mark.slow),
    ("vectorized", 1),
]


def plain_net():
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


TASK = replace(
    NET,
    model=plain_net,
    optimizer=ScheduleFree,
    bind={"lr": optimizer("lr")},
    augment=None,
    metrics={},
    order="stored",
)


def run(executor, workers, rounds=3, interval=5, task=TASK):
    return pbt.run(
        task, {"lr": Float(0.05, 0.5, "log")}, plan=Plan(exploit=never, explore=keep, interval=interval), population=3,
        rounds=rounds, seed=2, objective="minimize",
        placement=pbt.Placement(executor=executor, threads=1, workers=None if executor == "inline" else workers),
    )  # fmt: skip


def by_hand(state, lr):
    """The averaged weights after 15 steps in plain PyTorch, from these weights, and their validation loss."""
    model, data = plain_net(), make_data()
    model.load_state_dict(state)
    stepper = ScheduleFree(model.parameters(), lr=lr)
    stepper.train()
    batches = list(torch.arange(EXAMPLES).split(NET.batch_size)) * 15
    for index in batches[:15]:
        (inputs,), targets = data.train.take(index)
        stepper.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        stepper.step()
    stepper.eval()
    with torch.no_grad():
        value = functional.cross_entropy(model(data.validation.inputs), data.validation.targets)
    return model.state_dict(), value.item()


@pytest.mark.parametrize(("executor", "workers"), EXECUTORS, indirect=["executor"])
def test_a_schedule_free_optimizer(executor, workers) -> None:
    """It trains in training mode, is evaluated and stored in evaluation mode, and counts as if never cut."""
    found = run(executor, workers)
    torch.manual_seed(pbt.core.rng.seed_of(2, "task", "init", 1))
    expected, loss = by_hand(plain_net().state_dict(), found.tree.hparams(1, 3)["lr"])
    state = found.load_state(StateRef(1, 3))
    (group,) = state["optimizer"]["param_groups"]
    assert (group["k"], group["training"]) == (15, False)
    for name, value in expected.items():
        torch.testing.assert_close(state["model"][name], value, rtol=0, atol=1e-5)
    assert found.history()["val_loss"][-2] == pytest.approx(loss, abs=1e-5)


class Adding(torch.optim.SGD):
    """Adds a counter to its groups at its first step."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["seen"] = group.get("seen", 0) + 1
        return super().step(closure)


@pytest.mark.parametrize(("executor", "workers"), EXECUTORS, indirect=["executor"])
def test_a_counter_that_an_optimizer_adds(executor, workers) -> None:
    """What an optimizer adds to its groups is that member's, and counts on from round to round."""
    found = run(executor, workers, task=replace(TASK, optimizer=partial(Adding, lr=0.1)))
    for member in range(3):
        (group,) = found.load_state(StateRef(member, 3))["optimizer"]["param_groups"]
        assert group["seen"] == 15
