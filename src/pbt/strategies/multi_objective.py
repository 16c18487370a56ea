"""Ranking for several objectives, `Plan(rank=pareto())`.

The ranking of MO-PBT (Dushatskiy, Chebykin, Alderliesten & Bosman 2023, arXiv 2306.01436).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pbt.core.population import Member
from pbt.errors import UsageError

Point = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pareto:
    """Ranks members by non-dominated fronts, and within a front by distance from the members ranked before.

    The members are split into non-dominated fronts. The ranking starts with the best first objective of the first
    front; then follows, front by front, the member farthest from all members ranked so far. Ties are broken by id. For
    distances every objective is scaled to the range of the healthy members, so that its unit does not matter.

    Use it if a task returns several conflicting `scores` (accuracy and speed, accuracy on clean and on attacked
    examples) and the goal is a set of trade-offs: `front(run.view.population)` is that set. Do not use it if one number
    expresses the goal: a front keeps members that no user would choose. In a small population, or with more than three
    objectives, almost all members are on the first front, and selection has little effect.

    `Plan(exploit=truncation(0.25), explore=..., rank=pareto())` is MO-PBT without its grids. `run.best` is still the
    state with the best first objective.
    """

    def __call__(self, members: Sequence[Member]) -> list[Member]:
        """Rank the members, best first; failed ones and those with a score that is not finite come last.

        Raises:
            UsageError: The members have different numbers of scores.
        """
        fronts = _fronts(members)
        measured = [member for front in fronts for member in front]
        ids = {member.id for member in measured}
        rest = sorted((member for member in members if member.id not in ids), key=lambda member: member.id)
        return [*_scattered(fronts, _scaled(measured)), *rest]


def front(members: Sequence[Member]) -> list[Member]:
    """The members that no other dominates (as good in all objectives and better in one), best first objective first.

    Raises:
        UsageError: The members have different numbers of scores.
    """
    return next(iter(_fronts(members)), [])


def _fronts(members: Sequence[Member]) -> list[list[Member]]:
    """The non-dominated fronts, best first, each sorted by scores and then by id."""
    measured = [member for member in members if member.healthy and all(map(math.isfinite, member.scores))]
    if len({len(member.scores) for member in measured}) > 1:
        counts = sorted({len(member.scores) for member in measured})
        raise UsageError(f"pareto: expected the same number of scores from every member, got {counts}")
    fronts: list[list[Member]] = []
    # In this order no member is dominated by a later one, so its front is final.
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
    """Scores by member id, each objective scaled to 0 .. 1; 0 where all are equal."""
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
    """Front by front, the member farthest from all members before it."""
    ordered: list[Member] = []
    apart = dict.fromkeys(points, math.inf)
    for level in fronts:
        left = list(level)
        while left:
            # Before the first member all distances are infinite, so the first of the front is taken.
            taken = max(left, key=lambda member: apart[member.id]) if ordered else left[0]
            left.remove(taken)
            ordered.append(taken)
            for id_, point in points.items():
                apart[id_] = min(apart[id_], math.dist(point, points[taken.id]))
    return ordered


pareto = Pareto
