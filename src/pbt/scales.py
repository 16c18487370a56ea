"""The scales of numeric hyperparameters: how far apart two values are."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

Scale = Literal["linear", "log", "one_minus_log"]

FORWARD: Mapping[Scale, Callable[[float], float]] = {
    "linear": float,
    "log": math.log,
    "one_minus_log": lambda value: -math.log1p(-value),
}
BACK: Mapping[Scale, Callable[[float], float]] = {
    "linear": float,
    "log": math.exp,
    "one_minus_log": lambda value: -math.expm1(-value),
}
LIMITS: Mapping[Scale, tuple[float, float]] = {
    "linear": (-math.inf, math.inf),
    "log": (0.0, math.inf),
    "one_minus_log": (-math.inf, 1.0),
}
"""The open interval in which a scale is defined."""


def clamp(value: float, low: float, high: float) -> float:
    """The nearest value between the bounds."""
    return min(max(value, low), high)


def shifted(value: float, by: float, bounds: tuple[float, float], scale: Scale) -> float:
    """`value` moved by a fraction of the range, measured in the scale; the nearer bound if that leaves the range."""
    forward = FORWARD[scale]
    start, stop = forward(bounds[0]), forward(bounds[1])
    target = forward(value) + by * (stop - start)
    # Checked before the inverse, because the exponential overflows far outside the range.
    if not start < target < stop:
        return bounds[target >= stop]
    return BACK[scale](target)
