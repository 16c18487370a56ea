"""What several pictures need: curves with gaps, thinning, quantiles, and axes for hyperparameters."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pbt.space import Choice, Domain, Value

Item = TypeVar("Item")
Number = float | None
DECADES = 100.0
"""Values over a wider factor are drawn by their order of magnitude."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Points to be joined; None in both is a gap."""

    x: tuple[Number, ...] = ()
    y: tuple[Number, ...] = ()

    def __len__(self) -> int:
        return len(self.x)


def joined(pieces: Iterable[Sequence[tuple[float, Number]]]) -> Curve:
    """Several pieces as one curve, with gaps between them."""
    x: list[Number] = []
    y: list[Number] = []
    for piece in pieces:
        if x and piece:
            x.append(None)
            y.append(None)
        for place, value in piece:
            x.append(place)
            y.append(value)
    return Curve(tuple(x), tuple(y))


def thin(items: Sequence[Item], limit: int) -> list[Item]:
    """At most `limit` of them, evenly spaced, the first and the last included."""
    if len(items) <= limit:
        return list(items)
    gap = (len(items) - 1) / (limit - 1)
    return [items[round(i * gap)] for i in range(limit)]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of values in ascending order, interpolated between neighbors."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def thinned(what: str, shown: int, there: int) -> str:
    """What to say where not everything is drawn; empty where it is."""
    return "" if shown >= there else f"{shown:,} of {there:,} {what}"


def extent(values: Iterable[Number], *, log: bool) -> tuple[float, float]:
    """A range with a little room around these values; in decades where the axis is logarithmic."""
    known = [math.log10(value) if log else value for value in values if value is not None and (not log or value > 0)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = 0.06 * (high - low) or (0.1 if log else 0.05 * abs(low) or 0.5)
    return low - room, high + room


def log_ticks(low: float, high: float) -> list[float]:
    """Values to be named on a logarithmic axis over this range in decades: whole decades, or 1, 2, 5 of each."""
    first, last = math.floor(low), math.ceil(high)
    inside = [k for k in range(first, last + 1) if low <= k <= high]
    if len(inside) >= 3:
        return [10.0**k for k in inside[:: -(-len(inside) // 6)]]
    found = [part * 10.0**k for k in range(first, last + 1) for part in (1, 2, 5)]
    found = [value for value in found if low <= math.log10(value) <= high]
    return found if len(found) >= 3 else _even_ticks(10**low, 10**high)


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
    """The distance from one is drawn, the smallest on top."""
    options: tuple[Value, ...] = ()
    """Of a choice: the value at 0, 1, 2, ..."""
    low: float
    high: float
    """The bounds, as drawn."""

    def place(self, value: Value) -> Number:
        """Where a value is drawn; None: nowhere."""
        if self.options:
            # By type too: 1 == True, but they are different options.
            keys = [(type(option), option) for option in self.options]
            return keys.index((type(value), value)) if (type(value), value) in keys else None
        if not isinstance(value, (int, float)):
            return None
        return 1 - value if self.flipped else value


def axis_of(name: str, domain: Domain) -> Axis:
    """How a hyperparameter of this domain is drawn: by its order of magnitude where it acts so."""
    if isinstance(domain, Choice):
        return Axis(name=name, title=name, options=domain.options, low=0, high=len(domain.options) - 1)
    if domain.scale == "one_minus_log":
        return Axis(name=name, title=f"1 − {name}", log=True, flipped=True, low=1 - domain.high, high=1 - domain.low)  # noqa: RUF001 (a minus sign)
    # A range over many orders of magnitude is meant so, even where it is drawn from evenly.
    log = domain.scale == "log" or (domain.low > 0 and domain.high > DECADES * domain.low)
    return Axis(name=name, title=name, log=log, low=domain.low, high=domain.high)
