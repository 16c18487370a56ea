"""Learning-rate schedulers of a population: a torch scheduler per member, on a stand-in optimizer."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.trainer import steps_by_score
from pbt.pytorch.vectorized.settings import Groups, Settings


class VectorizedSchedulers:
    """The schedulers of all members.

    Args:
        task: The task; it has a scheduler.
        optimizers: One optimizer of the task per member. They are never stepped: the schedulers write rates into their
            parameter groups, and the population is stepped with these rates.
    """

    def __init__(self, task: SupervisedTask, optimizers: Sequence[Optimizer]) -> None:
        assert task.scheduler is not None  # noqa: S101 (checked by the caller)
        self._optimizers = optimizers
        self._schedulers = [task.scheduler(optimizer) for optimizer in optimizers]
        for optimizer in optimizers:
            # Otherwise torch warns that the scheduler is stepped before its optimizer.
            optimizer._opt_called = True  # type: ignore[attr-defined]
        self.by_score = steps_by_score(self._schedulers[0])
        """Whether the schedulers are stepped by the validation loss of a round, not after every step."""

    def configure(self, settings: Sequence[Settings]) -> None:
        """Set the rates and the phase of each member."""
        for optimizer, scheduler, own in zip(self._optimizers, self._schedulers, settings, strict=True):
            for group, given in zip(optimizer.param_groups, own.groups, strict=True):
                group.update(copy.deepcopy(given))
            scheduler.load_state_dict(copy.deepcopy(own.schedule))

    def step(self, losses: Sequence[float] | None = None) -> list[Groups]:
        """Step every scheduler; returns the changed settings of each member's parameter groups.

        Args:
            losses: The validation loss of each member, for schedulers that need it.
        """
        changes = []
        for i, (optimizer, scheduler) in enumerate(zip(self._optimizers, self._schedulers, strict=True)):
            before = [dict(group) for group in optimizer.param_groups]
            scheduler.step(*([] if losses is None else [losses[i]]))
            # Changed settings only: the stand-in lacks the counters that the member's optimizer keeps in its groups.
            changes.append(
                [
                    # A rate that is a tensor is filled in place, and remains the same object.
                    {name: of for name, of in group.items() if name != "params" and _may_differ(of, old.get(name))}
                    for group, old in zip(optimizer.param_groups, before, strict=True)
                ]
            )
        return changes

    def dump(self, index: int) -> Mapping[str, Any]:
        """A copy of the state of one member's scheduler."""
        state: Mapping[str, Any] = copy.deepcopy(self._schedulers[index].state_dict())
        return state


def _may_differ(value: Any, before: Any) -> bool:
    return value is not before or isinstance(value, Tensor)
