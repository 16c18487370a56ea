"""Discovered schedules in custom training loops."""

from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pbt.core.schedule import Schedule
from pbt.errors import TaskError
from pbt.executors.base_values import built_base, plain, ratio_of
from pbt.pytorch.bind import OptimizerBinding
from pbt.pytorch.live import Live
from pbt.values import Value


def apply_schedule(optimizer: Optimizer, schedule: Schedule, step: int) -> dict[str, Value]:
    """Set the optimizer to the values of a schedule at a step; call it before each training step.

    Each value is the optimizer's base value, as in the run: parameter groups keep the ratios they were built with.

    Args:
        optimizer: The optimizer; its settings named like hyperparameters (`lr`, `weight_decay`, `momentum`, ...) are
            set.
        schedule: The schedule, as `run.best_schedule`.
        step: Number of training steps so far; after the end of the schedule the last values apply.

    Returns:
        The values that are not settings of the optimizer, for the caller to apply.

    Raises:
        TaskError: None of the names is a setting of the optimizer.
    """
    values = schedule.at(step)
    live = Live(parts={"optimizer": optimizer})
    own = [name for name in values if all(name in group for group in optimizer.param_groups) and name != "params"]
    if not own:
        raise TaskError(
            f"apply_schedule: expected hyperparameters that are settings of {type(optimizer).__name__}, found "
            f"{', '.join(values) or 'none'}; set them yourself from schedule.at(step)"
        )
    for name in own:
        OptimizerBinding(name).apply(live, values[name])
    return {name: value for name, value in values.items() if name not in own}


class ScheduleLR(LRScheduler):
    """The learning rate of a schedule as a PyTorch scheduler: call `step()` once after every training step.

    Args:
        optimizer: The optimizer; its parameter groups keep the ratios they were built with.
        schedule: The schedule, as `run.best_schedule`.
        name: Name of the hyperparameter that is the learning rate.
        last_epoch: Number of steps before, minus one, as in PyTorch's own schedulers.

    Raises:
        TaskError: A segment of the schedule lacks the hyperparameter, or its value is no number.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, name: str = "lr", last_epoch: int = -1) -> None:
        for segment in schedule.segments:
            value = segment.hparams.get(name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TaskError(
                    f"ScheduleLR: expected a number for '{name}' in every segment, found {value!r} from step "
                    f"{segment.start}; the schedule has {', '.join(segment.hparams) or 'nothing'}"
                )
        self._schedule = schedule
        self._name = name
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of every parameter group at this step; groups keep the ratios they were built with."""
        rate = cast("float", self._schedule.at(self.last_epoch)[self._name])
        groups = [{"lr": plain(built)} for built in self.base_lrs]
        base = built_base(self.optimizer.defaults, groups, "lr", None)
        return [rate * ratio_of(group["lr"], base, groups, "lr", None) for group in groups]

    def state_dict(self) -> dict[str, Any]:
        """The progress as plain values; without the schedule, which the constructor takes again."""
        return {key: value for key, value in super().state_dict().items() if key not in {"_schedule", "_name"}}
