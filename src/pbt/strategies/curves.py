"""Comparison of two training curves: which improves faster, and how certain that is. Pure functions of numbers.

The comparison of FIRE PBT (Dalibard & Jaderberg 2021, arXiv 2109.13800): curves are aligned where they reach the same
value, not at the same step, so that their rates of improvement from there are compared. Unlike in the paper, curves are
not smoothed by a Gaussian process first, which makes no difference for curves without noise.
"""

import math
from collections.abc import Sequence

Curve = Sequence[float]

_SHIFTS = 10
"""The number of steps into which a gap between two curves is divided."""


def overlap(one: Curve, other: Curve) -> tuple[Curve, Curve] | None:
    """The comparable parts of two curves: equally long, from a common value on.

    The curve that starts lower loses its beginning, up to its first point that is at least the other curve's first
    point. None if there is no such point, or if a curve is empty.
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
    """The difference of the maxima of two curves where they overlap; positive if `one` is better.

    If all of `one` lies above `other`, it is lowered by several amounts until they overlap, and the result is the
    largest difference, at least 0. Otherwise, without an overlap, 0.
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
    """The p-value of a one-sided sign test that `one` is better than `other`, point by point.

    Without an overlap: 0 if all of `one` lies above, 2 if all of it lies below; otherwise the curves are compared from
    their first points.
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
    """P(X >= wins) for a binomial X of `points` trials with probability one half."""
    ways = sum(math.comb(points, k) for k in range(wins, points + 1))
    return ways / (1 << points)


def points_needed(p: float) -> int:
    """The fewest points of which winning all has a probability below `p`: 7 for 0.01."""
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
