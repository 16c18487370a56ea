"""Metrics by name: what the `metric` key of a configuration may say."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor

from pbt.pytorch import accuracy

Metric = Callable[[Tensor, Tensor], Tensor]
"""From outputs (n, classes) and targets to the mean over the n examples."""


def accuracy_onehot(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of rows whose largest output is the largest target; targets (n, classes) or class numbers (n,)."""
    return accuracy(outputs, targets if targets.dim() == 1 else targets.argmax(dim=1))


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of rows that are classified wrong."""
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
    """A metric as what is shown beside loss and accuracy, which always are: nothing where it is one of the two."""
    return () if METRICS[metric] in _ALWAYS else (metric,)
