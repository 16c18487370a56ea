"""Where a hyperparameter takes effect: a small table from names to places in a live network and optimizer.

After a state was loaded the table is applied and read back. A loaded optimizer state brings the donor's learning
rate with it, and what was decided must win over what was restored.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from pbt.errors import TaskError, nearest
from pbt.pytorch.noise import KeyedDropout
from pbt.space import HParams, Value


@dataclass(slots=True, kw_only=True)
class Live:
    """What a worker holds of a task: the parts that are trained, and the settings they are trained with."""

    parts: Mapping[str, Any]
    """Modules, optimizers and whatever else has `state_dict` and `load_state_dict`, by name."""
    loss: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the loss."""
    clip_norm: float | None = None
    """Gradients are scaled down to this norm where theirs is larger."""

    def of(self, kind: type[Any]) -> Iterator[Any]:
        """The parts of a kind."""
        return (part for part in self.parts.values() if isinstance(part, kind))


class Binding(Protocol):
    """One row of the table."""

    def apply(self, live: Live, value: Value) -> None:
        """Make the value take effect; TaskError if there is nothing it could act on."""

    def read(self, live: Live) -> list[Value]:
        """The values in effect, one per place; empty if that cannot be told."""


@dataclass(frozen=True, slots=True)
class OptimizerBinding:
    """A setting of every parameter group, such as `lr`, `weight_decay` or, with an index, one of the `betas`."""

    setting: str
    index: int | None = None
    part: str | None = None

    def apply(self, live: Live, value: Value) -> None:
        """Set it in every group, and in what a learning-rate scheduler remembers of it."""
        for group in self._groups(live):
            if self.index is None:
                group[self.setting] = value
            else:
                values = list(group[self.setting])
                values[self.index] = value
                group[self.setting] = tuple(values)
            if self.setting == "lr" and "initial_lr" in group:
                group["initial_lr"] = value
        for scheduler in self._schedulers(live):
            scheduler.base_lrs = [value for _ in scheduler.base_lrs]

    def read(self, live: Live) -> list[Value]:
        """The value in each group, and in what a learning-rate scheduler remembers of it."""
        groups = self._groups(live)
        if self.index is not None:
            return [group[self.setting][self.index] for group in groups]
        remembered = [group["initial_lr"] for group in groups if self.setting == "lr" and "initial_lr" in group]
        rates = [rate for scheduler in self._schedulers(live) for rate in scheduler.base_lrs]
        return [*(group[self.setting] for group in groups), *remembered, *rates]

    def _schedulers(self, live: Live) -> list[Any]:
        """What schedules the learning rate of these optimizers, also inside of another scheduler."""
        if self.setting != "lr":
            return []
        optimizers = self._optimizers(live)
        schedulers = [scheduler for part in live.parts.values() for scheduler in _with_inner(part)]
        return [s for s in schedulers if hasattr(s, "base_lrs") and any(s.optimizer is o for o in optimizers)]

    def _optimizers(self, live: Live) -> list[Optimizer]:
        named = {name: part for name, part in live.parts.items() if isinstance(part, Optimizer)}
        if self.part is not None and self.part not in named:
            raise TaskError(f"optimizer(part={self.part!r}): no such optimizer{nearest(self.part, named)}")
        return list(named.values()) if self.part is None else [named[self.part]]

    def _groups(self, live: Live) -> list[dict[str, Any]]:
        groups = [group for optimizer in self._optimizers(live) for group in optimizer.param_groups]
        if not groups or any(self.setting not in group for group in groups):
            known = sorted({name for group in groups for name in group if name != "params"})
            raise TaskError(f"optimizer({self.setting!r}): no such optimizer setting{nearest(self.setting, known)}")
        if self.index is not None and any(self.index >= len(group[self.setting]) for group in groups):
            raise TaskError(f"optimizer({self.setting!r}, index={self.index}): there are not so many values")
        return groups


@dataclass(frozen=True, slots=True)
class DropoutBinding:
    """The probability of every dropout layer: of dropping or, with `keep`, of keeping."""

    keep: bool = False

    def apply(self, live: Live, value: Value) -> None:
        """Set it in every layer."""
        layers = self._layers(live)
        if not layers:
            raise TaskError("dropout(): the network has no dropout layer that the hyperparameter could act on")
        for layer in layers:
            layer.p = self._turn(value)

    def read(self, live: Live) -> list[Value]:
        """The value in each layer."""
        return [self._turn(layer.p) for layer in self._layers(live)]

    def _turn(self, value: Value) -> float:
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise TaskError(f"dropout(): expected a probability from 0 to 1, got {value!r}")
        return 1 - value if self.keep else float(value)

    def _layers(self, live: Live) -> list[KeyedDropout]:
        modules = (module for part in live.of(nn.Module) for module in part.modules())
        return [module for module in modules if isinstance(module, KeyedDropout)]


