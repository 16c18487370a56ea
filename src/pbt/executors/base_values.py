"""Change the base value of an optimizer setting, and rescale everything derived from it.

The base value of a setting is the one that the optimizer was built with, before any scheduler changed it. A scheduler
derives the current value from it, and stores numbers of the same unit: `initial_lr`, `base_lrs`, bounds such as
`max_lr` or `eta_min`. When the base value changes, all of them are multiplied by new/old, so the schedule continues
in the same phase at the new scale; when it does not change, nothing is touched. Parameter groups keep their ratios.

This module does not import torch: an optimizer is any object with `param_groups` and `defaults`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pbt.errors import TaskError, nearest
from pbt.values import Value

MARK = "pbt_base"
"""The key in a parameter group that records `[base value, ratio]` per setting: the group's own base value is their
product. It is part of the optimizer's state, so that a loaded state tells which base value its numbers stand for."""

KIND = "class"
"""The entry of a mark for the optimizer's class, which may depend on hyperparameters."""

_GROUP_KEYS = ("initial_{}", "base_{}", "max_{}", "min_{}", "swa_{}")
_ATTRIBUTES = ("base_{}s", "max_{}s", "min_{}s", "_last_{}", "base_{}", "max_{}", "min_{}", "default_min_{}")
_LR_ATTRIBUTES = ("eta_min", "base_values", "lr_min", "warmup_lr_init")
"""Learning-rate bounds with names of their own: torch's cosine schedulers, and timm's."""


class Number(NamedTuple):
    """A number in the unit of a setting: an entry of a group, or an attribute of a scheduler."""

    holder: Any
    key: str
    element: int | None = None
    """Index of the element if the entry is a list or tuple."""

    def _whole(self) -> Any:
        return self.holder[self.key] if isinstance(self.holder, dict) else getattr(self.holder, self.key)

    def get(self) -> Any:
        """The current number, possibly a zero-dimensional tensor."""
        whole = self._whole()
        return whole if self.element is None else whole[self.element]

    def set(self, number: Any) -> None:
        """Write the number; tensors are filled in place, because a captured graph may hold them."""
        current = self.get()
        if hasattr(current, "fill_"):
            current.fill_(number)
            return
        if self.element is not None:
            whole = self._whole()
            number = type(whole)([*whole[: self.element], number, *whole[self.element + 1 :]])
        if isinstance(self.holder, dict):
            self.holder[self.key] = number
        else:
            setattr(self.holder, self.key, number)


class Written(NamedTuple):
    """A number that was set, to be read back."""

    number: Number
    value: Value
    """The requested base value."""
    expected: Any

    def in_effect(self) -> Any:
        """The base value that the number stands for now: `value`, unless other code changed the number since."""
        held = self.number.get()
        current = plain(held)
        if not is_number(current) or not is_number(self.expected) or not is_number(self.value):
            return self.value if current == self.expected else current
        # A tensor stores the number in its own precision.
        if math.isclose(current, self.expected, rel_tol=1e-6 if hasattr(held, "fill_") else 1e-9, abs_tol=1e-12):
            return self.value
        return float(self.value) * current / self.expected if self.expected else current  # type: ignore[arg-type]


def plain(value: Any) -> Any:
    """A tensor of one number as that number; other values unchanged."""
    return value.item() if hasattr(value, "fill_") and hasattr(value, "item") else value


