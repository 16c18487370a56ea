"""The metrics that the configuration key `metric` may name."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from pbt.pytorch import accuracy

Metric = Callable[[Tensor, Tensor], Tensor]
"""A function of outputs (n, classes) and targets that returns the mean over the n examples."""


def accuracy_onehot(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of rows whose largest output is the largest target; targets (n, classes) or class numbers (n,)."""
    return accuracy(outputs, targets if targets.dim() == 1 else targets.argmax(dim=1))


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of wrongly classified rows."""
    return 1 - accuracy(outputs, targets)


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "accuracy_categ": accuracy,
    "accuracy_onehot": accuracy_onehot,
    "error": error,
    "loss": F.cross_entropy,
}
_ALWAYS = (accuracy, F.cross_entropy)


def beside(metric: str) -> tuple[str, ...]:
    """The metric to report in addition to loss and accuracy; empty if it is one of the two."""
    return () if METRICS[metric] in _ALWAYS else (metric,)
