"""Optimizers for a whole population, each member with its own settings and its own count of steps.

Two ways. `Separate`: each member's real torch optimizer, on views of its row: any optimizer, one call per member and
step. `Elementwise` (in `elementwise.py`): torch's arithmetic over all rows at once, for networks so small that a call
costs more than its work.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

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
        """Make one member remember this."""

    def dump(self, index: int) -> Memory:
        """What one member remembers; tensors are shared, not copied."""


class Separate:
    """One torch optimizer per member.

    Args:
        make: The task's optimizer of some parameters.
        params: All members' parameters.
    """

    def __init__(self, make: Callable[[Any], Optimizer], params: Rows) -> None:
        self._params = [[tensor.detach() for tensor in params.row(i).values()] for i in range(params.members)]
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
        """Copies of what the sources remember, all taken before one is set."""
        moved = {i: copy.deepcopy(self.dump(source)) for i, source in enumerate(sources) if i != source}
        for i, memory in moved.items():
            self.load(i, memory)

    def load(self, index: int, memory: Memory) -> None:
        """Through the optimizer's own `load_state_dict`."""
        optimizer = self._optimizers[index]
        optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})

    def dump(self, index: int) -> Memory:
        """From the optimizer's own `state_dict`."""
        memory: Memory = self._optimizers[index].state_dict()["state"]
        return memory
