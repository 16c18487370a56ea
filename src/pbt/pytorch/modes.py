"""Training mode and evaluation mode of optimizers."""

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer


def set_mode(optimizers: Iterable[Optimizer], *, training: bool) -> None:
    """Call `train` or `eval` of every optimizer that has both methods, such as a schedule-free optimizer.

    Schedule-free optimizers keep one set of weights for training and one for evaluation, and swap them in place.
    """
    optimizer: Any
    for optimizer in optimizers:
        if callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None)):
            (optimizer.train if training else optimizer.eval)()
