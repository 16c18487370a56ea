"""Populations with more than one objective: an order of the members for `Plan(rank=pareto())`.

The order of MO-PBT (Dushatskiy, Chebykin, Alderliesten & Bosman 2023, arXiv 2306.01436).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pbt.core.population import Member
from pbt.errors import UsageError

Point = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pareto:
    """Best first: who is beaten by nobody in all objectives, and among these who is least like those before it.

    The members are split into non-dominated fronts. The order begins with the best first objective of the first
    front; then comes, front by front, whoever is farthest from everybody ordered so far. Ties go by id. Distances
    are measured with every objective scaled to the range that the healthy members span, so that the units of an
    objective do not matter.

    Use it where a task returns several `scores` that conflict (accuracy and speed, accuracy on clean and on attacked
    examples) and what is wanted is a set of trade-offs: `front(run.view.population)` is that set. Use it not where
    one number says what is wanted: a front keeps members that no user would choose. In a small population, or
    with more than three objectives, almost everybody is on the first front, and selection hardly presses.

    `Plan(exploit=truncation(0.25), explore=..., rank=pareto())` is MO-PBT but for its grids. `run.best` is still the
    best first objective.
    """

    def __call__(self, members: Sequence[Member]) -> list[Member]:
        """The members, best first; what failed or has a score that is no finite number last.

        Raises:
            UsageError: Members have different numbers of scores.
        """
        fronts = _fronts(members)
        measured = [member for front in fronts for member in front]
        ids = {member.id for member in measured}
        rest = sorted((member for member in members if member.id not in ids), key=lambda member: member.id)
        return [*_scattered(fronts, _scaled(measured)), *rest]


def front(members: Sequence[Member]) -> list[Member]:
    """The members that no other beats: as good in every objective and better in one; best first objective first.

    Raises:
        UsageError: Members have different numbers of scores.
    """
    return next(iter(_fronts(members)), [])


def _fronts(members: Sequence[Member]) -> list[list[Member]]:
    """Non-dominated fronts, the best first, each by its scores and then by id."""
    measured = [member for member in members if member.healthy and all(map(math.isfinite, member.scores))]
    if len({len(member.scores) for member in measured}) > 1:
        counts = sorted({len(member.scores) for member in measured})
        raise UsageError(f"pareto: expected the same number of scores from every member, got {counts}")
    fronts: list[list[Member]] = []
    # In this order nobody is dominated by a later one, so a member's front is known when it is met.
    for member in sorted(measured, key=lambda member: ([-score for score in member.scores], member.id)):
        for level in fronts:
            if not any(_dominates(other.scores, member.scores) for other in level):
                level.append(member)
                break
        else:
            fronts.append([member])
    return fronts


def _dominates(one: Point, other: Point) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def _scaled(members: Sequence[Member]) -> dict[int, Point]:
    """Member id to its scores, each objective from 0 to 1; 0 where all are equal."""
    columns = list(zip(*(member.scores for member in members), strict=True))
    ranges = [(min(column), max(column)) for column in columns]
    return {
        member.id: tuple(
            (score - low) / (high - low) if high > low else 0.0
            for score, (low, high) in zip(member.scores, ranges, strict=True)
        )
        for member in members
    }


def _scattered(fronts: Sequence[Sequence[Member]], points: dict[int, Point]) -> list[Member]:
    """Front by front, always whoever is farthest from everybody before it."""
    ordered: list[Member] = []
    apart = dict.fromkeys(points, math.inf)
    for level in fronts:
        left = list(level)
        while left:
            # Nobody is ordered at the very start: all are infinitely apart, and the first of the front is taken.
            taken = max(left, key=lambda member: apart[member.id]) if ordered else left[0]
            left.remove(taken)
            ordered.append(taken)
            for id_, point in points.items():
                apart[id_] = min(apart[id_], math.dist(point, points[taken.id]))
    return ordered


pareto = Pareto
