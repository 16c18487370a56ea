"""Training mode and evaluation mode, of networks and of the optimizers that have them too."""

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer


def set_mode(optimizers: Iterable[Optimizer], *, training: bool) -> None:
    """Call `train` or `eval` of every optimizer that has both, as schedule-free optimizers do.

    Such an optimizer keeps one set of weights for training and another one for evaluation, and exchanges them in place.
    """
    for optimizer in optimizers:
        of: Any = optimizer
        if callable(getattr(of, "train", None)) and callable(getattr(of, "eval", None)):
            (of.train if training else of.eval)()
