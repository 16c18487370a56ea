"""Optimizers for a whole population, each member with its own settings and its own count of steps.

Two ways. `Separate`: each member's real torch optimizer, on views of its row: any optimizer, one call per member and
step. `Elementwise` (in `elementwise.py`): torch's arithmetic over all rows at once, for networks so small that a call
costs more than its work.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from pbt.executors.vectorized.stack import Rows

Group = Mapping[str, Any]
"""An optimizer's settings, as in `param_groups` without the parameters."""
Memory = dict[int, dict[str, Any]]
"""What an optimizer remembers, as in its `state_dict()["state"]`."""


class Stepper(Protocol):
    """Steps all members."""

    def configure(self, groups: Sequence[Sequence[Group]]) -> None:
        """Each member's settings, from now on."""

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One step; gradients (members, *shape) in the order of the parameters, None where there is none."""

    def gather(self, sources: Sequence[int]) -> None:
        """Give every member what the member at its place in `sources` remembers."""

    def load(self, index: int, memory: Memory) -> None:
        """Make one member remember this; it is copied."""

    def dump(self, index: int) -> Memory:
        """What one member remembers; tensors are shared, not copied."""


class Separate:
    """One torch optimizer per member.

    Args:
        make: The task's optimizer of some parameters.
        params: All members' parameters.
        trained: Which of them have gradients; what makes the optimizer may ask.
    """

    def __init__(self, make: Callable[[Any], Optimizer], params: Rows, trained: Sequence[bool]) -> None:
        self._params = [
            [tensor.detach().requires_grad_(has) for tensor, has in zip(params.row(i).values(), trained, strict=True)]
            for i in range(params.members)
        ]
        self._optimizers = [make(iter(own)) for own in self._params]

    def configure(self, groups: Sequence[Sequence[Group]]) -> None:
        """Each member's settings, from now on."""
        for optimizer, own in zip(self._optimizers, groups, strict=True):
            for group, settings in zip(optimizer.param_groups, own, strict=True):
                group.update(settings)

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """One member after the other."""
        split = [None if gradient is None else gradient.unbind() for gradient in gradients]
        for i, (params, optimizer) in enumerate(zip(self._params, self._optimizers, strict=True)):
            for param, gradient in zip(params, split, strict=True):
                param.grad = None if gradient is None else gradient[i]
            optimizer.step()

    def gather(self, sources: Sequence[int]) -> None:
        """All is read before one is set; setting puts other tensors in the place of those that were read.

        Those that keep what they have are loaded too, because torch may load another type than it saved.
        """
        for i, memory in enumerate([self.dump(source) for source in sources]):
            self.load(i, memory)

    def load(self, index: int, memory: Memory) -> None:
        """Through the optimizer's own `load_state_dict`, which takes tensors as they are and steps them in place."""
        optimizer = self._optimizers[index]
        own = {place: {name: _copied(value) for name, value in kept.items()} for place, kept in memory.items()}
        optimizer.load_state_dict({"state": own, "param_groups": optimizer.state_dict()["param_groups"]})

    def dump(self, index: int) -> Memory:
        """From the optimizer's own `state_dict`."""
        memory: Memory = self._optimizers[index].state_dict()["state"]
        return memory


def _copied(value: Any) -> Any:
    # A deep copy of a view would copy, and keep, the memory of all members.
    return value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)


@torch.no_grad()
def clip(gradients: Sequence[Tensor | None], norms: Sequence[float | None]) -> None:
    """Scale each member's gradient down to its norm in place, as `torch.nn.utils.clip_grad_norm_` does."""
    there = [gradient for gradient in gradients if gradient is not None]
    if not there or all(norm is None for norm in norms):
        return
    squares = torch.stack([gradient.flatten(1).square().sum(dim=1) for gradient in there]).sum(dim=0)
    wanted = torch.tensor([math.inf if norm is None else norm for norm in norms], dtype=torch.float64).to(squares)
    # An infinite gradient times zero is NaN, as there; without a norm nothing is touched.
    factor = torch.where(wanted.isinf(), 1.0, (wanted / (squares.sqrt() + 1e-6)).clamp(max=1.0))
    for gradient in there:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
