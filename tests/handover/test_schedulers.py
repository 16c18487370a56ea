"""A bound learning rate is the base rate of every scheduler that torch ships."""

import pytest
import torch

import pbt
from pbt import Plan
from pbt.core.exploit import Mutate
from pbt.pytorch import optimizer
from pbt.testing.schedulers import BASE, SCHEDULERS, advance, kind_of, shipped
from pbt.testing.scripts import recorded

STEPS, CHANGED = 40, 0.037
each_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


def parts_of(name, lr):
    """Two groups, the second with a tenth of the rate."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr * ratio} for ratio in (1.0, 0.1)]
    sgd = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    return {"optimizer": sgd, "scheduler": SCHEDULERS[name](sgd, STEPS)}


def train(parts, first, steps):
    for step in range(first, first + steps):
        parts["optimizer"].step()
        advance(parts["scheduler"], step)


class Scheduled:
    bind = {"lr": optimizer("lr")}  # noqa: RUF012 (as users write it)

    def __init__(self, name):
        self.name = name

    def build(self, hparams, ctx):
        return parts_of(self.name, BASE)

    def train(self, parts, hparams, steps, ctx):
        train(parts, ctx.first_step, steps)

    def evaluate(self, parts, ctx):
        return 0.0


def plain(name, lr):
    """The settings of every step in plain torch."""
    with recorded() as used:
        train(parts_of(name, lr), 0, STEPS)
    return used


def trained(name, interval, lr=BASE, plan=None):
    """The same of a run with rounds of this many steps."""
    plan = plan or Plan(exploit=pbt.never, explore=pbt.keep, interval=interval)
    with recorded() as used:
        pbt.run(
            Scheduled(name),
            {"lr": pbt.Float(1e-3, 1.0)},
            initial=[{"lr": lr}],
            population=1,
            rounds=STEPS // interval,
            plan=plan,
        )
    return used


def test_every_kind_of_torch_is_here() -> None:
    """The table has every scheduler that the installed torch ships; a new one needs an entry."""
    assert {kind_of(name) for name in SCHEDULERS} == shipped()


@each_scheduler
@pytest.mark.parametrize("interval", [40, 5])
def test_the_rates_of_plain_torch(name, interval) -> None:
    """Under the value that the optimizer was built with nothing is touched: every setting has the bits of torch."""
    assert trained(name, interval) == plain(name, BASE)


@each_scheduler
@pytest.mark.parametrize("interval", [40, 5])
def test_another_value(name, interval) -> None:
    """Under another value the rates are those of plain torch built with it, however training is cut into rounds."""
    assert flat(trained(name, interval, CHANGED)) == pytest.approx(flat(plain(name, CHANGED)), rel=1e-9, abs=1e-15)


@each_scheduler
def test_a_value_that_changes(name) -> None:
    """After a change the rates are those of the new value's schedule from that phase on."""

    def change(hparams, member, view, rng):
        return {"lr": CHANGED if member.step >= STEPS // 2 else BASE}, {}

    plan = Plan(exploit=lambda member, view, rng: Mutate(), explore=change, interval=5)
    before, after = plain(name, BASE)[: STEPS // 2], plain(name, CHANGED)[STEPS // 2 :]
    assert flat(trained(name, 5, plan=plan)) == pytest.approx(flat(before + after), rel=1e-9, abs=1e-15)


def flat(used):
    return [value for step in used for group in step for value in group]
