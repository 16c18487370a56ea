"""Each rule gives every member what the operation gives it alone, in values and in gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap

from pbt.executors.base import CONVOLUTIONS
from pbt.pytorch.vectorized.vmap_rules import ON_CPU, Rules, rules_of

MEMBERS = 3


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=draw.generator)


ACCELERATORS = [rules_of(way, wide_norms=True) for way in CONVOLUTIONS]


@pytest.fixture(autouse=True, params=[ON_CPU, *ACCELERATORS], ids=["cpu", *CONVOLUTIONS])
def rules(request):
    """The rules that are entered; every test runs with those of both kinds of device."""
    draw.generator = torch.Generator().manual_seed(5)
    draw.rules = request.param
    return request.param


def differentiable(x):
    return x.is_floating_point() or x.is_complex()


def compare(function, stacked, shared=(), used=None):
    """Run it for all members and for each alone; assert that outputs and gradients agree.

    `stacked` and `shared` are the arguments by name; floating ones of `stacked` are differentiated.
    """
    leaves = {name: x.clone().requires_grad_(differentiable(x)) for name, x in stacked.items()}
    shared = dict(shared)

    def one(own):
        with Rules(draw.rules):
            return function(**own, **shared)

    seen = []
    before = {key: rule.run for key, rule in draw.rules.items()}
    try:
        for key, rule in draw.rules.items():
            object.__setattr__(rule, "run", lambda *args, key=key: seen.append(key) or before[key](*args))
        outputs = vmap(one)(leaves)
    finally:
        for key, rule in draw.rules.items():
            object.__setattr__(rule, "run", before[key])
    if used is not None:
        assert bool(seen) == used
    weights = draw(*outputs.shape)
    (outputs * weights).abs().sum().backward()
    for i in range(MEMBERS):
        own = {name: x[i].clone().requires_grad_(differentiable(x)) for name, x in stacked.items()}
        expected = function(**own, **shared)
        torch.testing.assert_close(outputs[i], expected, rtol=0, atol=1e-12)
        (expected * weights[i]).abs().sum().backward()
        for name, x in own.items():
            if x.grad is not None:
                torch.testing.assert_close(leaves[name].grad[i], x.grad, rtol=0, atol=1e-12)
    return outputs


LINEARS = [
    pytest.param((4, 5), True, id="matrix"),
    pytest.param((4, 2, 5), True, id="three-dimensions"),
    pytest.param((2, 3, 2, 5), True, id="four-dimensions"),
    pytest.param((5,), False, id="a-vector-is-left-to-vmap"),
]


@pytest.mark.parametrize(("shape", "used"), LINEARS)
@pytest.mark.parametrize("bias", ["own", "shared", None])
@pytest.mark.parametrize("shared", [True, False])
def test_linear(shape, used, bias, shared) -> None:
    """A linear layer, with inputs of all or of each, a bias of each, of all, or none."""
    given = {"weight": draw(MEMBERS, 7, 5)}
    common = {}
    (common if shared else given)["input"] = draw(*([] if shared else [MEMBERS]), *shape)
    if bias == "own":
        given["bias"] = draw(MEMBERS, 7)
    elif bias == "shared":
        common["bias"] = draw(7)
    compare(F.linear, given, common, used=used)


@pytest.mark.parametrize("operation", [F.linear, F.conv1d])
def test_complex_numbers(operation) -> None:
    """Complex weights have the conjugated gradients that torch gives them."""
    shapes = {F.linear: ((4, 5), (7, 5)), F.conv1d: ((4, 5, 9), (7, 5, 3))}[operation]
    given = {
        name: draw(MEMBERS, *shape, dtype=torch.complex128)
        for name, shape in zip(("input", "weight", "bias"), (*shapes, (7,)), strict=True)
    }
    compare(operation, given, used=True)


def test_linear_with_shared_weights() -> None:
    """Weights that are the same for all, and inputs that are not."""
    compare(F.linear, {"input": draw(MEMBERS, 4, 5)}, {"weight": draw(7, 5), "bias": draw(7)}, used=True)


def test_linear_of_one_output_without_batch() -> None:
    """A weight that is a vector is no layer, and is left to vmap."""
    compare(F.linear, {"input": draw(MEMBERS, 4, 5), "weight": draw(MEMBERS, 5)}, used=False)


def test_nothing_differs() -> None:
    """An operation that is the same for all members is computed once, as it is."""
    x, w = draw(4, 5), draw(7, 5)
    seen = []

    def one(row):
        with Rules(draw.rules):
            result = F.linear(x, w)
        seen.append(result)
        return row + result.sum()

    vmap(one)(torch.arange(3.0))
    assert torch.equal(seen[0], F.linear(x, w))


CONVOLUTIONS = [
    (F.conv1d, (2, 4, 9), (6, 4, 3), {"stride": 2, "padding": 1}),
    (F.conv2d, (2, 4, 6, 5), (6, 4, 3, 2), {"padding": "same", "dilation": 2}),
    (F.conv2d, (2, 4, 7, 6), (6, 4, 3, 2), {"stride": 2, "padding": (1, 0), "dilation": (1, 2)}),
    (F.conv2d, (2, 4, 6, 6), (8, 1, 3, 3), {"groups": 4}),
    (F.conv2d, (4, 6, 6), (6, 4, 3, 3), {}),
    (F.conv3d, (2, 2, 4, 4, 4), (3, 2, 2, 2, 2), {"stride": (1, 2, 1)}),
]


@pytest.mark.parametrize(("operation", "shape", "weight", "settings"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_convolutions(operation, shape, weight, settings, bias, shared, rules) -> None:
    """Convolutions of every dimension, in groups, strided, dilated and padded, of one image too."""
    given = {"weight": draw(MEMBERS, *weight), **({"bias": draw(MEMBERS, weight[0])} if bias else {})}
    common = dict(settings)
    (common if shared else given)["input"] = draw(*([] if shared else [MEMBERS]), *shape)
    # Members as groups need a batch dimension; one image is left to `vmap` there.
    compare(operation, given, common, used=rules is ON_CPU or len(shape) == len(weight))


def test_positions() -> None:
    """Arguments by position and by name, in any mixture, reach the rule at their places."""
    x, w, b = draw(MEMBERS, 2, 4, 6, 6), draw(MEMBERS, 4, 2, 3, 3), draw(MEMBERS, 4)

    def call(x, w, b):
        with Rules(draw.rules):
            return F.conv2d(x, w, b, 1, padding=(1, 2), groups=2)

    outputs = vmap(call)(x, w, b)
    for i in range(MEMBERS):
        torch.testing.assert_close(outputs[i], F.conv2d(x[i], w[i], b[i], 1, (1, 2), 1, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize("members", [1, MEMBERS])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3), (5, 4, 3, 2)])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(members, shape, affine, tracked, training) -> None:
    """Batch normalization: outputs, gradients and running statistics, with all that a layer may have or not."""
    given = {"input": draw(members, *shape)}
    if affine:
        given |= {"weight": draw(members, 4), "bias": draw(members, 4)}
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    running = {"running_mean": draw(members, 4), "running_var": draw(members, 4).square()} if tracked else {}
    kept = {name: x.clone() for name, x in running.items()}
    settings = {"training": training or not tracked, "momentum": 0.3, "eps": 1e-3}

    def call(own, kept):
        mean, var = kept.get("running_mean"), kept.get("running_var")
        return F.batch_norm(own["input"], mean, var, weight=own.get("weight"), bias=own.get("bias"), **settings)

    def one(own, kept):
        with Rules(draw.rules):
            return call(own, kept)

    outputs, weights = vmap(one)(leaves, kept), draw(members, *shape)
    (outputs * weights).abs().sum().backward()
    for i in range(members):
        own = {name: x[i].clone().requires_grad_() for name, x in given.items()}
        statistics = {name: x[i].clone() for name, x in running.items()}
        expected = call(own, statistics)
        torch.testing.assert_close(outputs[i], expected, rtol=0, atol=1e-12)
        (expected * weights[i]).abs().sum().backward()
        for name, x in own.items():
            torch.testing.assert_close(leaves[name].grad[i], x.grad, rtol=0, atol=1e-11)
        for name, x in statistics.items():
            torch.testing.assert_close(kept[name][i], x, rtol=0, atol=1e-12)
            assert torch.equal(x, running[name][i]) != training


def test_batch_norm_of_an_input_that_all_share() -> None:
    """Where the input is the same for all and the weights are not."""
    compare(
        lambda weight, bias, **same: F.batch_norm(same["x"], None, None, weight, bias, True),
        {"weight": draw(MEMBERS, 4), "bias": draw(MEMBERS, 4)},
        {"x": draw(6, 4)},
        used=True,
    )


@pytest.mark.parametrize("mask", [None, "shared", "own", "boolean"])
@pytest.mark.parametrize("causal", [True, False])
def test_attention(mask, causal) -> None:
    """Attention: a mask of all members or of each, added or boolean, or a causal one."""
    given = {name: draw(MEMBERS, 2, 3, 5, 4) for name in ("query", "key", "value")}
    common = {"is_causal": causal and mask is None}
    if mask == "own":
        given["attn_mask"] = draw(MEMBERS, 5, 5)
    elif mask is not None:
        shared = draw(2, 1, 5, 5)
        common["attn_mask"] = shared if mask == "shared" else (shared > -1) | torch.eye(5, dtype=torch.bool)
    compare(F.scaled_dot_product_attention, given, common, used=True)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_multi_head_attention(bias, across, masked, causal) -> None:
    """`nn.MultiheadAttention` within a sequence and between two, with a mask or none, with biases or none."""
    layer = torch.nn.MultiheadAttention(6, 2, bias=bias, batch_first=True).double()
    mask = torch.ones(5, 5).tril().bool().logical_not() if masked or causal else None

    def attend(x, y, **weights):
        options = {"need_weights": False, "attn_mask": mask, "is_causal": causal}
        return torch.func.functional_call(layer, weights, (x, y, y) if across else (x, x, x), options)[0]

    given = {name.replace(".", "·"): draw(MEMBERS, *p.shape) for name, p in layer.named_parameters()}
    renamed = lambda x, y, **weights: attend(x, y, **{name.replace("·", "."): w for name, w in weights.items()})  # noqa: E731
    compare(renamed, {"x": draw(MEMBERS, 4, 5, 6), "y": draw(MEMBERS, 4, 5, 6), **given}, used=True)


def test_a_member_that_is_nan_stays_alone() -> None:
    """No rule lets one member's NaN into another's outputs, statistics or gradients."""
    for operation, stacked in (
        (F.linear, {"input": draw(MEMBERS, 4, 5), "weight": draw(MEMBERS, 3, 5), "bias": draw(MEMBERS, 3)}),
        (F.conv2d, {"input": draw(MEMBERS, 2, 4, 5, 5), "weight": draw(MEMBERS, 3, 4, 2, 2)}),
        (lambda x, w: F.batch_norm(x, None, None, w, None, True), {"x": draw(MEMBERS, 5, 4), "w": draw(MEMBERS, 4)}),
    ):
        leaves = {name: x.clone() for name, x in stacked.items()}
        for leaf in leaves.values():
            leaf[1] = torch.nan
            leaf.requires_grad_()

        def one(own, operation=operation):
            with Rules(draw.rules):
                return operation(**own)

        outputs = vmap(one)(leaves)
        outputs.sum().backward()
        for x in (outputs, *(leaf.grad for leaf in leaves.values())):
            assert x[[0, 2]].isfinite().all()
        assert outputs[1].isnan().all()
