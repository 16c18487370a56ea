"""Operations that have a better way to run for a whole population than the one that `vmap` takes.

`vmap` knows nearly every operation, but turns a linear layer into a product and an addition, transposes a batch norm
back and forth, and makes convolutions of many members one grouped convolution, on the CPU four times slower than
one after the other. An accelerator has rules of its own: there a launch for each member would cost more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pbt.pytorch.vectorized.attention import MULTI_HEAD, attention, fits_multi_head, multi_head
from pbt.pytorch.vectorized.linear import linear

_normed: Callable[..., Tensor] = F.batch_norm


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operation runs for all members.

    Args:
        defaults: The operation's arguments by name, with what they are where they are not given.
        fits: Whether the rule is the better way for these arguments, of one member.
        run: The operation on arguments with members in front; what is the same for all is expanded.
        result: From what `run` gives to what the operation returns.
    """

    defaults: Mapping[str, Any]
    fits: Callable[..., bool]
    run: Callable[..., Tensor]
    result: Callable[[Tensor], Any] = lambda y: y


class Rules(TorchFunctionMode):
    """While it is entered inside of `vmap`, operations that have a rule follow it.

    Args:
        rules: By the operation as a network calls it.
    """

    def __init__(self, rules: Mapping[Any, Rule]) -> None:
        super().__init__()
        self._rules = rules

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The operation, by its rule if there is one that fits."""
        rule = self._rules.get(func)
        if rule is not None:
            given = [*args, *({**rule.defaults, **(kwargs or {})}[name] for name in [*rule.defaults][len(args) :])]
            if any(map(_differs, given)) and rule.fits(*given):
                return rule.result(for_all(rule.run, *given))
        return func(*args, **(kwargs or {}))


def _differs(value: Any) -> bool:
    """Whether `vmap` sees a value of its own for each member."""
    return isinstance(value, Tensor) and torch._C._functorch.is_batchedtensor(value)


def for_all(run: Callable[..., Tensor], *args: Any) -> Tensor:
    """From inside of `vmap`: run on the arguments with members in front; some of them must differ between members."""
    result: Tensor = _ForAll.apply(run, *args)  # type: ignore[no-untyped-call]
    return result


class _ForAll(torch.autograd.Function):
    """The way from one member, as `vmap` sees it, to all of them; gradients are those of what is run."""

    @staticmethod
    def forward(*_: Any) -> Tensor:
        """Never reached: some argument differs between members."""
        raise AssertionError

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing."""

    @staticmethod
    def vmap(info: Any, dims: Any, run: Callable[..., Tensor], *args: Any) -> tuple[Tensor, int]:
        """All members at once."""
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
    # Copies, because what is kept for the way back must not be written to.
    running = [None if t is None else t.reshape(-1).clone() for t in (mean, var)]
    weights = [None if t is None else t.reshape(-1) for t in (w, b)]
    # Each channel has statistics of its own anyway.
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
    """The way back: a view that lies in memory as x does, so that the next layer that wants channels copies nothing."""
    return x.view(len(x), members, -1, *x.shape[2:]).transpose(0, 1)


def _few_dimensions(x: Tensor, mean: Tensor | None, var: Tensor | None, w: Tensor | None, *rest: Any) -> Tensor:
    """Batch normalization on the CPU, where large inputs are not worth the transposition."""
    if x.dim() <= 3:
        return _batch_norm(x, mean, var, w, *rest)
    b, *settings = rest
    own = [[None if t is None else t[i] for t in (mean, var, w, b)] for i in range(len(x))]
    return torch.stack([_normed(x[i], *of, *settings) for i, of in enumerate(own)])


def _one_by_one(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(x: Tensor, w: Tensor, b: Tensor | None, *settings: Any) -> Tensor:
        return torch.stack([operation(x[i], w[i], None if b is None else b[i], *settings) for i in range(len(x))])

    return run


def _grouped(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Members as groups of one convolution; as channels of it where all have the same input, as the first layer has."""

    def run(x: Tensor, w: Tensor, b: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
        shared = groups == 1 and x.stride(0) == 0
        wide, count = (x[0], 1) if shared else (as_channels(x), len(x) * groups)
        bias = None if b is None else b.flatten()
        return as_members(operation(wide, w.flatten(0, 1), bias, stride, padding, dilation, count), len(x))

    return run


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
    F.conv1d: Rule(_CONV, _always, _one_by_one(F.conv1d)),
    F.conv2d: Rule(_CONV, _always, _one_by_one(F.conv2d)),
    F.conv3d: Rule(_CONV, _always, _one_by_one(F.conv3d)),
}
"""By the operation as a network calls it."""

ON_ACCELERATOR: Mapping[Any, Rule] = {
    **_ANYWHERE,
    F.batch_norm: Rule(_NORM, lambda x, *_: x.dim() >= 2, _batch_norm),
    F.conv1d: Rule(_CONV, _has_batch(3), _grouped(F.conv1d)),
    F.conv2d: Rule(_CONV, _has_batch(4), _grouped(F.conv2d)),
    F.conv3d: Rule(_CONV, _has_batch(5), _grouped(F.conv3d)),
}
"""The same, where a launch costs more than the work of a small layer."""


def rules_of(*, grouped_convolutions: bool) -> Mapping[Any, Rule]:
    """The rules for a kind of device."""
    return ON_ACCELERATOR if grouped_convolutions else ON_CPU
