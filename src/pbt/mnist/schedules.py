"""Checkpoint steps, learning rate schedules, and the share of copies of a configuration."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from pbt.core.schedule import Schedule, Segment
from pbt.mnist.config.record import Config
from pbt.pytorch import SupervisedTask


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The steps at which a single network is saved: every `every` steps of an epoch, and at its end.

    Args:
        every: Steps between checkpoints.
        steps_per_epoch: Training steps of an epoch.
    """

    every: int
    steps_per_epoch: int

    def __call__(self, step: int) -> int:
        """The step of the next checkpoint after `step`."""
        begun = step // self.steps_per_epoch * self.steps_per_epoch
        inside = begun + ((step - begun) // self.every + 1) * self.every
        return min(inside, begun + self.steps_per_epoch)

    def count(self, epochs: int) -> int:
        """The number of checkpoints in `epochs` epochs."""
        return epochs * -(-self.steps_per_epoch // self.every)


def lr_schedule(config: Config, steps_per_epoch: int) -> Schedule:
    """The learning rate of a single network, halved at the end of each epoch in `decreasing_lr_epochs`.

    It does not depend on `num_epochs`: training that continues for longer keeps the last value.
    """
    edges = [0, *sorted(config.train.decreasing_lr_epochs)]
    edges.append(edges[-1] + 1)
    return Schedule(
        tuple(
            Segment(
                start=start * steps_per_epoch,
                stop=stop * steps_per_epoch,
                hparams={"lr": config.train.lr / 2**halvings},
            )
            for halvings, (start, stop) in enumerate(itertools.pairwise(edges))
        )
    )


def halved(task: SupervisedTask, config: Config, steps_per_epoch: int) -> SupervisedTask:
    """The task of a population, with the learning rate halved at the end of each epoch in `decreasing_lr_epochs`."""
    epochs = config.train.decreasing_lr_epochs
    return replace(task, scheduler=_halving(epochs, steps_per_epoch)) if epochs else task


def _halving(epochs: Sequence[int], steps_per_epoch: int) -> Callable[[Optimizer], MultiStepLR]:
    """A factory of schedulers that are stepped after every training step."""
    milestones = [epoch * steps_per_epoch for epoch in sorted(epochs)]
    return functools.partial(MultiStepLR, milestones=milestones, gamma=0.5)


def copied_share(fraction: float, population: int) -> float:
    """The share for `truncation` that replaces as many workers as the original does.

    The original rounds up, `ceil(n / 5)`; `truncation` rounds down.

    Args:
        fraction: The configured share, 0 to 0.5.
        population: Number of workers, at least 1.

    Returns:
        The number of replaced workers, at most half of the population, divided by the population.
    """
    # 0.2 * 15 is 3.0000000000000004: three are meant.
    return min(math.ceil(fraction * population - 1e-9), population // 2) / population
