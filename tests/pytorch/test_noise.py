"""Keyed dropout: the right bits, the right distribution, on the right layers."""

import pytest
import torch
from scipy import stats
from torch import nn

from pbt.pytorch import KeyedDropout, Noise, key_dropout
from pbt.pytorch.noise import scale_of

SHAPE = torch.Size((400, 250))


def mask(key, layer=0, p=0.5, shape=SHAPE, dtype=torch.float32):
    noise = Noise()
    noise.at(key)
    return kept(noise, shape, layer, p).to(dtype)


def kept(noise, shape, layer, p):
    """What a tensor of ones becomes."""
    dropout = KeyedDropout(p, layer, noise)
    return dropout(torch.ones(shape, dtype=torch.float64))


def test_the_key_is_all() -> None:
    """The same key and layer give the same bits in any source; another key or layer gives others."""
    assert torch.equal(mask(7), mask(7))
    others = [mask(8), mask(7, layer=1), mask(7 + 2**30), mask(2**63 - 1, layer=1), mask(2**63 - 1)]
    for i, other in enumerate(others):
        for another in [mask(7), *others[:i]]:
            agreement = (other == another).float().mean().item()
            assert abs(agreement - 0.5) < 0.01


def test_no_other_generator() -> None:
    """Masks neither read nor move torch's global generator."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = mask(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(mask(3), first)


def test_each_use_within_a_step_draws_anew() -> None:
    """A layer that is used twice within a step has two masks, and the same two when the step is taken again."""
    noise = Noise()
    found = []
    for _ in range(2):
        noise.at(5)
        found.append([kept(noise, SHAPE, 0, 0.5) for _ in range(2)])
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[0][1])


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9, 0.999])
def test_probability(p) -> None:
    """The share that is dropped is p, as closely as its number of draws allows (5 standard deviations)."""
    dropped = torch.cat([mask(key, p=p).flatten() for key in range(4)]) == 0
    deviation = (p * (1 - p) / dropped.numel()) ** 0.5
    assert abs(dropped.double().mean().item() - p) < 5 * deviation + 2**-17


@pytest.mark.parametrize("p", [0.1, 1 / 3, 0.5, 0.7654321, 0.99999])
def test_the_expectation_is_exact(p) -> None:
    """The scale belongs to the probability as it was rounded to 16 bits: over all bit patterns the mean is 1."""
    noise = Noise()
    noise.bits = lambda shape, layer: torch.arange(-(2**15), 2**15).to(torch.int16).unsqueeze(0)
    found = kept(noise, torch.Size((2**16,)), 0, p)
    assert found.mean().item() == pytest.approx(1.0, abs=1e-12)
    assert abs((found == 0).double().mean().item() - p) <= 2**-17


def test_bit_patterns_are_uniform() -> None:
    """All 65,536 patterns of 16 bits come out of the 64-bit words equally often, at each of the four places."""
    noise = Noise()
    noise.at(12)
    (bits,) = noise.bits(torch.Size((2**22,)), 0)
    for place in range(4):
        patterns = bits.view(-1, 4)[:, place].long() + 2**15
        counts = torch.bincount(patterns, minlength=2**16)
        assert len(counts) == 2**16
        assert 1e-4 < stats.chisquare(counts.numpy()).pvalue < 1 - 1e-4


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 7), (2, 3, 5), (0, 4), ()])
def test_any_shape(shape) -> None:
    """Masks have any shape, also those that do not fill a 64-bit word."""
    assert mask(1, shape=torch.Size(shape)).shape == shape


def test_edges() -> None:
    """p = 0 keeps everything as it is, p = 1 drops everything; evaluation changes nothing."""
    x = torch.randn(5, 6)
    layer = KeyedDropout(0.0, 0, Noise())
    assert layer(x) is x
    layer.p = 1.0
    assert torch.equal(layer(x), torch.zeros(5, 6))
    layer.eval()
    assert layer(x) is x
    assert mask(1, p=1e-9).eq(1).all()


def test_scale_and_gradient() -> None:
    """What is kept is scaled by 1 / (1 - p), and the gradient with it."""
    layer = KeyedDropout(0.75, 0, Noise())
    x = torch.ones(1000, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert set(y.tolist()) == {0.0, 4.0}
    assert torch.equal(x.grad, y)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(nn.Dropout1d, (40, 30, 6)), (nn.Dropout2d, (40, 30, 3, 4)), (nn.Dropout3d, (40, 30, 2, 3, 4))],
)
def test_channels(kind, shape) -> None:
    """The forms for channels drop each channel of each example as a whole, independently."""
    model = nn.Sequential(kind(0.5))
    key_dropout(model, Noise())
    y = model(torch.ones(shape)).flatten(2)
    assert torch.equal(y, y[..., :1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert 0.4 < (y[..., 0] == 0).float().mean() < 0.6


class Shared(nn.Module):
    """A network that uses one dropout layer under two names, and another one inside two blocks."""

    def __init__(self):
        super().__init__()
        self.first = nn.Dropout(0.1)
        self.second = self.first
        inner = nn.Dropout(0.2)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), inner), nn.Sequential(inner)])
        self.block_again = self.blocks[0]
        self.own = nn.Dropout2d(0.3)


def test_layers_used_twice() -> None:
    """Every place of a layer is replaced, by one and the same keyed layer; layers are numbered in order."""
    model = Shared()
    layers = key_dropout(model, Noise())
    assert [(layer.p, layer.layer, layer.shared_dims) for layer in layers] == [(0.1, 0, 0), (0.2, 1, 0), (0.3, 2, 2)]
    assert model.first is model.second is layers[0]
    assert model.blocks[0][1] is model.blocks[1][0] is model.block_again[1] is layers[1]
    assert model.own is layers[2]
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


def test_sequence_with_one_layer_twice() -> None:
    """The same layer at two places of one sequence is replaced at both."""
    drop = nn.Dropout(0.5)
    model = nn.Sequential(nn.Linear(2, 2), drop, nn.Linear(2, 2), drop)
    (layer,) = key_dropout(model, Noise())
    assert model[1] is model[3] is layer


def chain(relu: nn.Module, p: float = 0.4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 50), relu, nn.Dropout(p), nn.Linear(50, 3))


@pytest.mark.parametrize("training", [True, False])
def test_relu_before_dropout_is_one_pass_with_the_same_results(training) -> None:
    """A ReLU that dropout follows is taken into it: values and gradients are those of the two layers, to the bit."""
    torch.manual_seed(3)
    fused, apart = chain(nn.ReLU()), chain(nn.Threshold(0.0, 0.0))
    apart.load_state_dict(fused.state_dict())
    x = torch.randn(40, 6)
    results = []
    for model in (fused, apart):
        noise = Noise()
        (layer,) = key_dropout(model, noise)
        assert layer.relu is (model is fused)
        noise.at(9)
        model.train(training)
        y = model(x)
        y.square().sum().backward()
        results.append([y.detach(), *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert isinstance(fused[1], nn.Identity)


def test_a_relu_is_left_alone_where_it_must_be() -> None:
    """A ReLU with a hook, a dropout with two places, and dropout of channels are not fused."""
    hooked, twice = nn.ReLU(), nn.Dropout(0.5)
    hooked.register_forward_hook(lambda *_: None)
    models = [
        nn.Sequential(hooked, nn.Dropout(0.5)),
        nn.Sequential(nn.ReLU(), twice, nn.Linear(2, 2), twice),
        nn.Sequential(nn.ReLU(), nn.Dropout2d(0.5)),
        nn.Sequential(nn.Dropout(0.5), nn.ReLU()),
    ]
    for model in models:
        assert not any(layer.relu for layer in key_dropout(model, Noise()))
        assert any(isinstance(module, nn.ReLU) for module in model.modules())


def test_scale() -> None:
    """The scale is one over the share that is kept, and nothing is scaled where nothing is kept."""
    assert scale_of(0.5) == 2.0
    assert scale_of(0.25) == pytest.approx(4 / 3)
    assert scale_of(1.0) == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("relu", [False, True])
def test_short_floats_have_the_same_mask(dtype, relu) -> None:
    """A type that cannot hold sixteen bits drops the same elements as float32 and keeps its type."""
    layer = KeyedDropout(0.4999, 0, Noise())
    layer.relu = relu
    layer._noise.at(3)
    wide = layer(torch.ones(SHAPE))
    layer._noise.at(3)
    short = layer(torch.ones(SHAPE, dtype=dtype))
    assert short.dtype == dtype
    assert torch.equal(short == 0, wide == 0)
