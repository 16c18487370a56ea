"""Trust regions over numbers and choices, and the search inside one.

As in BG-PBT (Wan et al. 2022, arXiv 2207.09405), after CASMOPOLITAN (Wan et al. 2021, arXiv 2102.07188) and TuRBO
(Eriksson et al. 2019, arXiv 1910.01339).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pbt.strategies.ascent import climb
from pbt.strategies.surrogate import POINT_STEPS, Points, Worth, along, tensors

if TYPE_CHECKING:
    from torch import Tensor

NUMBERS = (0.15, 0.4, 1.0)
"""The least, first and greatest side of a region, as a share of the range of a number (BG-PBT)."""
CHOICES = (0.1, 1.0, 1.0)
"""The same as a share of the choices that may differ from the center (BG-PBT)."""
SUCCESSES = 3
"""Successes in a row after which a region grows (TuRBO, BG-PBT)."""
FAILURES = 10
"""Failures in a row after which a region shrinks (BG-PBT)."""
FACTOR = 1.5
"""The factor of growing and shrinking (BG-PBT)."""
TURNS = 3
"""The most turns of a search by numbers and one by choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The size of a trust region, and what decides on its next size; an entry of the strategy's memory."""

    numbers: float = NUMBERS[1]
    choices: float = CHOICES[1]
    successes: int = 0
    failures: int = 0
    restarts: int = 0

    def after(self, success: bool) -> "Region":
        """The region after another round: one that is already smallest and would shrink starts again."""
        if success:
            counted = replace(self, successes=self.successes + 1, failures=0)
            return counted._scaled(FACTOR) if counted.successes >= SUCCESSES else counted
        counted = replace(self, successes=0, failures=self.failures + 1)
        if counted.failures < FAILURES:
            return counted
        if self.numbers <= NUMBERS[0] + 1e-9:
            return Region(restarts=self.restarts + 1)
        return counted._scaled(1 / FACTOR)

    def _scaled(self, factor: float) -> "Region":
        return Region(
            numbers=min(max(self.numbers * factor, NUMBERS[0]), NUMBERS[2]),
            choices=min(max(self.choices * factor, CHOICES[0]), CHOICES[2]),
            restarts=self.restarts,
        )

    def radius(self, count: int) -> int:
        """How many of this many choices may differ from the center; at least one, so that none is fixed."""
        return max(1, math.ceil(self.choices * count - 1e-9)) if count else 0

    def interval(self, center: float) -> tuple[float, float]:
        """The part of a range around this position that belongs to the region."""
        return max(0.0, center - self.numbers / 2), min(1.0, center + self.numbers / 2)


def search(
    worth: Worth,
    here: Points,
    intervals: Mapping[int, tuple[float, float]],
    options: Sequence[int],
    radius: int,
    starts: Sequence[Sequence[float]],
) -> tuple[dict[int, float], list[int]]:
    """The best point of a region: ascent by the numbers in turn with local search by the choices.

    Args:
        worth: The height of candidates.
        here: One row: the center.
        intervals: The interval of each column to optimize.
        options: The number of options of each choice; 1 for one that is not to change.
        radius: The most choices that may differ from the center.
        starts: The starting points, as positions in the intervals.

    Returns:
        The best position, 0 .. 1, by column, and the best option by choice.
    """
    import torch

    times, places, kinds = tensors(Points(*([*part] * len(starts) for part in here)))
    center, columns = here.kinds[0] if here.kinds else [], list(intervals)
    low, high = (torch.tensor([intervals[c][i] for c in columns], dtype=torch.float64) for i in (0, 1))
    free = torch.tensor([[*start] for start in starts], dtype=torch.float64)
    heights = torch.full((len(starts),), -math.inf, dtype=torch.float64)
    for _ in range(TURNS):
        if columns:
            objective = along(worth, times, places, kinds, columns)

            def scaled(share: "Tensor", objective: Any = objective) -> tuple["Tensor", "Tensor"]:
                height, gradient = objective(low + share * (high - low))
                return height, gradient * (high - low)

            free, heights = climb(scaled, free, POINT_STEPS)
            places[:, columns] = low + free * (high - low)
        if kinds is None:
            break
        before = kinds.clone()
        for row in range(len(starts)):
            kinds[row], heights[row] = _stepped(worth, (times[row], places[row], kinds[row]), center, options, radius)
        if torch.equal(before, kinds):
            break
    best = int(heights.argmax())
    chosen = [] if kinds is None else [int(kind) for kind in kinds[best].tolist()]
    return {column: float(places[best, column]) for column in columns}, chosen


def _stepped(
    worth: Worth,
    point: tuple["Tensor", "Tensor", "Tensor"],
    center: Sequence[int],
    options: Sequence[int],
    radius: int,
) -> tuple["Tensor", "Tensor"]:
    """Change one choice after another, each time the best single change, until none is better."""
    import torch

    time, place, kinds = point
    height = worth(time[None], place[None], kinds[None])[0]
    while True:
        changes = [(i, option) for i, count in enumerate(options) for option in range(count) if option != int(kinds[i])]
        all_near = [_changed(kinds, i, option) for i, option in changes]
        near = [kind for kind in all_near if sum(a != b for a, b in zip(kind, center, strict=True)) <= radius]
        if not near:
            return kinds, height
        tried = torch.tensor(near, dtype=torch.float64)
        heights = worth(time.expand(len(near)), place.expand(len(near), -1), tried)
        best = int(heights.argmax())
        if not heights[best] > height:
            return kinds, height
        kinds, height = tried[best], heights[best]


def _changed(kinds: "Tensor", place: int, option: int) -> list[float]:
    return [float(option) if i == place else float(kind) for i, kind in enumerate(kinds.tolist())]