@dataclass(frozen=True, slots=True)
class LossBinding:
    """A keyword argument of the loss, such as `label_smoothing`."""

    argument: str

    def apply(self, live: Live, value: Value) -> None:
        """Pass it from now on."""
        live.loss[self.argument] = value

    def read(self, live: Live) -> list[Value]:
        """What is passed."""
        return [live.loss[self.argument]]


@dataclass(frozen=True, slots=True)
class ClipBinding:
    """The norm that gradients are clipped to."""

    def apply(self, live: Live, value: Value) -> None:
        """Clip to it from now on."""
        if not isinstance(value, (int, float)) or not value > 0:
            raise TaskError(f"clip_norm(): expected a norm above 0, got {value!r}")
        live.clip_norm = float(value)

    def read(self, live: Live) -> list[Value]:
        """The norm in effect."""
        return [] if live.clip_norm is None else [live.clip_norm]


@dataclass(frozen=True, slots=True)
class AttributeBinding:
    """An attribute of a part, by its path: `attribute("model.temperature")`."""

    path: str

    def apply(self, live: Live, value: Value) -> None:
        """Set it."""
        owner, name = self._owner(live)
        setattr(owner, name, value)

    def read(self, live: Live) -> list[Value]:
        """What it is."""
        owner, name = self._owner(live)
        return [getattr(owner, name)]

    def _owner(self, live: Live) -> tuple[Any, str]:
        first, *names = self.path.split(".")
        last = names.pop() if names else ""
        owner = live.parts.get(first)
        for name in names:
            owner = getattr(owner, name, None)
        if owner is None or not hasattr(owner, last):
            raise TaskError(f"attribute({self.path!r}): there is no such attribute of a part")
        return owner, last


@dataclass(frozen=True, slots=True)
class ArgumentBinding:
    """Nothing to set: the task reads the value from `hparams` itself."""

    def apply(self, live: Live, value: Value) -> None:
        """Nothing."""

    def read(self, live: Live) -> list[Value]:  # noqa: ARG002
        """Cannot be told."""
        return []


def _with_inner(part: Any) -> Iterator[Any]:
    yield part
    for inner in getattr(part, "_schedulers", ()):
        yield from _with_inner(inner)


def optimizer(setting: str, *, index: int | None = None, part: str | None = None) -> OptimizerBinding:
    """Binds to an optimizer setting: `optimizer("lr")`, `optimizer("betas", index=0)`."""
    return OptimizerBinding(setting, index, part)


def dropout(*, keep: bool = False) -> DropoutBinding:
    """Binds to the dropout probability, or with `keep=True` to the probability of keeping."""
    return DropoutBinding(keep)


def loss(argument: str) -> LossBinding:
    """Binds to a keyword argument of the loss: `loss("label_smoothing")`."""
    return LossBinding(argument)


def clip_norm() -> ClipBinding:
    """Binds to the norm that a `SupervisedTask` clips gradients to."""
    return ClipBinding()


def attribute(path: str) -> AttributeBinding:
    """Binds to an attribute of a part: `attribute("model.temperature")`."""
    return AttributeBinding(path)


def argument() -> ArgumentBinding:
    """Declares that the task reads the value itself, from the `hparams` it is given."""
    return ArgumentBinding()


def check_bound(names: Iterable[str], bind: Mapping[str, Binding]) -> None:
    """Raise TaskError for a hyperparameter that nothing is bound to, and that would therefore change nothing."""
    for name in names:
        if name not in bind:
            raise TaskError(
                f"the hyperparameter '{name}' has no effect: nothing is bound to it{nearest(name, bind)}; "
                f"bind it, as in bind={{'{name}': optimizer('lr')}}"
            )


def bind_all(live: Live, hparams: HParams, bind: Mapping[str, Binding]) -> None:
    """Make all values take effect, and read them back.

    Raises:
        TaskError: A value has nothing to act on, or is not in effect after it was set.
    """
    for name, value in hparams.items():
        bind[name].apply(live, value)
    # Read only after all were set: one binding must not undo another.
    for name, value in hparams.items():
        for found in bind[name].read(live):
            if not _same(value, found):
                raise TaskError(f"the hyperparameter '{name}' should be {value!r} after a hand-over, but is {found!r}")


def _same(wanted: Value, found: Value) -> bool:
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        return math.isclose(wanted, found, rel_tol=1e-9, abs_tol=1e-12)
    return wanted == found
