"""Gradient checkpointing changes memory, not mathematics: dropout that is computed again drops the same."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import pbt
from pbt import Float, Plan, keep, never
from pbt.errors import TaskError
from pbt.pytorch import Noise, key_dropout, optimizer
from tests.pytorch.tasks import NET

pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
WAYS = {
    "plain": lambda block, x: block(x),
    "checkpointed": partial(checkpoint, use_reentrant=False),
    "reentrant": partial(checkpoint, use_reentrant=True),
}


class Net(nn.Module):
    """Two blocks that share a dropout layer, one of them with another block and functional dropout inside."""

    def __init__(self, way="plain"):
        super().__init__()
        self.way = way
        self.first, self.second, self.third = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.drop, self.own = nn.Dropout(0.5), nn.Dropout(0.3)

    def inner(self, x):
        return self.own(self.drop(functional.dropout(torch.tanh(x), 0.2, self.training)))

    def block(self, x):
        return self.drop(WAYS[self.way](self.inner, self.second(self.drop(x))))

    def forward(self, x):
        run = WAYS[self.way]
        return self.third(self.drop(run(self.block, run(self.inner, self.first(x)))))


class Quiet(Net):
    def inner(self, x):
        return self.own(self.drop(torch.tanh(x)))


@pytest.mark.parametrize("way", ["checkpointed", "reentrant"])
@pytest.mark.parametrize(
    "executor",
    ["inline", pytest.param("pool", marks=pytest.mark.slow), pytest.param("processes", marks=pytest.mark.slow)],
    indirect=True,
)
def test_checkpointing_changes_nothing(way, executor) -> None:
    """Layers that are used several times, in nested parts: scores and losses are those without checkpointing."""
    found = []
    for own in ("plain", way):
        task = replace(
            NET, model=partial(Quiet, own), optimizer=partial(torch.optim.SGD, lr=0.3), bind={"lr": optimizer("lr")}
        )
        run = pbt.run(
            task, {"lr": Float(0.3, 0.6)}, plan=Plan(exploit=never, explore=keep, interval=12), population=2, rounds=2,
            objective="minimize", placement=pbt.Placement(executor=executor, threads=1),
        )  # fmt: skip
        frame = run.history()
        found.append(list(frame["score"]) + list(frame["train_loss"]))
    assert found[0] == found[1]


@pytest.mark.parametrize("way", ["checkpointed", "reentrant"])
def test_the_gradient_is_that_of_the_loss(way) -> None:
    """Also beside functional dropout inside: the gradient is the difference quotient of the loss."""
    torch.manual_seed(4)
    model, noise = Net(way).double(), Noise()
    key_dropout(model, noise)
    x = torch.randn(20, 6, dtype=torch.float64)

    def value():
        noise.at(9)
        torch.manual_seed(5)
        return model(x).square().sum()

    value().backward()
    for p in model.parameters():
        direction = torch.randn_like(p)
        with torch.no_grad():
            p.add_(direction, alpha=1e-6)
        above = value().item()
        with torch.no_grad():
            p.add_(direction, alpha=-2e-6)
        below = value().item()
        with torch.no_grad():
            p.add_(direction, alpha=1e-6)
        assert (p.grad * direction).sum().item() == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-5)


def test_without_the_random_state() -> None:
    """A layer used once needs no random state; one used several times is refused without it."""
    model, noise = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 1)), Noise()
    key_dropout(model, noise)
    x = torch.randn(3, 4)
    found = []
    for run in (lambda f, x: f(x), partial(checkpoint, use_reentrant=False, preserve_rng_state=False)):
        noise.at(3)
        model.zero_grad()
        run(model, x).sum().backward()
        found.append(model[0].weight.grad.clone())
    assert torch.equal(*found)
    noise.at(4)
    twice = run(lambda x: model(x) + model(x), x)
    with pytest.raises(TaskError, match="preserve_rng_state=True"):
        twice.sum().backward()


@pytest.mark.parametrize("way", ["checkpointed", "reentrant"])
@pytest.mark.parametrize("model", [Net, Quiet])
def test_one_program_refuses_it(way, model, tmp_path) -> None:
    """One program cannot compute parts of a network again: refused before the start, with the reason."""
    task = replace(NET, model=partial(model, way), bind={"lr": optimizer("lr")})
    with pytest.raises(TaskError, match=r"torch.utils.checkpoint.*use the executor 'processes'") as caught:
        pbt.run(
            task,
            {"lr": Float(0.3, 0.6)},
            population=3,
            placement=pbt.Placement(executor="vectorized", workers=1),
            run_dir=tmp_path / "run",
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
