"""Shares of the population by initial member (founder), over time."""

from collections import Counter
from dataclasses import dataclass

from pbt.report.data.axes import thin, thinned
from pbt.report.snapshot import Generation, RunSnapshot

GENERATIONS = 300
"""The most rounds drawn."""
NAMED = 24
"""The most founders with an area of their own; the others share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FounderShare:
    """The share of one founder over time."""

    founder: int | None
    """None for all other founders together."""
    parts: tuple[float, ...]
    """Shares from 0 to 1, per step."""

    @property
    def widest(self) -> int:
        """The index of the step at which the share is largest."""
        return max(range(len(self.parts)), key=lambda i: self.parts[i])


@dataclass(frozen=True, slots=True, kw_only=True)
class FounderShares:
    """Shares of the population by founder, against training steps in the state, in the order of the tree."""

    steps: tuple[int, ...]
    shares: tuple[FounderShare, ...]
    others: int
    """Number of founders that share one area."""
    alive: tuple[int, ...]
    """Number of founders with descendants, per step."""
    winner: int | None
    """The founder of the best state."""
    began: int
    """Number of founders at the start."""
    left: tuple[int, ...]
    """Founders of the living states, the most frequent first."""
    taken_over: tuple[int, int] | None
    """Round and step from which on all members descend from one founder; None if that never happened."""
    note: str


def founders(snapshot: RunSnapshot) -> FounderShares | None:
    """The shares of all founders; None for a single member."""
    if len(snapshot.members) < 2:
        return None
    generations = thin(snapshot.generations, GENERATIONS)
    counts = [_count(generation) for generation in generations]
    total: Counter[int] = Counter()
    for count in counts:
        total.update(count)
    # Surviving founders first, then those with descendants for longest.
    ranked = sorted(total, key=lambda founder: (-counts[-1][founder], -total[founder], founder))
    named, rest = sorted(ranked[:NAMED]), ranked[NAMED:]
    shares = [_share(founder, [founder], counts) for founder in named]
    if rest:
        shares.append(_share(None, rest, counts))
    notes = [
        thinned("rounds", len(generations), len(snapshot.generations)),
        thinned("founders drawn as separate areas", len(named), len(total)),
    ]
    left = Counter(snapshot.states[ref].founder for ref in snapshot.living)
    return FounderShares(
        steps=tuple(generation.step for generation in generations),
        shares=tuple(shares),
        others=len(rest),
        alive=tuple(len(count) for count in counts),
        winner=snapshot.path[-1].founder if snapshot.path else None,
        began=len(total),
        left=tuple(founder for founder, _ in sorted(left.items(), key=lambda item: (-item[1], item[0]))),
        taken_over=taken_over(snapshot),
        note="; ".join(filter(None, notes)),
    )


def taken_over(snapshot: RunSnapshot) -> tuple[int, int] | None:
    """Round and step from which on all members descend from one founder; None if that never happened."""
    first: Generation | None = None
    for generation in reversed(snapshot.generations):
        if len(_count(generation)) > 1:
            break
        first = generation
    if first is None or len({state.founder for state in snapshot.counted}) < 2:
        return None
    return first.depth, first.step


def _count(generation: Generation) -> Counter[int]:
    return Counter(state.founder for state in generation.states)


def _share(founder: int | None, members: list[int], counts: list[Counter[int]]) -> FounderShare:
    parts = tuple(sum(count[member] for member in members) / count.total() for count in counts)
    return FounderShare(founder=founder, parts=parts)
