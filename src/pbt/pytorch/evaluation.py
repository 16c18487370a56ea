"""Metrics of a network over a whole split, independent of the batches of the evaluation.

A mean over examples is summed batch by batch. Other metrics, such as F1 or a class-weighted loss, are computed once
from the outputs of all batches.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from pbt.errors import TaskError
from pbt.pytorch.losses import fresh
from pbt.pytorch.sources import ExampleSource, Inputs, batches_of
from pbt.pytorch.tokens import token_accuracy, token_cross_entropy

Metric = Callable[..., Tensor]
Total = Tensor | float
"""A metric in double precision: a tensor () that is not read yet, or a number."""
Outputs = Any
"""The outputs of a network: a tensor, or tuples, lists and dictionaries of tensors."""

_FUNCTIONS: Sequence[Any] = (
    F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.cross_entropy, F.huber_loss, F.kl_div, F.l1_loss,
    F.mse_loss, F.nll_loss, F.smooth_l1_loss, token_accuracy, token_cross_entropy,
)  # fmt: skip
_MODULES: Sequence[type[nn.Module]] = (
    nn.BCELoss, nn.BCEWithLogitsLoss, nn.CrossEntropyLoss, nn.HuberLoss, nn.KLDivLoss, nn.L1Loss, nn.MSELoss,
    nn.NLLLoss, nn.SmoothL1Loss,
)  # fmt: skip
_SETTINGS = {"label_smoothing", "beta", "delta"}
"""Settings with which those functions are still means."""
_IGNORED = -100
"""The target that torch's classification losses exclude from their mean."""


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The fraction of rows of outputs (n, classes) whose largest entry is the target (n,)."""
    return (outputs.argmax(dim=1) == targets).double().mean()


@dataclass(frozen=True, slots=True)
class SplitMetrics:
    """The metrics of a split by name, divided into means over examples and all others."""

    names: Sequence[str]
    means: Mapping[str, Metric]
    """Means over examples."""
    whole: Mapping[str, Metric]
    """All others."""
    counting: Collection[str] = ()
    """Means that leave out the target -100, where the targets are not known in advance."""

    @classmethod
    def of(cls, metrics: Mapping[str, Metric], means: Collection[str], split: ExampleSource) -> "SplitMetrics":
        """The metrics of a task; `means` are the names declared as means."""
        targets = split.labels
        found = {name for name, metric in metrics.items() if _is_mean(metric, targets)}
        known = found | set(means)
        return cls(
            [*metrics],
            {name: metric for name, metric in metrics.items() if name in known},
            {name: metric for name, metric in metrics.items() if name not in known},
            {name for name in found if targets is None and metrics[name] is not accuracy},
        )

    def renewed(self) -> "SplitMetrics":
        """The same metrics as given, without a state of earlier evaluations."""
        means, whole = ({name: fresh(metric) for name, metric in of.items()} for of in (self.means, self.whole))
        return replace(self, means=means, whole=whole)


class Weights:
    """The weights of batches in a mean over a split, some of whose targets may be left out.

    Args:
        measured: The metrics.
        split: The split.
    """

    def __init__(self, measured: SplitMetrics, split: ExampleSource) -> None:
        self._counting = measured.counting
        self._examples = len(split)
        self._each = 0.0
        """Targets of an example, as in the first batch."""
        self._total = self._batch = 0

    def begin(self, targets: Tensor) -> None:
        """Count a batch."""
        self._targets = len(targets)
        if self._counting:
            self._batch = targets.numel() if targets.is_floating_point() else int((targets != _IGNORED).sum())
            self._total += self._batch
            self._each = self._each or targets.numel() / len(targets)

    def of(self, name: str) -> float:
        """The weight of this batch; 0: all its targets are left out."""
        if name in self._counting:
            return self._batch / (self._examples * self._each)
        return self._targets / self._examples

    def scale(self, name: str) -> float:
        """The factor of the weighted sum: 1 unless targets were left out."""
        if name not in self._counting:
            return 1.0
        return self._examples * self._each / self._total if self._total else math.nan


def _is_mean(metric: Any, targets: Tensor | None) -> bool:
    """Whether a metric is known to be a mean over these examples; None: over those whose target is not left out."""
    if isinstance(metric, partial):
        return not metric.args and set(metric.keywords) <= _SETTINGS and _is_mean(metric.func, targets)
    if isinstance(metric, nn.Module):
        plain = metric.__dict__.get("reduction") == "mean" and getattr(metric, "weight", None) is None
        counted = getattr(metric, "ignore_index", _IGNORED) == _IGNORED
        known = type(metric) in _MODULES and plain and counted
    else:
        known = metric is accuracy or metric in _FUNCTIONS
    return known and (targets is None or targets.is_floating_point() or not bool((targets == _IGNORED).any()))


def batches(
    split: ExampleSource, size: int, prepare: Callable[[Tensor], Tensor] | None = None
) -> Iterator[tuple[Inputs, Tensor]]:
    """The split in batches of `size` examples with prepared inputs; copies, which may be changed in place."""
    for inputs, targets in batches_of(split, size):
        yield inputs if prepare is None else tuple(map(prepare, inputs)), targets


def evaluate(
    model: Callable[..., Outputs],
    measured: SplitMetrics,
    split: ExampleSource,
    size: int,
    prepare: Callable[[Tensor], Tensor] | None,
) -> dict[str, float]:
    """Each metric over the split, by a network in evaluation mode, in batches of `size` examples.

    Raises:
        TaskError: A metric is not a mean, and the outputs of several batches cannot be joined.
    """
    return read({"": totals(model, measured, split, size, prepare)})[""]


def totals(
    model: Callable[..., Outputs],
    measured: SplitMetrics,
    split: ExampleSource,
    size: int,
    prepare: Callable[[Tensor], Tensor] | None,
) -> dict[str, Total]:
    """`evaluate` without reading from the device: a metric that is a tensor remains one."""
    measured = measured.renewed()
    values: dict[str, Total] = dict.fromkeys(measured.names, 0.0)
    kept: list[Outputs] = []
    weights, kept_targets = Weights(measured, split), Targets(split, needed=bool(measured.whole))
    for inputs, targets in batches(split, size, prepare):
        weights.begin(targets)
        kept_targets.add(targets)
        outputs = model(*inputs)
        for name, metric in measured.means.items():
            if weight := weights.of(name):
                values[name] += _total(metric(spared(metric, outputs), targets.clone())) * weight
        if measured.whole:
            kept.append(outputs)
    values = {name: value * weights.scale(name) for name, value in values.items()}
    if measured.whole:
        outputs, targets = joined(kept, [size, len(split)]), kept_targets.all
        for name, metric in measured.whole.items():
            values[name] = _total(metric(spared(metric, outputs), targets.clone()))
    return values


def read(values: Mapping[str, Mapping[str, Total]]) -> dict[str, dict[str, float]]:
    """The results of `totals` by split as floats, in one read for each device."""
    places = [(split, name) for split, own in values.items() for name in own]
    found = {(split, name): values[split][name] for split, name in places}
    tensors = {place: value for place, value in found.items() if isinstance(value, Tensor)}
    for device in {tensor.device for tensor in tensors.values()}:
        here = {place: tensor for place, tensor in tensors.items() if tensor.device == device}
        found.update(zip(here, torch.stack([*here.values()]).tolist(), strict=True))
    return {split: {name: float(found[split, name]) for name in own} for split, own in values.items()}


def _total(value: Any) -> Total:
    """A metric in double precision."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return value.detach().reshape(()).double()
    return float(value)