def is_number(value: Any) -> bool:
    """Whether `value` is an int or a float and not a boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def as_float(value: Any) -> float | None:
    """A number, or an array or tensor of one number, as a float; None: it is another kind of value."""
    found = value.tolist() if hasattr(value, "tolist") else value
    while isinstance(found, list) and found is not value and len(found) == 1:
        found = found[0]
    if isinstance(found, (str, bytes, bytearray, bool)):
        return None
    try:
        return float(found)
    except (TypeError, ValueError, OverflowError):
        return None


def chosen_groups(optimizer: Any, group: int | str | None, what: str) -> list[int]:
    """The indices of the parameter groups selected by `group`: all (None), an index, or a group's `name` entry.

    Raises:
        TaskError: There is no such group.
    """
    groups = optimizer.param_groups
    if group is None:
        return list(range(len(groups)))
    if isinstance(group, int) and 0 <= group < len(groups):
        return [group]
    names = [str(each["name"]) for each in groups if "name" in each]
    indices = [i for i, each in enumerate(groups) if each.get("name") == group]
    if not indices:
        known = f"groups 0 .. {len(groups) - 1}" + (f", named {', '.join(names)}" if names else ", none of them named")
        raise TaskError(f"{what}: expected a parameter group of the optimizer, got group={group!r}; it has {known}")
    return indices


def built_base(
    defaults: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    setting: str,
    index: int | None,
    *,
    cycled: bool = False,
) -> Any:
    """The base value of a setting in an optimizer as built.

    It is the default of the optimizer, or, if every group has a value of its own, the first one that is not 0.

    Args:
        defaults: The optimizer's `defaults`.
        groups: Its parameter groups, or a selection of them.
        setting: Name of the setting.
        index: Index into a setting of several values, such as `betas`; None: the setting is one value.
        cycled: Whether a scheduler has overwritten the values of the groups; only the default is left then.
    """
    values = [as_built(group, setting, index) for group in groups]
    default = _entry(defaults, setting, index) if setting in defaults else None
    if default is not None and (cycled or default in values):
        return default
    # With 0 everywhere the base is 0 too: otherwise all groups would keep 0, whatever the value.
    return next((value for value in values if value), values[0])


def is_cycled(schedulers: Iterable[Any]) -> bool:
    """Whether a scheduler cycles between bounds of its own, as `OneCycleLR` and `CyclicLR` do."""
    return any(
        hasattr(one, "max_lrs") or any("max_lr" in group for group in one.optimizer.param_groups)
        for one in each_scheduler(schedulers)
        if hasattr(one, "optimizer")
    )


def mark(optimizer: Any, kind: str, *, cycled: bool = False) -> None:
    """Record the base value of every numeric setting of an optimizer as built, and its class."""
    groups = optimizer.param_groups
    for group in groups:
        group[MARK] = {**group.get(MARK, {}), KIND: kind}
        for setting, held in list(group.items()):
            if setting in ("params", MARK) or any(setting == form.format("lr") for form in _GROUP_KEYS):
                continue
            parts = enumerate(held) if isinstance(held, (tuple, list)) else [(None, held)]
            for index, part in parts:
                if is_number(plain(part)) and all(setting in other for other in groups):
                    base = built_base(optimizer.defaults, groups, setting, index, cycled=cycled)
                    key = setting if index is None else f"{setting}.{index}"
                    group[MARK][key] = [base, ratio_of(as_built(group, setting, index), base, groups, setting, index)]


def has_entry(group: Mapping[str, Any], setting: str, index: int | None) -> bool:
    """Whether a group has this setting, with enough values for the index."""
    if index is None:
        return setting in group
    return isinstance(group.get(setting), (tuple, list)) and index < len(group[setting])


def as_built(group: Mapping[str, Any], setting: str, index: int | None) -> Any:
    """A group's setting before a scheduler changed it, as far as known."""
    return plain(group["initial_lr"]) if setting == "lr" and "initial_lr" in group else _entry(group, setting, index)


def _entry(group: Mapping[str, Any], setting: str, index: int | None) -> Any:
    value = group[setting] if index is None else group[setting][index]
    return plain(value)


def rebase(  # noqa: PLR0913 (one call for every form of task; all but the first three by name)
    optimizer: Any,
    setting: str,
    value: Value,
    *,
    index: int | None = None,
    groups: Sequence[int] | None = None,
    schedulers: Iterable[Any] = (),
    base: Any = None,
    ratios: Sequence[Any] | None = None,
    what: str = "",
) -> list[Written]:
    """Set the base value of an optimizer setting.

    Args:
        optimizer: Any `torch.optim.Optimizer`.
        setting: A key of its parameter groups, such as `"lr"`.
        value: The new base value.
        index: Index into a setting of several values, such as `betas`.
        groups: Indices of the parameter groups; None: all.
        schedulers: The schedulers of this optimizer; nested schedulers are found.
        base: The base value as built, for groups without a mark; None: inferred from the optimizer.
        ratios: By group, its setting in units of the base value as built; None: as marked, or inferred.
        what: The call, for error messages.

    Returns:
        Every number that was set or confirmed, to be read back.

    Raises:
        TaskError: The optimizer has no such setting, or a number is expected and the value is none.
    """
    chosen = list(range(len(optimizer.param_groups))) if groups is None else list(groups)
    selected = [optimizer.param_groups[position] for position in chosen]
    _check(selected, setting, index, value, what or f"optimizer({setting!r})")
    key = setting if index is None else f"{setting}.{index}"
    if base is None:
        base = built_base(optimizer.defaults, selected, setting, index, cycled=is_cycled(schedulers))
    marks = [group.get(MARK, {}).get(key) for group in selected]
    shared = next((mark[0] for mark in marks if mark is not None), base)
    every = list(each_scheduler(schedulers))
    numbers: list[tuple[Number, Any]] = []
    for i, (position, group, mark) in enumerate(zip(chosen, selected, marks, strict=True)):
        old, before = mark or (shared, ratio_of(as_built(group, setting, index), shared, selected, setting, index))
        ratio = before if ratios is None else ratios[i]
        group[MARK] = {**group.get(MARK, {}), key: [value, ratio]}
        move = _Move(_times(old, before), _times(value, ratio))
        numbers.append((number := Number(group, setting, index), move.own(plain(number.get()))))
        derived = [
            *_derived(group, setting, index),
            *(n for s in every for n in _scheduled(s, setting, index, position)),
        ]
        numbers += [(number, move.derived(plain(number.get()))) for number in derived]
    if selected and len(chosen) == len(optimizer.param_groups):
        move = _Move((marks[0] or (shared,))[0], value)
        alike = [number for scheduler in every for number in _scheduled(scheduler, setting, index, None)]
        numbers += [(number, move.derived(plain(number.get()))) for number in alike]
        # For groups that are added during training.
        _set_default(optimizer, setting, index, value)
        optimizer.defaults[MARK] = {**optimizer.defaults.get(MARK, {}), key: [value, 1]}
    # All numbers are read before one is written: two schedulers may hold the same tensor.
    for number, new in numbers:
        if plain(number.get()) != new:
            number.set(new)
    return [Written(number, value, new) for number, new in numbers]


