"""Bindings: a table from the names of hyperparameters to their places in a live network and optimizer.

After a state is loaded, the table is applied and read back: a loaded optimizer state contains the donor's learning
rate, and decided values override restored ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from pbt.errors import TaskError, nearest
from pbt.executors.base_values import (
    KIND,
    MARK,
    Number,
    Written,
    chosen_groups,
    is_number,
    same,
)
from pbt.executors.worker import Context
from pbt.pytorch.live import Built, Live
from pbt.pytorch.noise import KeyedDropout
from pbt.space import HParams
from pbt.values import Value

SETTINGS: Mapping[str, Callable[[Any], bool]] = {
    "clip_norm": lambda value: value > 0,
    "batch_size": lambda value: type(value) is int and value >= 1,
    "accumulate": lambda value: type(value) is int and value >= 1,
    "ema": lambda value: 0 <= value < 1,
}
"""Settings of a `SupervisedTask` that a hyperparameter may be bound to, with a check of their values."""
_ALLOWED = {
    "clip_norm": "a norm above 0",
    "batch_size": "a whole number of at least 1",
    "accumulate": "a whole number of at least 1",
    "ema": "a decay from 0 to below 1",
}


class Binding(Protocol):
    """One row of the table."""

    def apply(self, live: Live, value: Value) -> None:
        """Make the value take effect; raise TaskError if its target does not exist."""

    def read(self, live: Live) -> list[Value]:
        """The values in effect, one per place; empty if they cannot be read."""


@dataclass(frozen=True, slots=True)
class OptimizerBinding:
    """The base value of an optimizer setting: `lr`, `weight_decay` or, with an index, one of the `betas`.

    All parameter groups are scaled by one factor: the ratios between them stay, and a group at 0 stays at 0. Values
    that a scheduler derives from the setting are scaled too, and the scheduler keeps its phase.
    """

    setting: str
    index: int | None = None
    part: str | None = None
    group: int | str | None = None

    def apply(self, live: Live, value: Value) -> None:
        """Set the base value of the selected groups, and record the written numbers."""
        written: list[Written] = []
        for name, part in self._optimizers(live).items():
            built = live.built.get(name) or Built.of(part, live.schedulers(part))
            written += built.rebase(live, name, self, value)
        live.written[self] = written

    def read(self, live: Live) -> list[Value]:
        """The base values in effect, from each group and from each number that a scheduler derives from it."""
        return [number.in_effect() for number in live.written.get(self, ())]

    def places(self, live: Live) -> set[tuple[str, int, str, int | None]]:
        """The places that it sets, as (part, group, setting, index)."""
        return {
            (name, place, self.setting, self.index)
            for name, part in self._optimizers(live).items()
            for place in chosen_groups(part, self.group, str(self))
        }

    def _optimizers(self, live: Live) -> dict[str, Optimizer]:
        named = {name: part for name, part in live.parts.items() if isinstance(part, Optimizer)}
        if self.part is not None and self.part not in named:
            raise TaskError(f"optimizer(part={self.part!r}): no such optimizer{nearest(self.part, named)}")
        if not named:
            raise TaskError(f"{self}: expected an optimizer among the parts, got {sorted(live.parts)}")
        return named if self.part is None else {self.part: named[self.part]}

    def __str__(self) -> str:
        options = {"index": self.index, "part": self.part, "group": self.group}
        given = "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)
        return f"optimizer({self.setting!r}{given})"


@dataclass(frozen=True, slots=True)
class DropoutBinding:
    """The drop probability of every dropout layer or, with `keep`, the keep probability."""

    keep: bool = False

    def apply(self, live: Live, value: Value) -> None:
        """Set the probability of every layer."""
        layers = self._layers(live)
        if not layers:
            raise TaskError("dropout(): expected a network with dropout layers, but it has no dropout layer")
        for layer in layers:
            layer.p = self.probability(value)

    def read(self, live: Live) -> list[Value]:
        """The value of each layer."""
        return [self.probability(layer.p) for layer in self._layers(live)]

    def probability(self, value: Value) -> float:
        """The drop probability of a value."""
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
        """Pass the value in the next calls."""
        live.loss[self.argument] = value

    def read(self, live: Live) -> list[Value]:
        """The passed value."""
        return [live.loss[self.argument]]


@dataclass(frozen=True, slots=True)
class AugmentBinding:
    """A keyword argument of the augmentation, such as its strength."""

    argument: str

    def apply(self, live: Live, value: Value) -> None:
        """Pass the value in the next calls."""
        live.augment[self.argument] = value

    def read(self, live: Live) -> list[Value]:
        """The passed value."""
        return [live.augment[self.argument]]


@dataclass(frozen=True, slots=True)
class SettingBinding:
    """A setting of a `SupervisedTask`: one of `SETTINGS`."""

    name: str

    def apply(self, live: Live, value: Value) -> None:
        """Set the value for the next steps."""
        if not is_number(value) or not SETTINGS[self.name](value):
            raise TaskError(f"{self.name}(): expected {_ALLOWED[self.name]}, got {value!r}")
        live.settings[self.name] = value

    def read(self, live: Live) -> list[Value]:
        """The value in effect."""
        return [live.settings[self.name]]


@dataclass(frozen=True, slots=True)
class AttributeBinding:
    """An attribute of a part, by its path: `attribute("model.temperature")`."""

    path: str

    def apply(self, live: Live, value: Value) -> None:
        """Set the attribute; a buffer is filled in place."""
        owner, name = self._owner(live)
        current = getattr(owner, name)
        if isinstance(current, nn.Parameter):
            raise TaskError(f"attribute({self.path!r}): expected an attribute, got a parameter, which is trained")
        if isinstance(current, Tensor) and (current.numel() != 1 or not is_number(value)):
            raise TaskError(
                f"attribute({self.path!r}): expected a buffer of one number and a number for it, got a buffer of shape "
                f"{tuple(current.shape)} and {value!r}"
            )
        number = Number(owner, name)
        number.set(value)
        live.written[self] = [Written(number, value, value)]

    def read(self, live: Live) -> list[Value]:
        """The value of the attribute."""
        return [number.in_effect() for number in live.written.get(self, ())]

    def _owner(self, live: Live) -> tuple[Any, str]:
        first, *names = self.path.split(".")
        last = names.pop() if names else ""
        owner = live.parts.get(first)
        for name in names:
            owner = getattr(owner, name, None)
        if owner is None or not hasattr(owner, last):
            raise TaskError(f"attribute({self.path!r}): no such attribute of a part")
        return owner, last


@dataclass(frozen=True, slots=True)
class ArgumentBinding:
    """No effect of its own: the task reads the value from `hparams`."""

    def apply(self, live: Live, value: Value) -> None:
        """Do nothing."""

    def read(self, live: Live) -> list[Value]:  # noqa: ARG002
        """An empty list: the value in effect is unknown."""
        return []


def optimizer(
    setting: str, *, index: int | None = None, part: str | None = None, group: int | str | None = None
) -> OptimizerBinding:
    """Bind to an optimizer setting: `optimizer("lr")`, `optimizer("betas", index=0)`, `optimizer("lr", group=1)`.

    The hyperparameter is the *base value*: the argument of the optimizer's constructor, before any scheduler changes
    it. When it changes, the setting of every parameter group is multiplied by new/old, so that groups keep their ratios
    and a group at 0 (no weight decay) stays at 0. Values that a scheduler among the parts derives from it
    (`initial_lr`, `base_lrs`, and bounds such as `max_lr`, `min_lrs` or `eta_min`) are multiplied too. The scheduler
    keeps its phase. If the hyperparameter does not change, no setting changes.

    Args:
        setting: A key of the optimizer's parameter groups.
        index: Index of the value, for a setting with several values such as `betas`.
        part: Name of the optimizer among the parts; None: every optimizer.
        group: One parameter group, by its number or by its entry `name`; None: all groups. A bound shared by all groups
            of a scheduler (`eta_min`) changes only if all groups change.
    """
    return OptimizerBinding(setting, index, part, group)


def dropout(*, keep: bool = False) -> DropoutBinding:
    """Bind to the drop probability of all dropout layers or, with `keep=True`, to their keep probability."""
    return DropoutBinding(keep)


def loss(argument: str) -> LossBinding:
    """Bind to a keyword argument of the loss: `loss("label_smoothing")`."""
    return LossBinding(argument)


def clip_norm() -> SettingBinding:
    """Bind to the maximum gradient norm of a `SupervisedTask`; a number above 0."""
    return SettingBinding("clip_norm")


def batch_size() -> SettingBinding:
    """Bind to the number of examples per step of a `SupervisedTask`; a whole number of at least 1."""
    return SettingBinding("batch_size")


def accumulate() -> SettingBinding:
    """Bind to the number of batches that a `SupervisedTask` accumulates per step; a whole number of at least 1."""
    return SettingBinding("accumulate")


def ema() -> SettingBinding:
    """Bind to the decay of the averaged weights of a `SupervisedTask`, from 0 to below 1."""
    return SettingBinding("ema")


def augment(argument: str) -> AugmentBinding:
    """Bind to a keyword argument of the augmentation: `augment("strength")`."""
    return AugmentBinding(argument)


def attribute(path: str) -> AttributeBinding:
    """Bind to an attribute of a part: `attribute("model.temperature")`."""
    return AttributeBinding(path)


def argument() -> ArgumentBinding:
    """Declare that the task reads the value from its argument `hparams`."""
    return ArgumentBinding()


def check_bound(names: Iterable[str], bind: Mapping[str, Binding]) -> None:
    """Raise TaskError for a hyperparameter without a binding, which would have no effect."""
    for name in names:
        if name not in bind:
            raise TaskError(
                f"the hyperparameter '{name}' has no effect: it is not bound{nearest(name, bind)}; "
                f"bind it, as in bind={{'{name}': optimizer('lr')}}"
            )


def check_disjoint(names: Iterable[str], live: Live, bind: Mapping[str, Binding]) -> None:
    """Raise TaskError if two hyperparameters set the same optimizer setting."""
    taken: dict[Any, str] = {}
    for name in names:
        binding = bind[name]
        for place in binding.places(live) if isinstance(binding, OptimizerBinding) else ():
            # A setting of several values is bound whole, or each of its values.
            other = next(
                (one for one in taken if one[:3] == place[:3] and (one == place or None in (one[3], place[3]))), None
            )
            if other is not None:
                raise TaskError(
                    f"the hyperparameters '{taken[other]}' and '{name}' are both bound to '{place[2]}' of parameter "
                    f"group {place[1]} of '{place[0]}'; bind each group once, as in optimizer({place[2]!r}, group=0)"
                )
            taken[place] = name


def bind_all(live: Live, hparams: HParams, bind: Mapping[str, Binding], ctx: Context | None = None) -> None:
    """Apply all bindings, and read the values back.

    Args:
        live: The parts, with their start state.
        hparams: The values.
        bind: The binding of each hyperparameter.
        ctx: The round, in which the names that were read back are recorded.

    Raises:
        TaskError: The target of a value does not exist, or the value is not in effect after it was set.
    """
    _release(live, [bind[name] for name in hparams])
    for name, value in hparams.items():
        bind[name].apply(live, value)
    # Read only after all values are set: one binding must not undo another.
    for name, value in hparams.items():
        in_effect = bind[name].read(live)
        for other in in_effect:
            if not same(value, other):
                raise TaskError(f"the hyperparameter '{name}' should be {value!r} after it was set, but is {other!r}")
        if in_effect and ctx is not None:
            ctx.checked.add(name)


def _release(live: Live, bindings: Sequence[Binding]) -> None:
    """Reset marked settings without a bound value to their values as built for this member.

    The donor may have a conditional hyperparameter that this member lacks, or `build` may have read another value of a
    hyperparameter when it made the donor's optimizer.
    """
    bound = {place for b in bindings if isinstance(b, OptimizerBinding) for place in b.places(live)}
    for name, built in live.built.items():
        part = live.parts[name]
        for place, group in enumerate(part.param_groups):
            for key in sorted(group.get(MARK, {}).keys() - {KIND}):
                setting, _, index = key.partition(".")
                binding = OptimizerBinding(setting, int(index) if index else None, name, place)
                everywhere = range(len(built.groups))
                base, _ = built.unit(setting, binding.index, everywhere)
                if (name, place, setting, binding.index) in bound or base is None or setting not in group:
                    continue
                built.rebase(live, name, binding, base, everywhere)
                if not live.marked:
                    group[MARK] = {other: mark for other, mark in group[MARK].items() if other != key}
