"""Learning-rate schedulers of a population: each member's real one, on an optimizer that stands in for its own."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pbt.pytorch.supervised import SupervisedTask, steps_by_score
from pbt.pytorch.vectorized.settings import Groups, Settings


class VectorizedSchedulers:
    """The schedulers of all members.

    Args:
        task: What is trained; it has a scheduler.
        optimizers: One of the task's optimizers for each member. None of them is ever stepped: the schedulers write
            rates into their parameter groups, and the population is stepped by those.
    """

    def __init__(self, task: SupervisedTask, optimizers: Sequence[Optimizer]) -> None:
        assert task.scheduler is not None  # noqa: S101 (asked before)
        self._optimizers = optimizers
        self._schedulers = [task.scheduler(optimizer) for optimizer in optimizers]
        for optimizer in optimizers:
            # Torch warns of a scheduler that is stepped before its optimizer, by this name of its own.
            optimizer._opt_called = True  # type: ignore[attr-defined]
        self.by_score = steps_by_score(self._schedulers[0])
        """Whether they are stepped by the validation loss of a round, and not by steps."""

    def configure(self, settings: Sequence[Settings]) -> None:
        """Each member's rates and phase, from now on."""
        for optimizer, scheduler, own in zip(self._optimizers, self._schedulers, settings, strict=True):
            for group, given in zip(optimizer.param_groups, own.groups, strict=True):
                group.update(copy.deepcopy(given))
            scheduler.load_state_dict(copy.deepcopy(own.schedule))

    def step(self, losses: Sequence[float] | None = None) -> list[Groups]:
        """Step every scheduler; the settings of each member's parameter groups that it changed.

        Args:
            losses: The validation loss of each member, for schedulers that are stepped by it.
        """
        changes = []
        for i, (optimizer, scheduler) in enumerate(zip(self._optimizers, self._schedulers, strict=True)):
            before = [dict(group) for group in optimizer.param_groups]
            scheduler.step(*([] if losses is None else [losses[i]]))
            # And no others: what the member's own optimizer counts in its groups is not known here.
            changes.append(
                [
                    # A rate that is a tensor is filled in place, and so is the same object as before.
                    {name: of for name, of in group.items() if name != "params" and _may_differ(of, old.get(name))}
                    for group, old in zip(optimizer.param_groups, before, strict=True)
                ]
            )
        return changes

    def dump(self, index: int) -> Mapping[str, Any]:
        """The state of one member's scheduler; copied."""
        state: Mapping[str, Any] = copy.deepcopy(self._schedulers[index].state_dict())
        return state


def _may_differ(value: Any, before: Any) -> bool:
    return value is not before or isinstance(value, Tensor)