class _Move(NamedTuple):
    """A change of base value."""

    old: Any
    new: Any

    def own(self, current: Any) -> Any:
        """The new value of the setting itself."""
        if not all(map(is_number, (current, *self))) or (current == self.old != self.new):
            return self.new
        return current if self.old == self.new else current * (self.new / self.old) if self.old else self.new

    def derived(self, current: Any) -> Any:
        """The new value of a number derived by a scheduler; unchanged if it was derived from 0."""
        return self.own(current) if all(map(is_number, self)) and self.old else current


def _times(base: Any, ratio: Any) -> Any:
    return base * ratio if is_number(base) and ratio != 1 else base


def _check(groups: Sequence[Mapping[str, Any]], setting: str, index: int | None, value: Value, what: str) -> None:
    if not groups or any(setting not in group for group in groups):
        known = sorted({name for group in groups for name in group if name not in ("params", MARK)})
        raise TaskError(f"{what}: no such optimizer setting{nearest(setting, known)}")
    for group in groups:
        if not has_entry(group, setting, index):
            raise TaskError(f"{what}: index {index} is out of range: {setting!r} is {group[setting]!r}")
        if is_number(_entry(group, setting, index)) and not is_number(value):
            raise TaskError(f"{what}: expected a number, got {value!r}")


def ratio_of(current: Any, base: Any, groups: Sequence[Mapping[str, Any]], setting: str, index: int | None) -> Any:
    """A group's setting in units of the base value; 1 for every group if all of them are at 0."""
    if not is_number(current) or not is_number(base):
        return 1
    if base:
        return 1 if current == base else current / base
    return 0 if not current and any(_entry(group, setting, index) for group in groups) else 1


def _derived(group: dict[str, Any], setting: str, index: int | None) -> Iterator[Number]:
    for form in _GROUP_KEYS if not index else ():
        key = form.format(_cycled_name(setting, index))
        if key in group and is_number(plain(group[key])):
            yield Number(group, key)


def _scheduled(scheduler: Any, setting: str, index: int | None, position: int | None) -> Iterator[Number]:
    """Numbers of a scheduler in the unit of a setting: those of one group, or (None) those shared by all groups."""
    if index:
        return
    names = [form.format(_cycled_name(setting, index)) for form in _ATTRIBUTES]
    for name in (*names, *(_LR_ATTRIBUTES if setting == "lr" else ())):
        held = getattr(scheduler, name, None)
        if position is None:
            if is_number(plain(held)):
                yield Number(scheduler, name)
        elif isinstance(held, (list, tuple)) and position < len(held) and is_number(plain(held[position])):
            yield Number(scheduler, name, position)


def _cycled_name(setting: str, index: int | None) -> str:
    # Torch's cyclic schedulers store the first beta as momentum.
    return "momentum" if setting == "betas" and index == 0 else setting


def each_scheduler(schedulers: Iterable[Any]) -> Iterator[Any]:
    """The schedulers, including nested ones."""
    for scheduler in schedulers:
        yield scheduler
        yield from each_scheduler(getattr(scheduler, "_schedulers", ()))


def _set_default(optimizer: Any, setting: str, index: int | None, value: Value) -> None:
    if setting not in optimizer.defaults or hasattr(optimizer.defaults[setting], "fill_"):
        return
    if index is None:
        optimizer.defaults[setting] = value
    else:
        values = list(optimizer.defaults[setting])
        values[index] = value
        optimizer.defaults[setting] = tuple(values)


def same(expected: Any, actual: Any) -> bool:
    """Whether a value read back equals the one that was set, up to rounding."""
    if is_number(expected) and is_number(actual):
        return math.isclose(expected, actual, rel_tol=1e-9, abs_tol=1e-12)
    return bool(expected == actual)
