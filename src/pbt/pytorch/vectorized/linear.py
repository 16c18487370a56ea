"""A linear layer for a whole population, as one batched product."""

from typing import Any

import torch
from torch import Tensor


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


def linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """`F.linear` of every member: x (members, ..., in), w (members, out, in), b (members, out)."""
    rows = x.reshape(len(x), -1, x.shape[-1])
    result: Tensor = _Linear.apply(rows, w, b)  # type: ignore[no-untyped-call]
    return result.view(*x.shape[:-1], w.shape[1])
