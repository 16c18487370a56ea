"""Dropout of a whole population has, for every member, the bits of its own keyed dropout."""

import pytest
import torch
from torch import nn
from torch.func import vmap

from pbt.pytorch.noise import KeyedDropout, Noise, key_dropout
from pbt.pytorch.vectorized.noise import StackedDropout

KEYS = (101, 202, 303, 404)
MIXED = (0.0, 0.25, 1.0, 0.6)


def layers(shared_dims=0, relu=False, layer=3):
    noises = Noise(), Noise()
    one = KeyedDropout(0.5, layer, noises[0], shared_dims)
    one.relu = relu
    return one, StackedDropout(one, noises[1]), *noises


def both(x, probabilities, *, shared=False, times=1, **fields):
    """What all members together give for x (members, ...), and each alone, with gradients, after so many uses."""
    one, stacked, noise, noises = layers(**fields)
    stacked.set(probabilities)
    noises.at(*KEYS)
    inputs = (x[0] if shared else x).clone().requires_grad_()

    def run(row, x):
        stacked.row = row
        for _ in range(times):
            x = stacked(x)
        return x

    together = vmap(run, (0, None if shared else 0))(torch.arange(len(KEYS)), inputs)
    together.sum().backward()
    apart, gradients = [], []
    for i, (key, p) in enumerate(zip(KEYS, probabilities, strict=True)):
        noise.at(key)
        one.p = p
        own = (x[0] if shared else x[i]).clone().requires_grad_()
        y = own
        for _ in range(times):
            y = one(y)
        y.sum().backward()
        apart.append(y)
        gradients.append(own.grad)
    return together, torch.stack(apart), inputs.grad, torch.stack(gradients)


def draw(*shape, dtype=torch.float32):
    return torch.randn(len(KEYS), *shape, generator=torch.Generator().manual_seed(2)).to(dtype)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("probabilities", [MIXED, (0.3,) * 4, (0.0,) * 4, (1.0,) * 4, (0.0, 1.0, 0.0, 1.0)])
def test_the_same_bits(probabilities, dtype, relu) -> None:
    """Outputs and gradients are those of each member's own layer, to the bit."""
    together, apart, gradient, gradients = both(draw(37, 11, dtype=dtype), probabilities, relu=relu)
    assert together.dtype == dtype
    assert torch.equal(together, apart)
    assert torch.equal(gradient, gradients)


def test_what_is_dropped() -> None:
    """A probability of zero drops nothing, one drops all, and between them members drop different elements."""
    x = torch.ones(len(KEYS), 1000)
    together, *_ = both(x, MIXED)
    dropped = (together == 0).float().mean(dim=1)
    assert dropped[0] == 0
    assert torch.equal(together[0], x[0])
    assert dropped[2] == 1
    assert dropped[1] == pytest.approx(0.25, abs=0.06)
    assert dropped[3] == pytest.approx(0.6, abs=0.06)
    same, *_ = both(x, (0.5,) * 4)
    assert not torch.equal(same[0], same[1])


@pytest.mark.parametrize("shared_dims", [1, 2, 3])
def test_whole_channels(shared_dims) -> None:
    """Dimensions that share a decision are dropped together, as each member's layer does."""
    together, apart, gradient, gradients = both(draw(3, 8, 5, 4, 2), MIXED, shared_dims=shared_dims)
    assert torch.equal(together, apart)
    assert torch.equal(gradient, gradients)
    flat = (together != 0).flatten(-shared_dims)
    assert torch.equal(flat.any(dim=-1), flat.all(dim=-1))


def test_an_input_that_all_share() -> None:
    """Where all members see the same input, each still has noise and gradients of its own."""
    x = draw(20, 6)
    together, apart, gradient, gradients = both(x, MIXED, shared=True)
    assert torch.equal(together, apart)
    torch.testing.assert_close(gradient, gradients.sum(dim=0))


def test_used_twice_in_a_step() -> None:
    """A layer that is used several times draws anew each time."""
    together, apart, gradient, gradients = both(draw(50), (0.5, 0.2, 0.0, 0.4), times=3)
    assert torch.equal(together, apart)
    assert torch.equal(gradient, gradients)
    once, *_ = both(draw(50), (0.5, 0.2, 0.0, 0.4))
    assert not torch.equal((once == 0)[0], (together == 0)[0])


def test_layers_differ() -> None:
    """Two layers of a network drop different elements."""
    x = torch.ones(len(KEYS), 200)
    assert not torch.equal(both(x, MIXED, layer=1)[0], both(x, MIXED, layer=2)[0])


@pytest.mark.parametrize("relu", [False, True])
def test_evaluation(relu) -> None:
    """In evaluation nothing is dropped; a ReLU that was taken in stays."""
    _, stacked, _, _ = layers(relu=relu)
    stacked.set(MIXED)
    stacked.eval()
    x = draw(9)
    found = vmap(stacked)(x)
    assert torch.equal(found, x.relu() if relu else x)


def test_a_network() -> None:
    """A ReLU before dropout, which the keyed layer takes in, is taken over."""
    model = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Dropout(0.4))
    noise = Noise()
    (one,) = key_dropout(model, noise)
    assert one.relu
    stacked = StackedDropout(one, noise)
    assert stacked.relu
