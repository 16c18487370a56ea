"""A linear layer for a population, as one batched product."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _Linear(torch.autograd.Function):
    """`x @ w.T + b` for every member; gradients have the memory layout of the parameters and are not copied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        """The product of x (members, n, in) and w (members, out, in), plus b (members, out)."""
        ctx.save_for_backward(x, w)
        turned = w.transpose(1, 2)
        return torch.bmm(x, turned) if b is None else torch.baddbmm(b.unsqueeze(1), x, turned)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The required gradients of x, w and b."""
        (gradient,) = gradients
        x, w = ctx.saved_tensors
        of_x, of_w, of_b = ctx.needs_input_grad
        # The conjugate of real numbers is the tensor itself.
        return (
            torch.bmm(gradient, w.conj()) if of_x else None,
            torch.bmm(gradient.transpose(1, 2), x.conj()) if of_w else None,
            gradient.sum(dim=1) if of_b else None,
        )


def linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """`F.linear` of every member: x (members, ..., in), w (members, out, in), b (members, out)."""
    if is_shared(w) and (b is None or is_shared(b)):
        return for_shared(lambda rows: F.linear(rows, w[0], None if b is None else b[0]), x)
    x, w, b = _cast(x), _cast(w), None if b is None else _cast(b)
    # Counted, because the size of an empty tensor cannot be inferred.
    rows = x.reshape(len(x), x.shape[1:-1].numel(), x.shape[-1])
    result: Tensor = _Linear.apply(rows, w, b)  # type: ignore[no-untyped-call]
    return result.view(*x.shape[:-1], w.shape[1])


def is_shared(x: Tensor) -> bool:
    """Whether all members have the same tensor, expanded."""
    return x.stride(0) == 0 and len(x) > 1


def for_shared(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer that is the same for all members, once: on all their examples, or on those that they share.

    Args:
        layer: From (n, ...) to (n, ...).
        x: (members, n, ...).
    """
    if is_shared(x):
        y = layer(x[0])
        return y.expand(len(x), *y.shape)
    y = layer(x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


def _cast(x: Tensor) -> Tensor:
    """The tensor as autocast would pass it to a product; autocast does not reach into an autograd function."""
    device = x.device.type
    if not torch.is_autocast_enabled(device) or x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return x
    return x.to(torch.get_autocast_dtype(device))
