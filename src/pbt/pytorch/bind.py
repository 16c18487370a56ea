"""Where a hyperparameter takes effect: a small table from names to places in a live network and optimizer.

After a state was loaded the table is applied and read back. A loaded optimizer state brings the donor's learning
rate with it, and what was decided must win over what was restored.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from pbt.errors import TaskError, nearest
from pbt.executors.base_values import (
    KIND,
    MARK,
    Written,
    as_built,
    built_base,
    chosen_groups,
    has_entry,
    is_number,
    mark,
    plain,
    ratio_of,
    rebase,
    same,
)
from pbt.executors.worker import Context
from pbt.pytorch.noise import KeyedDropout
from pbt.space import HParams, Value

SETTINGS: Mapping[str, Callable[[Any], bool]] = {
    "clip_norm": lambda value: value > 0,
    "batch_size": lambda value: type(value) is int and value >= 1,
    "accumulate": lambda value: type(value) is int and value >= 1,
    "ema": lambda value: 0 <= value < 1,
}
"""Settings of a `SupervisedTask` that a hyperparameter may be bound to, and what each may be."""
_ALLOWED = {
    "clip_norm": "a norm above 0",
    "batch_size": "a whole number of at least 1",
    "accumulate": "a whole number of at least 1",
    "ema": "a decay from 0 to below 1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The settings of an optimizer as it was built."""

    kind: str
    """Its class."""
    defaults: Mapping[str, Any]
    groups: Sequence[Mapping[str, Any]]
    """Its parameter groups, without the parameters."""

    @classmethod
    def of(cls, optimizer: Optimizer) -> "Built":
        """Of an optimizer that was built just now."""
        kind = type(optimizer)
        return cls(
            kind=f"{kind.__module__}.{kind.__qualname__}",
            defaults=copied(optimizer.defaults),
            groups=[copied(group) for group in optimizer.param_groups],
        )

    def unit(self, setting: str, index: int | None, places: Sequence[int]) -> tuple[Any, dict[int, Any]]:
        """The base value of a setting over some groups, and by group what its setting is in units of it.

        None and nothing where the optimizer was built without it, or without these groups.
        """
        own = {place: self.groups[place] for place in places if place < len(self.groups)}
        if not own or any(not has_entry(group, setting, index) for group in own.values()):
            return None, {}
        groups = list(own.values())
        base = built_base(self.defaults, groups, setting, index)
        return base, {
            place: ratio_of(as_built(one, setting, index), base, groups, setting, index) for place, one in own.items()
        }

    def rebase(
        self, live: "Live", name: str, to: "OptimizerBinding", value: Value, among: Sequence[int] | None = None
    ) -> list[Written]:
        """Make the value the base value of a setting, with the ratios between the groups as built.

        Args:
            live: The parts.
            name: Name of the optimizer.
            to: The setting and its groups.
            value: The new base value.
            among: The groups that have one base value; None: those of the setting.
        """
        optimizer = live.parts[name]
        places = chosen_groups(optimizer, to.group, str(to))
        base, units = self.unit(to.setting, to.index, places if among is None else among)
        whole = all(place in units for place in places)
        return rebase(
            optimizer,
            to.setting,
            value,
            index=to.index,
            groups=places,
            schedulers=live.schedulers(optimizer),
            base=self._loaded(optimizer, base, to.setting, to.index, places),
            ratios=[units[place] for place in places] if whole else None,
            what=str(to),
        )

    def _loaded(self, optimizer: Optimizer, base: Any, setting: str, index: int | None, places: Sequence[int]) -> Any:
        """The base value of groups without a mark: as built, or as a state says that was loaded without one."""
        for place in places:
            if is_number(base) and place < len(self.groups):
                before = as_built(self.groups[place], setting, index)
                now = as_built(optimizer.param_groups[place], setting, index)
                if before and is_number(before) and is_number(now):
                    return base if now == before else base * (now / before)
        return base


def copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the parameters, tensors as plain numbers."""
    return {name: plain(value) for name, value in settings.items() if name not in ("params", MARK)}


@dataclass(slots=True, kw_only=True)
class Live:
    """The parts that a worker trains, and the settings they are trained with.

    Made of parts as they were built, before a state is loaded: base values of optimizer settings are read here.
    """

    parts: Mapping[str, Any]
    """Modules, optimizers and whatever else has `state_dict` and `load_state_dict`, by name."""
    scratch: frozenset[str] = frozenset()
    """The names of parts that are neither saved nor handed over."""
    loss: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the loss."""
    augment: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the augmentation."""
    settings: dict[str, Any] = field(default_factory=dict)
    """`clip_norm`, `batch_size`, `accumulate` and `ema` of a `SupervisedTask`; None: off."""
    marked: bool = False
    """Whether every setting of an optimizer is marked with what `build` made it."""
    built: Mapping[str, Built] = field(init=False)
    """Each optimizer's settings as built."""
    written: dict[Any, list[Written]] = field(init=False, default_factory=dict)
    """By binding, the numbers that it set last."""

    def __post_init__(self) -> None:
        self.built = {name: Built.of(part) for name, part in self.parts.items() if isinstance(part, Optimizer)}
        for name, built in self.built.items() if self.marked else ():
            mark(self.parts[name], built.kind)

    @property
    def stateful(self) -> dict[str, Any]:
        """The parts that are saved and handed over."""
        return {name: part for name, part in self.parts.items() if name not in self.scratch}

    def of(self, kind: type[Any]) -> Iterator[Any]:
        """The parts of a kind."""
        return (part for part in self.parts.values() if isinstance(part, kind))

    def schedulers(self, optimizer: Optimizer) -> list[Any]:
        """The parts that schedule this optimizer."""
        return [part for part in self.parts.values() if getattr(part, "optimizer", None) is optimizer]


class Binding(Protocol):
    """One row of the table."""

    def apply(self, live: Live, value: Value) -> None:
        """Make the value take effect; TaskError if there is nothing it could act on."""

    def read(self, live: Live) -> list[Value]:
        """The values in effect, one per place; empty if that cannot be told."""


@dataclass(frozen=True, slots=True)
class OptimizerBinding:
    """The base value of an optimizer setting: `lr`, `weight_decay` or, with an index, one of the `betas`.

    All parameter groups are scaled by one factor, so that the ratios between them stay; a group at 0 stays at 0.
    What a scheduler derives from the value is scaled too, and the scheduler keeps its phase.
    """

    setting: str
    index: int | None = None
    part: str | None = None
    group: int | str | None = None

    def apply(self, live: Live, value: Value) -> None:
        """Make it the base value of every group that is meant, and remember the numbers that were set."""
        written: list[Written] = []
        for name, part in self._optimizers(live).items():
            built = live.built.get(name) or Built.of(part)
            written += built.rebase(live, name, self, value)
        live.written[self] = written

    def read(self, live: Live) -> list[Value]:
        """The base value that each group, and each number a scheduler keeps of it, stands for."""
        return [number.in_effect() for number in live.written.get(self, ())]

    def places(self, live: Live) -> set[tuple[str, int, str, int | None]]:
        """What it sets: part, group, setting and index."""
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
class AugmentBinding:
    """A keyword argument of the augmentation, such as its strength."""

    argument: str

    def apply(self, live: Live, value: Value) -> None:
        """Pass it from now on."""
        live.augment[self.argument] = value

    def read(self, live: Live) -> list[Value]:
        """What is passed."""
        return [live.augment[self.argument]]


@dataclass(frozen=True, slots=True)
class SettingBinding:
    """A setting of a `SupervisedTask`: one of `SETTINGS`."""

    name: str

    def apply(self, live: Live, value: Value) -> None:
        """Train with it from now on."""
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
        """Set it; a buffer is filled in place."""
        owner, name = self._owner(live)
        current = getattr(owner, name)
        if isinstance(current, nn.Parameter):
            raise TaskError(f"attribute({self.path!r}): expected an attribute, got a parameter, which is trained")
        if isinstance(current, Tensor):
            current.fill_(value)  # type: ignore[arg-type]
        else:
            setattr(owner, name, value)

    def read(self, live: Live) -> list[Value]:
        """The value it has; of a buffer in the buffer's precision."""
        owner, name = self._owner(live)
        found = getattr(owner, name)
        return found.flatten().tolist() if isinstance(found, Tensor) else [found]

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


