"""The parts that a worker trains in a round, and their optimizers' settings as built."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from pbt.executors.base_values import (
    MARK,
    Written,
    as_built,
    built_base,
    chosen_groups,
    has_entry,
    is_cycled,
    is_number,
    mark,
    plain,
    ratio_of,
    rebase,
)
from pbt.values import Value

if TYPE_CHECKING:
    from pbt.pytorch.bind import OptimizerBinding


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The settings of an optimizer as built."""

    kind: str
    """The qualified name of its class."""
    defaults: Mapping[str, Any]
    groups: Sequence[Mapping[str, Any]]
    """Its parameter groups, without the parameters."""
    cycled: bool
    """Whether a scheduler has overwritten the initial settings of the groups."""

    @classmethod
    def of(cls, optimizer: Optimizer, schedulers: Iterable[Any] = ()) -> "Built":
        """The settings of a new optimizer with its schedulers."""
        kind = type(optimizer)
        return cls(
            kind=f"{kind.__module__}.{kind.__qualname__}",
            defaults=copied(optimizer.defaults),
            groups=[copied(group) for group in optimizer.param_groups],
            cycled=is_cycled(schedulers),
        )

    def unit(self, setting: str, index: int | None, places: Sequence[int]) -> tuple[Any, dict[int, Any]]:
        """The base value of a setting over some groups, and the ratio of each group's setting to it.

        None and an empty dictionary if the optimizer was built without the setting or the groups.
        """
        own = {place: self.groups[place] for place in places if place < len(self.groups)}
        if not own or any(not has_entry(group, setting, index) for group in own.values()):
            return None, {}
        groups = list(own.values())
        base = built_base(self.defaults, groups, setting, index, cycled=self.cycled)
        return base, {
            place: ratio_of(as_built(one, setting, index), base, groups, setting, index) for place, one in own.items()
        }

    def rebase(
        self, live: "Live", name: str, to: "OptimizerBinding", value: Value, among: Sequence[int] | None = None
    ) -> list[Written]:
        """Set the base value of a setting; the groups keep the ratios they were built with.

        Args:
            live: The parts.
            name: Name of the optimizer.
            to: The setting and its groups.
            value: The new base value.
            among: The groups that share a base value; None: the groups of `to`.
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
        """The base value of groups without a mark: as built, or scaled as in a loaded state without marks."""
        for place in places:
            if is_number(base) and place < len(self.groups):
                before = as_built(self.groups[place], setting, index)
                now = as_built(optimizer.param_groups[place], setting, index)
                if before and is_number(before) and is_number(now):
                    return base if now == before else base * (now / before)
        return base


def copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of settings without the parameters, with tensors as plain numbers."""
    return {name: plain(value) for name, value in settings.items() if name not in ("params", MARK)}


@dataclass(slots=True, kw_only=True)
class Live:
    """The parts that a worker trains, and their settings.

    Construct it before a state is loaded: it reads the base values of optimizer settings from the parts as built.
    """

    parts: Mapping[str, Any]
    """Modules, optimizers and other objects with `state_dict` and `load_state_dict`, by name."""
    scratch: frozenset[str] = frozenset()
    """The names of parts that are neither saved nor copied between members."""
    loss: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the loss."""
    augment: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the augmentation."""
    settings: dict[str, Any] = field(default_factory=dict)
    """`clip_norm`, `batch_size`, `accumulate` and `ema` of a `SupervisedTask`; None: off."""
    marked: bool = False
    """Whether every setting of an optimizer is marked with its value as built."""
    built: Mapping[str, Built] = field(init=False)
    """The settings of each optimizer as built, by name."""
    written: dict[Any, list[Written]] = field(init=False, default_factory=dict)
    """The numbers that each binding last wrote."""

    def __post_init__(self) -> None:
        optimizers = {name: part for name, part in self.parts.items() if isinstance(part, Optimizer)}
        self.built = {name: Built.of(part, self.schedulers(part)) for name, part in optimizers.items()}
        for name, built in self.built.items() if self.marked else ():
            mark(self.parts[name], built.kind, cycled=built.cycled)

    @property
    def stateful(self) -> dict[str, Any]:
        """The parts that are saved and copied between members."""
        return {name: part for name, part in self.parts.items() if name not in self.scratch}

    def of(self, kind: type[Any]) -> Iterator[Any]:
        """The parts of a type."""
        return (part for part in self.parts.values() if isinstance(part, kind))

    def schedulers(self, optimizer: Optimizer) -> list[Any]:
        """The schedulers of an optimizer."""
        return [part for part in self.parts.values() if getattr(part, "optimizer", None) is optimizer]
