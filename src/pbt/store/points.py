"""The points of a round: numbers that a task reports while it trains, by name and training step, bounded in number."""

import math
import re
from collections.abc import Mapping
from typing import Any

Points = Mapping[str, tuple[tuple[int, float], ...]]
"""`(step, value)` pairs by name, in ascending steps; values may be NaN or infinite."""

KEPT = 100
"""The most points of a name and round that are kept."""
HELD = 2 * KEPT
"""The most points of a name that are held during the round."""
NAMES = 64
"""The most names of a round."""
LAST_STEP = 2**63 - 1
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]{0,63}")


class PointBuffer:
    """The points of one name, thinned as they arrive: the first, the last, and a regular choice between them."""

    def __init__(self) -> None:
        self._points: list[tuple[int, float]] = []
        self._count = 0
        self._every = 1
        self.last: tuple[int, float] | None = None

    def add(self, step: int, value: float) -> None:
        """Add a point; with more than `HELD` of them every second one is dropped, now and in future."""
        self.last = step, value
        if self._count % self._every == 0:
            self._points.append(self.last)
            if len(self._points) > HELD:
                del self._points[1::2]
                self._every *= 2
        self._count += 1

    def points(self) -> tuple[tuple[int, float], ...]:
        """At most `KEPT` points in ascending steps, the first and the last among them."""
        points = list(self._points)
        if self.last is not None and points[-1] is not self.last:
            points.append(self.last)
        every = -(-(len(points) - 1) // (KEPT - 1))
        if every > 1:
            points = [*points[:-1:every], points[-1]]
        return tuple(sorted(points, key=lambda point: point[0]))


def to_plain(points: Points) -> dict[str, Any]:
    """Points as plain values: `{name: {"step": [...], "value": [...]}}`."""
    return {
        name: {"step": [step for step, _ in series], "value": [value for _, value in series]}
        for name, series in points.items()
    }


def from_plain(plain: object) -> Points:
    """The points that `to_plain` converted; what is not of this form, or beyond its bounds, is left out."""
    if not isinstance(plain, Mapping):
        return {}
    found = {}
    for name, columns in list(plain.items())[:NAMES]:
        if isinstance(name, str) and NAME.fullmatch(name) and isinstance(columns, Mapping):
            steps, values = columns.get("step"), columns.get("value")
            if isinstance(steps, list) and isinstance(values, list):
                pairs = [_pair(step, value) for step, value in zip(steps[:KEPT], values[:KEPT], strict=False)]
                found[name] = tuple(pair for pair in pairs if pair is not None)
    return {name: series for name, series in found.items() if series}


def _pair(step: object, value: object) -> tuple[int, float] | None:
    if type(step) is not int or not 0 <= step <= LAST_STEP or type(value) not in (int, float):
        return None
    try:
        return step, float(value)  # type: ignore[arg-type]
    except OverflowError:
        return step, math.inf
