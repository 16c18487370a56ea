"""What a round gained, as the rows of a table, and as a Gaussian process sees them.

A process wants numbers of about one: hyperparameters as shares of their ranges, scores and times as shares of what was
seen, gains in units of their deviation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pbt.core.population import Member
from pbt.core.rng import Rng
from pbt.space import Choice, Float, HParams, Int, Scale, Space, Value
from pbt.strategies.surrogate import Points

ABSENT = 0.5
"""Where the process sees a number that does not exist beside the other values."""
_FORWARD: Mapping[Scale, Callable[[float], float]] = {
    "linear": float,
    "log": math.log,
    "one_minus_log": lambda value: -math.log1p(-value),
}


Bounds = tuple[float, float]
"""What is 0 and what is 1."""


class GainRow(NamedTuple):
    """What one round of one member showed; in the memory a list."""

    round: int
    before: float
    """The score of the state that the round started from."""
    gain: float
    values: tuple[Value, ...]
    """In the order of the space; None for a name that did not exist."""


def points(rows: Sequence[GainRow], space: Space, compared: Sequence[str], times: Bounds, scores: Bounds) -> Points:
    """The rows as a process sees them.

    Args:
        rows: The rows, or one that is to be filled.
        space: What their values are.
        compared: The choices that the kernel compares.
        times: The bounds of rounds.
        scores: The bounds of scores.
    """
    real = [(i, domain) for i, domain in enumerate(space.values()) if not isinstance(domain, Choice)]
    kinds = [(i, d) for i, (name, d) in enumerate(space.items()) if isinstance(d, Choice) and name in compared]
    return Points(
        [_scaled(row.round, times) for row in rows],
        [[_scaled(row.before, scores), *(_place(row.values[i], domain) for i, domain in real)] for row in rows],
        [[option(domain, row.values[i]) for i, domain in kinds] for row in rows] if kinds else (),
    )


def standardized(values: Sequence[float]) -> list[float]:
    """In units of their standard deviation around their mean, clipped to -2 .. 2."""
    # Of the largest value, so that no square overflows: a score may be 1e200.
    unit = max(1.0, *map(abs, values))
    mean = math.fsum(value / unit for value in values) / len(values)
    deviation = math.sqrt(math.fsum((value / unit - mean) ** 2 for value in values) / len(values)) + 1e-8 / unit
    return [min(max((value / unit - mean) / deviation, -2.0), 2.0) for value in values]


def share(domain: Float | Int, value: Any) -> float:
    """Where a value is in its range, 0 .. 1, measured in its scale."""
    forward = _FORWARD[domain.scale]
    start = forward(domain.low)
    return (forward(value) - start) / (forward(domain.high) - start)


def at_share(domain: Float | Int, place: float) -> float | int:
    """The value at a share of the range: the inverse of `share`, rounded where it must be whole."""
    # As a Float, because an Int always moves, and zero is to be its low end.
    real = Float(domain.low, domain.high, domain.scale)
    return domain.clip(real.shift(real.low, place, Rng("unused")))


def numbers(space: Space) -> dict[str, Float | Int]:
    """The names that a process can model."""
    return {name: domain for name, domain in space.items() if not isinstance(domain, Choice)}


def choices(space: Space) -> dict[str, Choice]:
    """The names that a bandit can."""
    return {name: domain for name, domain in space.items() if isinstance(domain, Choice)}


def option(domain: Choice, value: Value) -> int:
    """Which option a value is; -1 where the name does not exist."""
    # By type too: 1 == True, but they are different options.
    kinds = [(type(item), item) for item in domain.options]
    return kinds.index((type(value), value)) if (type(value), value) in kinds else -1


def observed(member: Member, opened: Any, space: Space) -> GainRow | None:
    """What the member's last round showed, if it came to an end and began with a score."""
    round_, before = opened.get(str(member.id), (None, 0.0))
    if not member.healthy or member.inherited or round_ != member.round or not math.isfinite(member.score - before):
        return None
    return row_of(member.round, before, member.hparams, space, member.score - before)


def row_of(round_: int, before: float, hparams: HParams, space: Space, gain: float = 0.0) -> GainRow:
    """A round as a row; without a gain where it is still to come."""
    return GainRow(round_, before, gain, tuple(hparams.get(name) for name in space))


def _scaled(value: float, bounds: Bounds) -> float:
    # Halves, because the distance between two scores may be more than a float can hold.
    low, high = bounds[0] / 2, bounds[1] / 2
    return (value / 2 - low) / max(high - low, 0.5e-8)


def _place(value: Any, domain: Float | Int) -> float:
    return ABSENT if value is None else share(domain, value)
