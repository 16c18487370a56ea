"""How two training curves compare: who improves faster, and is it sure? Pure functions of plain numbers.

The comparison of FIRE PBT (Dalibard & Jaderberg 2021, arXiv 2109.13800): curves are aligned where they reach the same
value, not at the same step, so that what counts is how fast a curve rises from there. Curves are read as they are;
the paper smooths them with a Gaussian process first, which for curves without noise changes nothing.
"""

import math
from collections.abc import Sequence

Curve = Sequence[float]

_SHIFTS = 10
"""Into how many steps a gap between two curves is divided."""


def overlap(one: Curve, other: Curve) -> tuple[Curve, Curve] | None:
    """The parts of two curves that can be compared: equally long, from a common value on.

    Of the curve that starts lower the beginning is left out, up to its first point that is no lower than the other
    curve's first one. None where it never gets there, or a curve is empty.
    """
    if not one or not other:
        return None
    if one[0] < other[0]:
        one = _from(one, other[0])
    elif other[0] < one[0]:
        other = _from(other, one[0])
    length = min(len(one), len(other))
    return (one[:length], other[:length]) if length else None


def best_difference(one: Curve, other: Curve) -> float:
    """By how much one curve comes higher than the other where they overlap; positive: one is better.

    Where every point of one lies above the other, one is let down by several amounts until they overlap, and the
    largest difference counts, at least 0. Where neither is the case, 0.
    """
    windows = overlap(one, other)
    if windows is not None:
        return max(windows[0]) - max(windows[1])
    if not _above(one, other):
        return 0.0
    low, high = min(one) - max(other), min(one) - min(other)
    if math.isclose(low, high):
        return 0.0
    return max(0.0, *(_lowered(one, low + (high - low) * i / _SHIFTS, other) for i in range(_SHIFTS)))


def chance(one: Curve, other: Curve) -> float:
    """How likely one curve would win as many points as it does, were both equally good (one-sided sign test).

    Without an overlap: 0 where all of one lies above, 2 where all of it lies below, else both are compared from
    their starts.
    """
    windows = overlap(one, other)
    if windows is None:
        if _above(one, other):
            return 0.0
        if _above(other, one):
            return 2.0
        length = min(len(one), len(other))
        windows = one[:length], other[:length]
    return sign_test(sum(a > b for a, b in zip(*windows, strict=True)), len(windows[0]))


def sign_test(wins: int, points: int) -> float:
    """P(X >= wins) for X binomial with that many points, each won with probability one half."""
    ways = sum(math.comb(points, k) for k in range(wins, points + 1))
    return ways / (1 << points)


def points_needed(p: float) -> int:
    """The fewest points of which winning all is less likely than `p`: 7 for 0.01."""
    points = 1
    while sign_test(points, points) >= p:
        points += 1
    return points


def _from(curve: Curve, level: float) -> Curve:
    start = next((i for i, value in enumerate(curve) if value >= level), len(curve))
    return curve[start:]


def _above(one: Curve, other: Curve) -> bool:
    return bool(one) and bool(other) and min(one) > max(other)


def _lowered(one: Curve, by: float, other: Curve) -> float:
    windows = overlap([value - by for value in one], other)
    return 0.0 if windows is None else max(windows[0]) - max(windows[1])
