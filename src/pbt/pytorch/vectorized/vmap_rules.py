"""Operations that have a better way to run for a whole population than the one that `vmap` takes.

`vmap` knows nearly every operation, but turns a linear layer into a product and an addition, transposes a batch norm
back and forth, and makes convolutions of many members one grouped convolution, on the CPU four times slower than
one after the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_normed: Callable[..., Tensor] = F.batch_norm


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operation runs for all members.

    Args:
        defaults: The operation's arguments by name, with what they are where they are not given.
        fits: Whether the rule is the better way for these arguments, of one member.
        run: The operation on arguments with members in front; what is the same for all is expanded.
    """

    defaults: Mapping[str, Any]
    fits: Callable[..., bool]
    run: Callable[..., Tensor]


class Rules(TorchFunctionMode):
    """While it is entered inside of `vmap`, operations that have a rule follow it."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The operation, by its rule if there is one that fits."""
        rule = RULES.get(func)
        if rule is not None:
            given = [*args, *({**rule.defaults, **(kwargs or {})}[name] for name in [*rule.defaults][len(args) :])]
            if any(map(_differs, given)) and rule.fits(*given):
                return for_all(rule.run, *given)
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


class _Linear(torch.autograd.Function):
    """`x @ w.T + b` for every member, with gradients that lie in memory as the parameters do, so none is copied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        """X (members, n, in), w (members, out, in), b (members, out)."""
        ctx.save_for_backward(x, w)
        turned = w.transpose(1, 2)
        return torch.bmm(x, turned) if b is None else torch.baddbmm(b.unsqueeze(1), x, turned)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of x, w and b, as far as they are needed."""
        (gradient,) = gradients
        x, w = ctx.saved_tensors
        of_x, of_w, of_b = ctx.needs_input_grad
        # The conjugate of real numbers is the tensor itself.
        return (
            torch.bmm(gradient, w.conj()) if of_x else None,
            torch.bmm(gradient.transpose(1, 2), x.conj()) if of_w else None,
            gradient.sum(dim=1) if of_b else None,
        )


def _linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    rows = x.reshape(len(x), -1, x.shape[-1])
    result: Tensor = _Linear.apply(rows, w, b)  # type: ignore[no-untyped-call]
    return result.view(*x.shape[:-1], w.shape[1])


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
    if x.dim() > 3:
        own = [[None if t is None else t[i] for t in (mean, var, w, b)] for i in range(len(x))]
        return torch.stack([_normed(x[i], *of, training, momentum, eps) for i, of in enumerate(own)])
    members, n, channels = x.shape
    # Copies, because what is kept for the way back must not be written to.
    running = [None if t is None else t.reshape(-1).clone() for t in (mean, var)]
    weights = [None if t is None else t.reshape(-1) for t in (w, b)]
    # Members become channels: each channel has statistics of its own anyway.
    wide = x.transpose(0, 1).reshape(n, members * channels)
    y = _normed(wide, *running, *weights, training, momentum, eps)
    if training:
        for whole, part in zip((mean, var), running, strict=True):
            if whole is not None and part is not None:
                whole.copy_(part.view_as(whole))
    return y.view(n, members, channels).transpose(0, 1)


def _one_by_one(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(x: Tensor, w: Tensor, b: Tensor | None, *settings: Any) -> Tensor:
        return torch.stack([operation(x[i], w[i], None if b is None else b[i], *settings) for i in range(len(x))])

    return run


def _on_cpu(x: Tensor, *_: Any) -> bool:
    return x.device.type == "cpu"


def _few_dimensions_or_on_cpu(x: Tensor, *_: Any) -> bool:
    return x.dim() == 2 or (x.dim() > 2 and _on_cpu(x))


_CONV = {"input": None, "weight": None, "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_NORM = {
    "input": None, "running_mean": None, "running_var": None, "weight": None, "bias": None, "training": False,
    "momentum": 0.1, "eps": 1e-5,
}  # fmt: skip

RULES: Mapping[Any, Rule] = {
    F.linear: Rule(
        {"input": None, "weight": None, "bias": None}, lambda x, w, _: w.dim() == 2 and x.dim() > 1, _linear
    ),
    F.batch_norm: Rule(_NORM, _few_dimensions_or_on_cpu, _batch_norm),
    F.conv1d: Rule(_CONV, _on_cpu, _one_by_one(F.conv1d)),
    F.conv2d: Rule(_CONV, _on_cpu, _one_by_one(F.conv2d)),
    F.conv3d: Rule(_CONV, _on_cpu, _one_by_one(F.conv3d)),
}
"""By the operation as a network calls it."""
