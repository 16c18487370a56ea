"""Rules for operations that run faster for a population than `vmap` runs them.

`vmap` supports nearly every operation, but decomposes a linear layer into a product and an addition, transposes a
batch norm back and forth, and turns the convolutions of all members into one grouped convolution, which on the CPU is
four times slower than separate convolutions. An accelerator has its own rules, because a launch per member costs more;
its convolutions run in the fastest of three ways, which is measured before a run.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pbt.errors import TaskError
from pbt.executors.base import Convolutions
from pbt.pytorch.vectorized.attention import MULTI_HEAD, attention, fits_multi_head, multi_head
from pbt.pytorch.vectorized.failures import REMEDY
from pbt.pytorch.vectorized.linear import for_shared, is_shared, linear

_STREAMS = 4
"""Streams for convolutions that run member by member on an accelerator."""
_normed: Callable[..., Tensor] = F.batch_norm
_NONE: Mapping[int, bool] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rule:
    """The implementation of an operation for all members.

    Args:
        defaults: The operation's arguments by name, with their defaults.
        fits: Whether the rule applies to these arguments of one member.
        run: The operation on arguments (members, ...); arguments shared by all members are expanded.
        result: Converts the result of `run` to the operation's result.
    """

    defaults: Mapping[str, Any]
    fits: Callable[..., bool]
    run: Callable[..., Tensor]
    result: Callable[[Tensor], Any] = lambda y: y


class Rules(TorchFunctionMode):
    """A mode that applies the rules to operations inside `vmap`.

    Args:
        rules: The rules by operation, as called by networks.
        trained: `requires_grad` of each parameter, by `id`.
    """

    def __init__(self, rules: Mapping[Any, Rule], trained: Mapping[int, bool] = _NONE) -> None:
        super().__init__()
        self._rules = rules
        self._trained = trained

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, by its rule if that fits."""
        rule = self._rules.get(func)
        if rule is not None:
            given = [*args, *({**rule.defaults, **(kwargs or {})}[name] for name in [*rule.defaults][len(args) :])]
            if any(map(_differs, given)) and rule.fits(*given):
                return rule.result(for_all(rule.run, *given))
        elif func in _INSIDE:
            return _INSIDE[func](self._trained, func, *args, **(kwargs or {}))
        elif kwargs and kwargs.get("generator") not in (None, torch.default_generator):
            raise TaskError(
                f"the network draws from its own generator, in {getattr(func, '__name__', func)}, which members of one "
                f"program would share; {REMEDY}"
            )
        return func(*args, **(kwargs or {}))


def _differs(value: Any) -> bool:
    """Whether `vmap` has a separate value for each member."""
    return isinstance(value, Tensor) and torch._C._functorch.is_batchedtensor(value)


def _unwrapped(x: Tensor) -> Tensor | None:
    """The tensor of all members; None: another transform of `torch.func` is between."""
    while torch._C._functorch.is_batchedtensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return None if torch._C._functorch.is_functorch_wrapped_tensor(x) else x


def _property(of: str, parameters: Any = None) -> Callable[..., Any]:
    """A property of the graph, as it is outside of `vmap`, where the gradient is taken."""

    def read(trained: Mapping[int, bool], func: Any, x: Tensor) -> Any:
        if id(x) in trained and parameters is not None:
            return parameters(trained[id(x)])
        whole = _unwrapped(x) if _differs(x) else None
        return func(x) if whole is None else getattr(whole, of)

    return read


def _refuses(text: str) -> Callable[..., Any]:
    def refuse(_: Mapping[int, bool], func: Any, x: Tensor, *args: Any) -> Any:
        if _differs(x):
            raise TaskError(f"{text}, which one program for all members has no equivalent of; {REMEDY}")
        return func(x, *args)

    return refuse


def _gradient(trained: Mapping[int, bool], func: Any, x: Tensor) -> Any:
    if id(x) in trained:
        raise TaskError(f"the network reads the gradient of a parameter in forward; {REMEDY}")
    return func(x)