class Targets:
    """All targets of a split, kept batch by batch if they are not in memory.

    Args:
        split: The split.
        needed: Whether a metric needs them.
    """

    def __init__(self, split: ExampleSource, *, needed: bool) -> None:
        self._labels = split.labels
        self._keeps = needed and self._labels is None
        self._kept: list[Tensor] = []

    def add(self, targets: Tensor) -> None:
        """Keep the targets of the next batch."""
        if self._keeps:
            # A copy: a metric may change its targets in place.
            self._kept.append(targets.clone())

    @property
    def all(self) -> Tensor:
        """The targets of all batches."""
        return torch.cat(self._kept) if self._labels is None else self._labels


def spared(metric: Any, outputs: Outputs) -> Outputs:
    """The outputs, copied for a metric that may change them in place: other metrics read them, too."""
    function = metric.func if isinstance(metric, partial) else metric
    if function is accuracy or function in _FUNCTIONS or type(function) in _MODULES:
        return outputs
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, outputs)


def detached(outputs: Outputs) -> Outputs:
    """The outputs, detached from their graph."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, outputs)


def joined(parts: Sequence[Outputs], sizes: Sequence[int], dim: int = 0) -> Outputs:
    """The concatenated outputs of all batches.

    Args:
        parts: The outputs of each batch.
        sizes: Number of examples of each batch but the last, and of all batches.
        dim: The dimension of the examples.

    Raises:
        TaskError: An output lacks this dimension.
    """
    if len(parts) == 1:
        return parts[0]
    flat, structure = zip(*(tree_flatten(part) for part in parts), strict=True)
    for leaf in flat[0]:
        if not isinstance(leaf, Tensor) or leaf.dim() <= dim or leaf.shape[dim] != sizes[0]:
            what = f"a tensor of shape {tuple(leaf.shape[dim:])}" if isinstance(leaf, Tensor) else type(leaf).__name__
            raise TaskError(
                f"expected outputs of the network with the {sizes[0]} examples of a batch in front, got {what}; "
                "metrics other than means need the joined outputs of all batches: declare means, as in "
                f'means=("loss",), or set evaluation_batch to {sizes[1]}'
            )
    return tree_unflatten([torch.cat(same, dim) for same in zip(*flat, strict=True)], structure[0])
