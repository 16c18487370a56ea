"""The loss and the metrics of each member, from the outputs of all members."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

Metric = Callable[..., Tensor]
Outputs = Any
"""The outputs of a network, usually a tensor, for all members: (members, ...)."""
_IGNORED = -100
"""The target that `F.cross_entropy` ignores."""


class Measures:
    """Functions of outputs and targets, for all members at once if `vmap` supports them.

    Args:
        members: Number of members.
        device: The device of the outputs.
    """

    def __init__(self, members: int, device: str) -> None:
        self._members = members
        self._device = device
        self._slow: set[Any] = set()
        self._settings: Sequence[Mapping[str, Any]] = [{}] * members
        """Each member's settings of the loss."""
        self._smoothing: Tensor | None = None
        """The `label_smoothing` of each member if they differ; a captured graph reads it."""
        self.faults: dict[int, Exception] = {}
        """The first exception of each member that raised one."""

    def configure(self, settings: Sequence[Mapping[str, Any]]) -> None:
        """Set each member's settings of the loss."""
        self._settings = settings
        self.faults.clear()
        if self._smooths:
            amounts = torch.tensor([own.get("label_smoothing", 0.0) for own in settings], dtype=torch.float64)
            self._smoothing = amounts.to(self._device) if self._smoothing is None else self._smoothing.copy_(amounts)

    @property
    def signature(self) -> Sequence[Any]:
        """The values that a graph of the loss depends on, except tensors changed in place."""
        return [self._smooths, [] if self._smooths else [sorted(own.items()) for own in self._settings]]

    @property
    def _smooths(self) -> bool:
        """Whether the members' settings differ only in `label_smoothing`."""
        differ = any(own != self._settings[0] for own in self._settings)
        return differ and all(map(_only_smoothing, self._settings))

    def each(
        self, name: Any, function: Metric, outputs: Outputs, targets: Tensor, *, shared: bool, first: int = 0
    ) -> Tensor:
        """The function of each member's outputs, (members,); member by member if `vmap` cannot run it.

        Args:
            name: The key under which a failure of `vmap` is remembered.
            function: `(outputs, targets) -> scalar`.
            outputs: (members, ...).
            targets: (n, ...) if shared, else (members, n, ...).
            shared: Whether all members have the same targets.
            first: The number of the first member in the outputs.
        """
        # A copy of a metric object is the same metric.
        name = name.func if isinstance(name, partial) else name
        name = name if isinstance(name, str) or inspect.isroutine(name) else type(name)
        if name not in self._slow:
            try:
                with quiet():
                    return vmap(function, (0, None if shared else 0), randomness="different")(outputs, targets)
            except Exception:  # noqa: BLE001 (the loop below succeeds or records the error)
                self._slow.add(name)
        members = len(tree_leaves(outputs)[0])
        return self._one_by_one([function] * members, outputs, targets, shared=shared, first=first)

    def losses(self, loss: Metric, outputs: Outputs, targets: Tensor, *, shared: bool) -> Tensor:
        """The loss of each member, (members,), with its own settings."""
        first = self._settings[0]
        if all(own == first for own in self._settings):
            if loss is F.cross_entropy and _is_plain(first, outputs, targets, shared=shared):
                return _cross_entropies(outputs, targets, **first)
            return self.each("loss", partial(loss, **first), outputs, targets, shared=shared)
        if loss is F.cross_entropy and self._smooths and not targets.is_floating_point():
            assert self._smoothing is not None  # noqa: S101 (configured before)
            amounts = self._smoothing.to(outputs.dtype)
            return vmap(_smoothed_cross_entropy, (0, None if shared else 0, 0))(outputs, targets, amounts)
        return self._one_by_one([partial(loss, **own) for own in self._settings], outputs, targets, shared=shared)

    def _one_by_one(
        self, functions: Sequence[Metric], outputs: Outputs, targets: Tensor, *, shared: bool, first: int = 0
    ) -> Tensor:
        """Each member's function of its outputs; NaN if it raises an exception, which is that member's fault."""
        values = []
        for i, function in enumerate(functions):
            value: Any = math.nan
            try:
                # A copy: the function may change its targets in place.
                own = targets.clone() if shared else targets[i]
                value = function(tree_map(lambda x, i=i: x[i], outputs), own)
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                # Not this member's fault.
                raise
            except Exception as error:  # noqa: BLE001 (a failed member is data)
                self.faults.setdefault(first + i, error)
            values.append(torch.as_tensor(value, device=self._device))
        dtype = reduce(torch.promote_types, (value.dtype for value in values))
        return torch.stack([value.to(dtype) for value in values])


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warning that `vmap` runs an operation member by member."""
    torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._functorch._set_vmap_fallback_warning_enabled(True)  # type: ignore[attr-defined]


def _only_smoothing(settings: Mapping[str, Any]) -> bool:
    """Whether the only setting of a loss is a `label_smoothing` that torch accepts."""
    return set(settings) <= {"label_smoothing"} and 0 <= settings.get("label_smoothing", 0.0) <= 1


def _is_plain(settings: Mapping[str, Any], outputs: Outputs, targets: Tensor, *, shared: bool) -> bool:
    """Whether outputs are (members, n, classes) and targets are class numbers, (n,) or (members, n)."""
    if not isinstance(outputs, Tensor) or targets.is_floating_point() or not _only_smoothing(settings):
        return False
    return outputs.dim() == 3 and targets.dim() == (1 if shared else 2)


def _cross_entropies(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """`F.cross_entropy` of each member, all rows in one pass."""
    members, n, _ = outputs.shape
    all_targets = targets.expand(members, n)
    rows = F.cross_entropy(
        outputs.flatten(0, 1), all_targets.reshape(-1), reduction="none", label_smoothing=label_smoothing
    )
    return rows.view(members, n).sum(dim=1) / (all_targets != _IGNORED).sum(dim=1)


def _smoothed_cross_entropy(outputs: Tensor, targets: Tensor, smoothing: Tensor) -> Tensor:
    """`F.cross_entropy` with `label_smoothing` as a tensor (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""
    logs = F.log_softmax(outputs, dim=1)
    counted = targets != _IGNORED
    spread = torch.where(counted, -logs.mean(dim=1), 0.0).sum() / counted.sum()
    return (1 - smoothing) * F.nll_loss(logs, targets) + smoothing * spread
