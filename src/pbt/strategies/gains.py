"""The gains of rounds as rows, and their scaling to inputs of a Gaussian process.

The process needs inputs of order one: hyperparameters are scaled to their ranges, scores and times to the observed
range, and gains to units of their standard deviation.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from pbt.core.population import Member
from pbt.core.rng import Rng
from pbt.domains import Choice, Float, Int
from pbt.scales import FORWARD
from pbt.space import HParams, Space
from pbt.strategies.surrogate import Points
from pbt.values import Value

ABSENT = 0.5
"""The input for a conditional number that is not active."""

Bounds = tuple[float, float]
"""The values scaled to 0 and to 1."""


class GainRow(NamedTuple):
    """The gain of one round of one member; a list in the strategy's memory."""

    round: int
    before: float
    """The score of the state from which the round started."""
    gain: float
    values: tuple[Value, ...]
    """Hyperparameters in the order of the space; None for an inactive one."""


def points(rows: Sequence[GainRow], space: Space, compared: Sequence[str], times: Bounds, scores: Bounds) -> Points:
    """The rows as inputs of the Gaussian process.

    Args:
        rows: The rows.
        space: The domains of their values.
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
    """The values minus their mean, in units of their standard deviation, clipped to -2 .. 2."""
    # Scaled by the largest value, so that no square overflows: a score may be 1e200.
    unit = max(1.0, *map(abs, values))
    mean = math.fsum(value / unit for value in values) / len(values)
    deviation = math.sqrt(math.fsum((value / unit - mean) ** 2 for value in values) / len(values)) + 1e-8 / unit
    return [min(max((value / unit - mean) / deviation, -2.0), 2.0) for value in values]


def share(domain: Float | Int, value: Any) -> float:
    """The position of a value in its range, 0 .. 1, in the scale of the domain."""
    forward = FORWARD[domain.scale]
    start = forward(domain.low)
    return (forward(value) - start) / (forward(domain.high) - start)


def at_share(domain: Float | Int, place: float) -> float | int:
    """The value at a position in the range: the inverse of `share`, rounded for an `Int`."""
    # Computed with a Float, because Int.shift always moves, and position 0 must be the lower bound.
    real = Float(domain.low, domain.high, domain.scale)
    return domain.clip(real.shift(real.low, place, Rng("unused")))


def numbers(space: Space) -> dict[str, Float | Int]:
    """The domains that a Gaussian process can model."""
    return {name: domain for name, domain in space.items() if not isinstance(domain, Choice)}


def choices(space: Space) -> dict[str, Choice]:
    """The domains that a bandit can choose from."""
    return {name: domain for name, domain in space.items() if isinstance(domain, Choice)}


def option(domain: Choice, value: Value) -> int:
    """The index of the option; -1 if the hyperparameter is inactive."""
    place = domain.place(value)
    return -1 if place is None else place


def observed(member: Member, opened: Any, space: Space) -> GainRow | None:
    """The row of the member's last round; None if it failed or started without a score."""
    round_, before = opened.get(str(member.id), (None, 0.0))
    if not member.healthy or member.inherited or round_ != member.round or not math.isfinite(member.score - before):
        return None
    return row_of(member.round, before, member.hparams, space, member.score - before)


def row_of(round_: int, before: float, hparams: HParams, space: Space, gain: float = 0.0) -> GainRow:
    """A round as a row; a round still to come has no gain."""
    return GainRow(round_, before, gain, tuple(hparams.get(name) for name in space))


def _scaled(value: float, bounds: Bounds) -> float:
    # Halves, so that the difference of two scores cannot overflow.
    low, high = bounds[0] / 2, bounds[1] / 2
    return (value / 2 - low) / max(high - low, 0.5e-8)


def _place(value: Any, domain: Float | Int) -> float:
    return ABSENT if value is None else share(domain, value)