def _embedding(
    _: Mapping[int, bool],
    func: Any,
    x: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """`F.embedding`; `vmap` would let the padding of all members but one have a gradient."""
    if padding_idx is None or not _differs(weight):
        result: Tensor = func(x, weight, padding_idx, *args, **kwargs)
        return result
    rows = func(x, weight, None, *args, **kwargs)
    return torch.where((x == padding_idx % weight.shape[0]).unsqueeze(-1), rows.detach(), rows)


_TENSOR: Any = Tensor
_INSIDE: Mapping[Any, Callable[..., Any]] = {
    _TENSOR.requires_grad.__get__: _property("requires_grad", bool),
    _TENSOR.is_leaf.__get__: _property("is_leaf", lambda _: True),
    _TENSOR.grad_fn.__get__: _property("grad_fn", lambda _: None),
    _TENSOR.grad.__get__: _gradient,
    _TENSOR.register_hook: _refuses("the network adds a hook to a tensor in forward"),
    _TENSOR.register_post_accumulate_grad_hook: _refuses("the network adds a hook to a tensor in forward"),
    _TENSOR.retain_grad: _refuses("the network calls retain_grad() in forward"),
    _TENSOR.requires_grad_: _refuses("the network calls requires_grad_() in forward"),
    F.embedding: _embedding,
}
"""Functions that are different inside `vmap`: `(requires_grad by id, function, *arguments)`."""


def for_all(run: Callable[..., Tensor], *args: Any) -> Tensor:
    """From inside `vmap`, run on arguments (members, ...); at least one must differ between members."""
    result: Tensor = _ForAll.apply(run, *args)  # type: ignore[no-untyped-call]
    return result


class _ForAll(torch.autograd.Function):
    """The step from one member under `vmap` to all members; the gradients are those of the operation that runs."""

    @staticmethod
    def forward(*_: Any) -> Tensor:
        """Never called, because an argument differs between members."""
        raise AssertionError

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Do nothing."""

    @staticmethod
    def vmap(info: Any, dims: Any, run: Callable[..., Tensor], *args: Any) -> tuple[Tensor, int]:
        """Run for all members at once."""
        return run(*(_stacked(x, dim, info.batch_size) for x, dim in zip(args, dims[1:], strict=True))), 0


def _stacked(value: Any, dim: int | None, members: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.expand(members, *value.shape) if dim is None else value.movedim(dim, 0)


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    w: Tensor | None,
    b: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    # Copies, because tensors saved for the backward pass must not be changed.
    running = [None if t is None else t.reshape(-1).clone() for t in (mean, var)]
    weights = [None if t is None else t.reshape(-1) for t in (w, b)]
    # Batch normalization has statistics per channel.
    y = _normed(as_channels(x), *running, *weights, training, momentum, eps)
    if training:
        for whole, part in zip((mean, var), running, strict=True):
            if whole is not None and part is not None:
                whole.copy_(part.view_as(whole))
    return as_members(y, len(x))


def as_channels(x: Tensor) -> Tensor:
    """Members as channels: (members, n, channels, ...) to (n, members * channels, ...)."""
    return x.transpose(0, 1).flatten(1, 2)


def as_members(x: Tensor, members: int) -> Tensor:
    """The inverse of `as_channels`: a view in the memory layout of x, which the next `as_channels` need not copy."""
    return x.view(len(x), members, -1, *x.shape[2:]).transpose(0, 1)


def _few_dimensions(x: Tensor, mean: Tensor | None, var: Tensor | None, w: Tensor | None, *rest: Any) -> Tensor:
    """Batch normalization on the CPU, where the transposition of large inputs does not pay."""
    if x.dim() <= 3:
        return _batch_norm(x, mean, var, w, *rest)
    b, *settings = rest
    own = [[None if t is None else t[i] for t in (mean, var, w, b)] for i in range(len(x))]
    return torch.stack([_normed(x[i], *of, *settings) for i, of in enumerate(own)])


def _separate(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A call for each member, on an accelerator on several streams."""

    def run(x: Tensor, w: Tensor, b: Tensor | None, *settings: Any) -> Tensor:
        if _is_one(x, w, b):
            return for_shared(lambda rows: operation(rows, w[0], None if b is None else b[0], *settings), x)

        def one(i: int) -> Tensor:
            return operation(x[i], w[i], None if b is None else b[i], *settings)

        return torch.stack(side_by_side(one, len(x), [x, w] if b is None else [x, w, b]))

    return run


def side_by_side(one: Callable[[int], Tensor], count: int, given: Sequence[Tensor]) -> list[Tensor]:
    """`one(i)` for each i below `count`, on an accelerator on several streams beside the current one.

    Gradients are computed on the streams of their operations, which autograd sees to.

    Args:
        one: The operation.
        count: Number of calls.
        given: The tensors that it reads.
    """
    device = given[0].device
    if device.type != "cuda":
        return [one(i) for i in range(count)]
    current, streams = torch.cuda.current_stream(device), _streams(device)
    for stream in streams:
        stream.wait_stream(current)
    results = []
    for i in range(count):
        with torch.cuda.stream(streams[i % len(streams)]):
            results.append(one(i))
    for stream in streams:
        current.wait_stream(stream)
        for tensor in given:
            # Saved for the backward pass, which may free them while this stream still reads them.
            tensor.record_stream(stream)
    for result in results:
        result.record_stream(current)
    return results


@functools.cache
def _streams(device: torch.device) -> list[Any]:
    return [torch.cuda.Stream(device) for _ in range(_STREAMS)]  # type: ignore[no-untyped-call]


def _unfolded(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Patches of images and a batched product (im2col); other convolutions are grouped."""
    grouped = _grouped(operation)
    if operation is not F.conv2d:
        return grouped

    def run(x: Tensor, w: Tensor, b: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
        if groups != 1 or isinstance(padding, str) or x.is_complex() or _is_one(x, w, b):
            return grouped(x, w, b, stride, padding, dilation, groups)
        members, n, out = len(x), x.shape[1], w.shape[1]
        sides = zip(x.shape[3:], w.shape[3:], *map(_pair, (stride, padding, dilation)), strict=True)
        size = [(side + 2 * pad - gap * (kernel - 1) - 1) // step + 1 for side, kernel, step, pad, gap in sides]
        patches = F.unfold(x.flatten(0, 1), w.shape[3:], dilation, padding, stride)
        # (members, patch, n * places), so that one product per member covers all its images.
        columns = patches.view(members, n, *patches.shape[1:]).transpose(1, 2).flatten(2)
        y = torch.bmm(w.flatten(2), columns)
        y = y if b is None else y + b.to(y.dtype).unsqueeze(2)
        return y.view(members, out, n, *size).transpose(1, 2)

    return run


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _grouped(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Members as groups of one convolution; as its channels if all have the same input, as in the first layer."""

    def run(x: Tensor, w: Tensor, b: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
        if _is_one(x, w, b):
            settings = stride, padding, dilation, groups
            return for_shared(lambda rows: operation(rows, w[0], None if b is None else b[0], *settings), x)
        shared = groups == 1 and x.stride(0) == 0
        wide, count = (x[0], 1) if shared else (as_channels(x), len(x) * groups)
        bias = None if b is None else b.flatten()
        return as_members(operation(wide, w.flatten(0, 1), bias, stride, padding, dilation, count), len(x))

    return run


def _is_one(x: Tensor, w: Tensor, b: Tensor | None) -> bool:
    """Whether a convolution has the same weights for all members, and batches."""
    return x.dim() == w.dim() and is_shared(w) and (b is None or is_shared(b))


def _has_batch(dims: int) -> Callable[..., bool]:
    return lambda x, *_: x.dim() == dims


def _always(*_: Any) -> bool:
    return True


_CONV = {"input": None, "weight": None, "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_NORM = {
    "input": None, "running_mean": None, "running_var": None, "weight": None, "bias": None, "training": False,
    "momentum": 0.1, "eps": 1e-5,
}  # fmt: skip
_SDPA = {
    "query": None, "key": None, "value": None, "attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None,
    "enable_gqa": False,
}  # fmt: skip

_ANYWHERE: Mapping[Any, Rule] = {
    F.linear: Rule({"input": None, "weight": None, "bias": None}, lambda x, w, _: w.dim() == 2 and x.dim() > 1, linear),
    F.scaled_dot_product_attention: Rule(_SDPA, lambda q, *_: q.dim() == 4, attention),
    F.multi_head_attention_forward: Rule(MULTI_HEAD, fits_multi_head, multi_head, lambda y: (y, None)),
}

ON_CPU: Mapping[Any, Rule] = {
    **_ANYWHERE,
    F.batch_norm: Rule(_NORM, lambda x, *_: x.dim() >= 2, _few_dimensions),
    F.conv1d: Rule(_CONV, _always, _separate(F.conv1d)),
    F.conv2d: Rule(_CONV, _always, _separate(F.conv2d)),
    F.conv3d: Rule(_CONV, _always, _separate(F.conv3d)),
}
"""The rules by operation, on the CPU."""

_WAYS = {"grouped": _grouped, "separate": _separate, "unfolded": _unfolded}
_WITH_BATCH = {F.conv1d: 3, F.conv2d: 4, F.conv3d: 5}


def _convolutions(way: Convolutions) -> Mapping[Any, Rule]:
    return {of: Rule(_CONV, _has_batch(dims), _WAYS[way](of)) for of, dims in _WITH_BATCH.items()}


ON_ACCELERATOR: Mapping[Any, Rule] = {
    **_ANYWHERE,
    F.batch_norm: Rule(_NORM, lambda x, *_: x.dim() >= 2, _batch_norm),
    **_convolutions("grouped"),
}
"""The rules by operation on an accelerator, where a launch costs more than the work of a small layer."""


def rules_of(convolutions: Convolutions, *, wide_norms: bool) -> Mapping[Any, Rule]:
    """The rules for a kind of device; the arguments are those of `Tuning`."""
    return {**ON_ACCELERATOR, **_convolutions(convolutions)} if wide_norms else ON_CPU
