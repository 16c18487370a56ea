"""Chains of plain layers: the same as through `vmap`, and nothing else is taken for one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pbt.pytorch import Noise, key_dropout
from pbt.pytorch.vectorized.layer_chain import chain_of
from pbt.pytorch.vectorized.metrics import Measures
from pbt.pytorch.vectorized.network import StackedNet
from pbt.pytorch.vectorized.stacked_tensors import Rows
from pbt.pytorch.vectorized.tuning import ACCELERATOR, CPU
from pbt.pytorch.vectorized.vmap_rules import ON_CPU

MEMBERS = 3


def flat_net():
    return nn.Sequential(
        nn.ReLU(inplace=True), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.4), nn.Sequential(nn.Tanh()),
        nn.Linear(8, 5, bias=False), nn.LeakyReLU(0.2, inplace=True), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 3),
    )  # fmt: skip


def image_net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def stacked(make, seed=0, tuning=CPU):
    """A network for all members with rows of their own, and those rows."""
    torch.manual_seed(seed)
    noise = Noise()
    ones = [make().double() for _ in range(MEMBERS)]
    for one in ones:
        key_dropout(one, noise)
    params, buffers = (Rows(dict(named(ones[0])), MEMBERS, "cpu") for named in (named_parameters, named_buffers))
    for i, one in enumerate(ones):
        params.load(i, {name: tensor.detach() for name, tensor in one.named_parameters()})
        buffers.load(i, dict(one.named_buffers()))
    net = StackedNet(ones[0], noise, "cpu", tuning)
    for layer in net._dropouts:
        layer.set([0.1, 0.4, 0.7])
    noise.at(5, 6, 7)
    return net, params, buffers


def named_parameters(model):
    return model.named_parameters()


def named_buffers(model):
    return model.named_buffers()


@pytest.mark.parametrize("tuning", [CPU, ACCELERATOR], ids=["cpu", "accelerator"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("make", "shape"), [(flat_net, (10, 6)), (image_net, (10, 1, 12, 12))])
def test_the_same_as_through_vmap(make, shape, shared, training, tuning) -> None:
    """Outputs, gradients and buffers are those of `vmap`, and the batch stays as it was."""
    x = torch.randn(shape if shared else (MEMBERS, *shape), dtype=torch.float64)
    before, found = x.clone(), []
    for way in ("chain", "vmap"):
        net, params, buffers = stacked(make, tuning=tuning)
        assert net.is_chain
        getattr(net, "train" if training else "eval")()
        leaves = {name: view.detach().requires_grad_() for name, view in params.views.items()}
        if way == "chain":
            every = x.expand(MEMBERS, *shape) if shared else x
            outputs = net.run_chain({**leaves, **buffers.views}, every)
        else:
            run = torch.func.vmap(net.run, (0, 0, 0, 0, None if shared else 0), randomness="different")
            outputs, _ = run(leaves, buffers.views, {}, torch.arange(MEMBERS), x.clone())
        outputs.square().sum().backward()
        found.append((outputs.detach(), {n: t.grad for n, t in leaves.items()}, buffers.views))
    assert torch.equal(x, before)
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


class Twice(nn.Linear):
    """A layer that is nearly known."""

    def forward(self, x):
        return 2 * super().forward(x)


def hooked():
    layer = nn.Linear(3, 3)
    layer.register_forward_hook(lambda _, __, y: 2 * y)
    return layer


def replaced():
    layer = nn.Linear(3, 3)
    layer.forward = lambda x: 2 * x
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        Twice(3, 3), hooked(), replaced(), nn.LayerNorm(3), nn.Flatten(0), nn.Conv2d(1, 1, 3, padding_mode="circular"),
        nn.MaxPool2d(2, return_indices=True), nn.BatchNorm1d(3, momentum=None), nn.Sequential(nn.ReLU(), Twice(3, 3)),
    ],
)  # fmt: skip
def test_what_is_no_chain(layer) -> None:
    """A layer that is not known exactly, or that was meddled with, leaves the network to `vmap`."""
    model = nn.Sequential(nn.Linear(3, 3), layer)
    names = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    assert chain_of(model, names, ON_CPU) is None


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}])
def test_cross_entropy_of_all_rows_at_once(settings, shared) -> None:
    """Each member's mean is torch's, over the targets that count for it."""
    outputs = torch.randn(MEMBERS, 7, 4, dtype=torch.float64)
    targets = torch.randint(0, 4, (7,) if shared else (MEMBERS, 7))
    targets[..., 2] = -100
    if not shared:
        targets[1, 4] = -100
    measures = Measures(MEMBERS, "cpu")
    measures.configure([settings] * MEMBERS)
    found = measures.losses(F.cross_entropy, outputs, targets, shared=shared)
    each = [F.cross_entropy(outputs[i], targets if shared else targets[i], **settings) for i in range(MEMBERS)]
    torch.testing.assert_close(found, torch.stack(each), rtol=1e-12, atol=1e-12)