def optimizer(
    setting: str, *, index: int | None = None, part: str | None = None, group: int | str | None = None
) -> OptimizerBinding:
    """Bind to an optimizer setting: `optimizer("lr")`, `optimizer("betas", index=0)`, `optimizer("lr", group=1)`.

    The hyperparameter is the *base value*: what the optimizer would be built with, before any scheduler changes it.
    Where it changes, the setting of every parameter group is multiplied by new/old, so that groups keep their ratios
    and a group at 0 (no weight decay) stays at 0; so is everything that a scheduler among the parts derives from it
    (`initial_lr`, `base_lrs`, and bounds such as `max_lr`, `min_lrs` or `eta_min`). The scheduler keeps its phase.
    Where the hyperparameter does not change, nothing is touched.

    Args:
        setting: A key of the optimizer's parameter groups.
        index: Which of several values, as in `betas`.
        part: Name of the optimizer among the parts; None: every optimizer.
        group: One parameter group, by its number or by its entry `name`; None: all groups. A bound that all groups of
            a scheduler share (`eta_min`) moves only where all groups do.
    """
    return OptimizerBinding(setting, index, part, group)


def dropout(*, keep: bool = False) -> DropoutBinding:
    """Binds to the dropout probability, or with `keep=True` to the probability of keeping."""
    return DropoutBinding(keep)


def loss(argument: str) -> LossBinding:
    """Binds to a keyword argument of the loss: `loss("label_smoothing")`."""
    return LossBinding(argument)


def clip_norm() -> SettingBinding:
    """Bind to the norm that a `SupervisedTask` clips gradients to; a number above 0."""
    return SettingBinding("clip_norm")


def batch_size() -> SettingBinding:
    """Bind to the examples per step of a `SupervisedTask`; a whole number of at least 1."""
    return SettingBinding("batch_size")


def accumulate() -> SettingBinding:
    """Bind to the batches whose gradients a `SupervisedTask` accumulates in a step; a whole number of at least 1."""
    return SettingBinding("accumulate")


def ema() -> SettingBinding:
    """Bind to the decay of a `SupervisedTask`'s averaged weights, from 0 to below 1."""
    return SettingBinding("ema")


def augment(argument: str) -> AugmentBinding:
    """Bind to a keyword argument of the augmentation: `augment("strength")`."""
    return AugmentBinding(argument)


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


def check_disjoint(names: Iterable[str], live: Live, bind: Mapping[str, Binding]) -> None:
    """Raise TaskError if two hyperparameters set the same optimizer setting."""
    taken: dict[Any, str] = {}
    for name in names:
        binding = bind[name]
        for place in binding.places(live) if isinstance(binding, OptimizerBinding) else ():
            if place in taken:
                raise TaskError(
                    f"the hyperparameters '{taken[place]}' and '{name}' are both bound to '{place[2]}' of parameter "
                    f"group {place[1]} of '{place[0]}'; bind each group once, as in optimizer({place[2]!r}, group=0)"
                )
            taken[place] = name


def bind_all(live: Live, hparams: HParams, bind: Mapping[str, Binding], ctx: Context | None = None) -> None:
    """Make all values take effect, and read them back.

    Args:
        live: The parts, with the state they start from.
        hparams: The values.
        bind: Where each takes effect.
        ctx: The round; the names that were read back are recorded in it.

    Raises:
        TaskError: A value has nothing to act on, or is not in effect after it was set.
    """
    _release(live, [bind[name] for name in hparams])
    for name, value in hparams.items():
        bind[name].apply(live, value)
    # Read only after all were set: one binding must not undo another.
    for name, value in hparams.items():
        found = bind[name].read(live)
        for one in found:
            if not same(value, one):
                raise TaskError(f"the hyperparameter '{name}' should be {value!r} after a hand-over, but is {one!r}")
        if found and ctx is not None:
            ctx.checked.add(name)


def _release(live: Live, bindings: Sequence[Binding]) -> None:
    """Give marked settings that no value is bound to what `build` made of them for this member.

    The donor may have had a conditional hyperparameter that this member has not, or its optimizer may have been built
    with another value of a hyperparameter that `build` reads.
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
