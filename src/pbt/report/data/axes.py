"""Parts shared by several figures: curves with gaps, thinning, quantiles, ticks, and axes of hyperparameters."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pbt.core.population import StateRef
from pbt.domains import Choice, Domain
from pbt.values import Value, typed

Item = TypeVar("Item")
Number = float | None
Point = tuple[float, Number, StateRef | None]
"""Coordinates, and the state that the point stands for."""
STEPS_TITLE = "training steps in the state (lineage steps)"
DECADES = 100.0
"""Values that span a larger factor get a logarithmic axis."""
FEW_LEVELS, SPREAD = 8, 0.4
"""Lines on at most this many whole values are spread over this share of the distance between two."""
FEW_COUNTS = 6
"""An axis of whole numbers over at most this range has a tick at each of them."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Points joined by a line; None in both coordinates is a gap."""

    x: tuple[Number, ...] = ()
    y: tuple[Number, ...] = ()
    refs: tuple[StateRef | None, ...] = field(default=(), compare=False)
    """The state of each point; empty if the points stand for no states."""

    def __len__(self) -> int:
        return len(self.x)


def joined(pieces: Iterable[Sequence[Point]]) -> Curve:
    """One curve from several pieces, with gaps between them."""
    x: list[Number] = []
    y: list[Number] = []
    refs: list[StateRef | None] = []
    for piece in pieces:
        if x and piece:
            x.append(None)
            y.append(None)
            refs.append(None)
        for position, value, ref in piece:
            x.append(position)
            y.append(value)
            refs.append(ref)
    return Curve(tuple(x), tuple(y), tuple(refs) if any(refs) else ())


def spread(curve: Curve) -> Curve:
    """Values of members on few levels, each member a little beside the others, so that equal ones are seen.

    Curves on more than `FEW_LEVELS` values, or on fractions, are returned unchanged.
    """
    levels = {value for value in curve.y if value is not None}
    members = sorted({ref.member for ref in curve.refs if ref is not None})
    if len(members) < 2 or len(levels) > FEW_LEVELS or any(value != int(value) for value in levels):
        return curve
    shift = {member: SPREAD * (rank / (len(members) - 1) - 0.5) for rank, member in enumerate(members)}
    y = (v if v is None or ref is None else v + shift[ref.member] for v, ref in zip(curve.y, curve.refs, strict=True))
    return Curve(curve.x, tuple(y), curve.refs)


def thin(items: Sequence[Item], limit: int) -> list[Item]:
    """At most `limit` of the items, evenly spaced, including the first and the last."""
    if len(items) <= limit:
        return list(items)
    gap = (len(items) - 1) / (limit - 1)
    return [items[round(i * gap)] for i in range(limit)]


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile of ascending values, interpolated between neighbors."""
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def thinned(items: str, shown: int, total: int) -> str:
    """A note such as `500 of 900 rounds`; empty if all items are drawn."""
    return "" if shown >= total else f"{shown:,} of {total:,} {items}"


def is_few(counts: Iterable[Number]) -> bool:
    """Whether an axis over these whole numbers needs a tick at each, because automatic ticks may be fractions."""
    known = [count for count in counts if count is not None]
    return max(known, default=0) - min(known, default=0) <= FEW_COUNTS


def extent(values: Iterable[Number], *, log: bool) -> tuple[float, float]:
    """The range of these values with a margin of 6 %; in decades for a logarithmic axis."""
    known = [math.log10(value) if log else value for value in values if value is not None and (not log or value > 0)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = 0.06 * (high - low) or (0.1 if log else 0.05 * abs(low) or 0.5)
    return low - room, high + room


def log_ticks(low: float, high: float) -> list[float]:
    """Tick values of a logarithmic axis over this range in decades: whole decades, or 1, 2 and 5 times each."""
    first, last = math.floor(low), math.ceil(high)
    inside = [k for k in range(first, last + 1) if low <= k <= high]
    if len(inside) >= 3:
        return [10.0**k for k in inside[:: -(-len(inside) // 6)]]
    ticks = [part * 10.0**k for k in range(first, last + 1) for part in (1, 2, 5)]
    ticks = [value for value in ticks if low <= math.log10(value) <= high]
    return ticks if len(ticks) >= 3 else _even_ticks(10**low, 10**high)


def _even_ticks(low: float, high: float) -> list[float]:
    """Round numbers at equal distances."""
    size = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(part * size for part in (5, 2, 1) if part * size <= (high - low) / 3)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """How a hyperparameter is drawn."""

    name: str
    title: str
    log: bool = False
    flipped: bool = False
    """Draw 1 - value, with the smallest on top."""
    options: tuple[Value, ...] = ()
    """For a choice, the options at 0, 1, 2, ..."""
    low: float
    """The lower bound, as drawn."""
    high: float
    """The upper bound, as drawn."""

    def place(self, value: Value) -> Number:
        """The coordinate of a value; None if it has none."""
        if self.options:
            # Compared with their types, because 1 == True but they are different options.
            keys = list(map(typed, self.options))
            return keys.index(typed(value)) if typed(value) in keys else None
        if not isinstance(value, (int, float)):
            return None
        return 1 - value if self.flipped else value


def axis_of(name: str, domain: Domain) -> Axis:
    """The axis for a domain; logarithmic for logarithmic scales and for ranges over more than two decades."""
    if isinstance(domain, Choice):
        return Axis(name=name, title=name, options=domain.options, low=0, high=len(domain.options) - 1)
    if domain.scale == "one_minus_log":
        return Axis(name=name, title=f"1 − {name}", log=True, flipped=True, low=1 - domain.high, high=1 - domain.low)  # noqa: RUF001 (a minus sign)
    # A range over many orders of magnitude needs a logarithmic axis, even with a linear scale.
    log = domain.scale == "log" or (domain.low > 0 and domain.high > DECADES * domain.low)
    return Axis(name=name, title=name, log=log, low=domain.low, high=domain.high)
