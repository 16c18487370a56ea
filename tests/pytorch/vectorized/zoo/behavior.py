"""Cases of branches, autograd, autocast and checkpoints in `forward`, and of bound attributes."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from pbt.pytorch import attribute, optimizer
from tests.pytorch.vectorized.zoo.cases import SGD, add, examples, net, refused

SMALL = partial(nn.Linear, 6, 6)


# Branches


@net(inner=SMALL, sample=True)
def branch_on_training(m, x):
    return m.head(m.inner(x) if m.training else 2 * m.inner(x))


@net(inner=SMALL, sample=True)
def branch_on_requires_grad(m, x):
    h = m.inner(x)
    return m.head(h * 2 if h.requires_grad else h)


@net(inner=SMALL)
def branch_on_requires_grad_of_weight(m, x):
    return m.head(m.inner(x) * 2 if m.inner.weight.requires_grad else x)


@net(inner=lambda: SMALL().requires_grad_(False))
def branch_on_frozen_weight(m, x):
    return m.head(m.inner(x) * 2 if m.inner.weight.requires_grad else x)


@net(inner=SMALL)
def branch_on_input_requires_grad(m, x):
    return m.head(x if x.requires_grad else m.inner(x))


@net(inner=SMALL)
def branch_on_all_parameters(m, x):
    return m.head(m.inner(x) if all(p.requires_grad for p in m.parameters()) else x)


@net(inner=SMALL)
def branch_on_grad_fn(m, x):
    h = m.inner(x)
    return m.head(h if h.grad_fn is None else h * 2)


@net(inner=SMALL)
def branch_on_is_leaf(m, x):
    return m.head(m.inner(x) * (1.0 if m.inner.weight.is_leaf else 3.0))


@net(inner=SMALL, word=refused("gradient of a parameter"))
def branch_on_grad(m, x):
    return m.head(m.inner(x) * (1.0 if m.inner.weight.grad is None else 3.0))


@net(inner=SMALL)
def branch_on_grad_mode(m, x):
    return m.head(m.inner(x) * (2.0 if torch.is_grad_enabled() else 1.0))


@net(inner=SMALL)
def branch_on_type(m, x):
    return m.head(m.inner(x) if isinstance(m.inner.weight, nn.Parameter) else x)


@net(inner=SMALL)
def branch_on_exact_type(m, x):
    return m.head(m.inner(x) if type(x) is torch.Tensor else x)


@net(inner=SMALL)
def branch_on_identity(m, x):
    return m.head(m.inner(x) if m.inner.weight is next(m.inner.parameters()) else x)


@net(inner=SMALL)
def branch_on_shape(m, x):
    return m.head(m.inner(x) if x.shape[0] > 5 and x.dim() == 2 and x.stride(0) == 6 else x)


@net(inner=SMALL)
def branch_on_contiguous(m, x):
    h = m.inner(x)
    return m.head(h if h.is_contiguous() else h * 2)


@net(inner=SMALL)
def branch_on_compiling(m, x):
    return m.head(m.inner(x) if torch.compiler.is_compiling() else m.inner(x) * 2)


@net(inner=SMALL, word=refused("values in a tensor"))
def branch_on_nan(m, x):
    h = m.inner(x)
    return m.head(h.nan_to_num() if torch.isnan(h).any() else h)


@net(inner=SMALL, word=refused("values in a tensor"))
def branch_on_value_of_input(m, x):
    return m.head(m.inner(x) if x.mean() > -100 else x)


# Changes of inputs, autograd, autocast, checkpoints


@net(sample=True)
def input_changed_in_place(m, x):
    x -= 0.5
    return m.head(x.mul_(2.0))


@net(gain=lambda: nn.Parameter(torch.ones(6)), word=refused("inplace", "vmap"))
def input_multiplied_in_place_by_weight(m, x):
    with torch.no_grad():
        x.mul_(m.gain)
    return m.head(x)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3


class New(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 5 * ctx.saved_tensors[0].cos()


class NoRule(New):
    generate_vmap_rule = False


@net(inner=SMALL, word=refused("autograd.Function", "Double"))
def function_old_style(m, x):
    return m.head(Double.apply(m.inner(x)))


@net(inner=SMALL, sample=True)
def function_with_rule(m, x):
    return m.head(New.apply(m.inner(x)))


@net(inner=SMALL, word=refused("autograd.Function", "NoRule"))
def function_without_rule(m, x):
    return m.head(NoRule.apply(m.inner(x)))


@net(inner=SMALL, word=refused("torch.utils.checkpoint"), sample=True)
def checkpointed(m, x):
    return m.head(checkpoint(m.inner, x, use_reentrant=False))


@net(inner=SMALL, word=refused("requires_grad_()"))
def checkpointed_reentrant(m, x):
    return m.head(checkpoint(m.inner, x.requires_grad_(), use_reentrant=True))


@net(inner=lambda: nn.Sequential(SMALL(), nn.Tanh(), SMALL()), word=refused("torch.utils.checkpoint"))
def checkpointed_chain(m, x):
    return m.head(checkpoint_sequential(m.inner, 2, x, use_reentrant=False))


@net(inner=SMALL, word=refused("torch.utils.checkpoint"))
def saved_on_cpu(m, x):
    with torch.autograd.graph.save_on_cpu():
        return m.head(m.inner(x))


class SometimesCheckpointed(nn.Module):
    """Checkpoints from its third step on."""

    def __init__(self):
        super().__init__()
        self.inner, self.head, self.steps = SMALL(), nn.Linear(6, 3), 0

    def forward(self, x):
        self.steps += self.training
        later = self.training and self.steps > 2
        return self.head(checkpoint(self.inner, x, use_reentrant=False) if later else self.inner(x))


add("checkpointed_later", SometimesCheckpointed, word=refused("torch.utils.checkpoint"))


@net(inner=SMALL, dtype=torch.float32, tolerance=3e-2, sample=True)
def autocast_inside(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        h = m.inner(x)
    return m.head(h.float())


@net(inner=SMALL, dtype=torch.float32, tolerance=3e-2, precision="bf16")
def autocast_off_inside(m, x):
    with torch.autocast("cpu", enabled=False):
        h = m.inner(x.float())
    return m.head(h)


@net(data=partial(examples, (2, 6, 6)), conv=lambda: nn.Conv2d(2, 3, 3), head=lambda: nn.Linear(48, 3),
     dtype=torch.float32, tolerance=3e-2, moves=False)  # fmt: skip
def autocast_convolution(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        h = m.conv(x)
    return m.head(h.flatten(1).float())


@net(inner=SMALL, word=refused("requires_grad_()"))
def inner_gradient(m, x):
    h = m.inner(x)
    with torch.enable_grad():
        z = h.detach().requires_grad_()
        (slope,) = torch.autograd.grad(z.pow(2).sum(), z)
    return m.head(h + slope)


@net(inner=SMALL, word=refused("does not require grad"))
def gradient_penalty(m, x):
    h = m.inner(x)
    if not h.requires_grad:
        return m.head(h)
    (slope,) = torch.autograd.grad(h.tanh().sum(), h, create_graph=True)
    return m.head(h + slope)


@net(inner=SMALL)
def detached_part(m, x):
    h = m.inner(x)
    return m.head(h + h.detach() ** 2)


@net(inner=SMALL)
def inference_part(m, x):
    with torch.no_grad():
        h = m.inner(x)
    return m.head(h)


# Attributes bound to hyperparameters


def bound(name, body, values, word="equal", start=1.0, path="model.value", **options):
    """A network whose attribute `value` differs between members."""
    fields = {"bind": {"lr": optimizer("lr"), "a": attribute(path)}}
    hparams = tuple({"lr": rate, "a": value} for rate, value in zip((0.05, 0.1, 0.02), values, strict=True))
    body.__name__ = f"attribute_{name}"
    net(word, **{"inner": SMALL, "value": start, **fields, "hparams": hparams, **options})(body)


THREE = (0.5, 1.5, 2.0)
NAMED = refused("attribute('model.value')")
bound("factor", lambda m, x: m.head(m.inner(x) / m.value), THREE, sample=True)
bound("power", lambda m, x: m.head(m.inner(x).abs() ** m.value), THREE)
bound("power_of", lambda m, x: m.head(m.value ** m.inner(x)), THREE)
bound("added", lambda m, x: m.head(m.inner(x) + m.value), THREE)
bound("comparison", lambda m, x: m.head(torch.where(m.inner(x) > m.value, m.inner(x), x)), THREE)
bound("branch", lambda m, x: m.head(m.inner(x) if m.value > 1 else x), THREE, NAMED)
bound("clamp", lambda m, x: m.head(m.inner(x).clamp(-m.value, m.value)), THREE)
bound("threshold", lambda m, x: m.head(F.threshold(m.inner(x), m.value, 0.1)), THREE, NAMED)
bound("leaky", lambda m, x: m.head(F.leaky_relu(m.inner(x), m.value)), THREE, NAMED)
bound("elu", lambda m, x: m.head(F.elu(m.inner(x), m.value)), THREE, NAMED)
bound("softplus", lambda m, x: m.head(F.softplus(m.inner(x), m.value)), THREE, NAMED)
bound("dropout_function", lambda m, x: m.head(F.dropout(m.inner(x), m.value, m.training)), (0.1, 0.2, 0.3), NAMED,
      sample=True)  # fmt: skip
bound("layer_norm_eps", lambda m, x: m.head(F.layer_norm(m.inner(x), (6,), eps=m.value)), THREE, NAMED)
bound("full", lambda m, x: m.head(m.inner(x) + torch.full((6,), m.value)), THREE, NAMED)
bound("tensor_of", lambda m, x: m.head(m.inner(x) * torch.tensor(m.value)), THREE, NAMED)
bound("math", lambda m, x: m.head(m.inner(x) * math.sqrt(m.value)), THREE, NAMED)
bound("alpha", lambda m, x: m.head(torch.add(m.inner(x), x, alpha=m.value)), THREE, NAMED)
bound("scaled_attention", lambda m, x: m.head(F.scaled_dot_product_attention(
    *[m.inner(x).view(-1, 1, 3, 2)] * 3, scale=m.value).flatten(1)), THREE, NAMED)  # fmt: skip
bound("isinstance", lambda m, x: m.head(m.inner(x) * (2.0 if isinstance(m.value, float) else 1.0)), THREE, NAMED)
bound("range", lambda m, x: m.head(sum(m.inner(x) * i for i in range(m.value + 1))), (1, 2, 3), NAMED, start=1)
bound("slice", lambda m, x: m.head(m.inner(x) + x[:, : m.value].sum(1, keepdim=True)), (1, 2, 3), NAMED, start=1)
bound("integer_factor", lambda m, x: m.head(m.inner(x) * m.value), (1, 2, 3), start=1)
bound("integer_index", lambda m, x: m.head(m.inner(x) + x[:, m.value : m.value + 1]), (1, 2, 3), NAMED, start=1)
bound("text", lambda m, x: m.head(getattr(torch, m.value)(m.inner(x))), ("tanh", "relu", "sigmoid"), NAMED,
      start="tanh")  # fmt: skip
bound("flag", lambda m, x: m.head(m.inner(x) if m.value else x), (True, False, True), NAMED, start=True)
bound("buffer", lambda m, x: m.head(m.inner(x) * m.shift), THREE, path="model.shift",
      shift=lambda: nn.Buffer(torch.ones(())))  # fmt: skip
bound("of_layer_slope", lambda m, x: m.head(m.act(m.inner(x))), THREE, refused("attribute('model.act.negative_slope')"),
      path="model.act.negative_slope", act=nn.LeakyReLU)  # fmt: skip
bound("of_layer_eps", lambda m, x: m.head(m.norm(m.inner(x))), THREE, refused("attribute('model.norm.eps')"),
      path="model.norm.eps", norm=partial(nn.LayerNorm, 6))  # fmt: skip
bound("of_layer_momentum", lambda m, x: m.head(m.norm(m.inner(x))), (0.1, 0.2, 0.3),
      refused("attribute('model.norm.momentum')"), path="model.norm.momentum", norm=partial(nn.BatchNorm1d, 6),
      sample=True)  # fmt: skip
bound("equal_at_birth", lambda m, x: m.head(F.leaky_relu(m.inner(x), m.value)), (0.5, 0.5, 0.5), NAMED, sample=True)
bound("only_in_evaluation", lambda m, x: m.head(m.inner(x) if m.training else F.elu(m.inner(x), m.value)), THREE, NAMED)
bound("of_optimizer", lambda m, x: m.head(m.inner(x)), THREE, refused("attribute('optimizer.value')"),
      path="optimizer.value", optimizer=lambda params: _with_value(SGD(params)))  # fmt: skip


def _with_value(rule):
    rule.value = 1.0
    return rule
