"""The family tree of a population, laid out so that no two lines cross."""

from collections.abc import Iterable
from dataclasses import dataclass

from pbt.core.events import Failed
from pbt.core.history import TrainedState
from pbt.core.population import StateRef
from pbt.report.data.axes import Curve, Point, joined, thin, thinned
from pbt.report.snapshot import RunSnapshot

GENERATIONS = 200
"""The most rounds drawn."""
EDGES = 6_000
"""The most edges of extinct branches; surviving branches are few and drawn whole."""
FAILURES = 500
"""The most failures marked."""

Place = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Lines against training steps in the state; heights, from 0 to 1, only keep relatives together."""

    dead: Curve
    """Branches without living descendants."""
    living: Curve
    """Branches with living descendants."""
    winner: Curve
    """From the birth of the best state's founder to the best state."""
    passed: tuple[str, ...]
    """The label of each point of `winner`."""
    initial: Curve
    final: Curve
    failed: Curve
    """States from which a failed round started."""
    note: str


def tree(snapshot: RunSnapshot) -> Tree | None:
    """The family tree; None for a single member."""
    if len(snapshot.members) < 2:
        return None
    places = _places(snapshot)
    kept = thin([generation.depth for generation in snapshot.generations], GENERATIONS)
    parents = _parents(snapshot, frozenset(kept))
    ancestry = {link.state for link in snapshot.path}
    dead = [ref for ref in parents if ref not in snapshot.surviving and ref not in ancestry]
    drawn = _thinned_branches(dead, parents) if len(dead) > EDGES else dead
    path = [ref for ref in parents if ref in ancestry]
    if snapshot.path and path[-1:] != [_last(snapshot)]:
        path.append(_last(snapshot))
    walk = [_birth(snapshot.states[path[0]].founder), *path] if path else []
    crosses = thin(snapshot.failures, FAILURES)
    notes = [
        thinned("rounds", len(kept), len(snapshot.generations)),
        thinned("edges of extinct branches", len(drawn), len(dead)),
        thinned("failures", len(crosses), len(snapshot.failures)),
    ]
    return Tree(
        dead=_lines(drawn, parents, places),
        living=_lines([ref for ref in parents if ref in snapshot.surviving], parents, places),
        winner=joined([[_point(ref, places) for ref in walk]]),
        passed=tuple(_label(ref, snapshot) for ref in walk),
        initial=joined([[_point(ref, places) for ref in places if ref.round == 0]]),
        final=joined([[_point(ref, places) for ref in snapshot.living]]),
        failed=joined([[_cross(failure, snapshot, places) for failure in crosses]]),
        note="; ".join(filter(None, notes)),
    )


def _point(ref: StateRef, places: dict[StateRef, Place]) -> Point:
    return (*places[ref], ref)


def _cross(failure: Failed, snapshot: RunSnapshot, places: dict[StateRef, Place]) -> Point:
    """The point of a failed round, at the state from which it started."""
    start = snapshot.tree.start(failure.member, failure.round) or _birth(failure.member)
    return (*places[start], StateRef(failure.member, failure.round))


def _last(snapshot: RunSnapshot) -> StateRef:
    return snapshot.path[-1].state


def _birth(member: int) -> StateRef:
    """The node of a member before any training; no trained state has round 0."""
    return StateRef(member, 0)


def _places(snapshot: RunSnapshot) -> dict[StateRef, Place]:
    """Coordinates of every state: its steps, and its rank among the states of its generation."""
    states = list(snapshot.states.values())
    born = [_birth(member) for member in sorted({s.member for s in states if s.start is None} | _unborn(snapshot))]
    places = {ref: (0.0, _height(rank, len(born))) for rank, ref in enumerate(born)}
    by_depth: dict[int, list[TrainedState]] = {}
    for state in states:
        by_depth.setdefault(state.depth, []).append(state)
    for depth in sorted(by_depth):
        # Sorting children by their parents is enough to keep lines from crossing.
        ordered = sorted(by_depth[depth], key=lambda state: _order(state, places))
        for rank, state in enumerate(ordered):
            places[state.state] = (state.step, _height(rank, len(ordered)))
    return places


def _unborn(snapshot: RunSnapshot) -> set[int]:
    """Members whose first round failed: they have a birth but no state."""
    return {f.member for f in snapshot.failures if snapshot.tree.start(f.member, f.round) is None}


def _order(state: TrainedState, places: dict[StateRef, Place]) -> tuple[float, bool, int]:
    parent = state.start if state.start is not None else _birth(state.member)
    return -places[parent][1], parent.member != state.member, state.member


def _height(rank: int, count: int) -> float:
    return 1 - (rank + 0.5) / count


def _parents(snapshot: RunSnapshot, kept: frozenset[int]) -> dict[StateRef, StateRef]:
    """Maps each state of a kept generation to its nearest ancestor in another kept one, or to its birth."""
    parents: dict[StateRef, StateRef] = {}
    for ref, state in snapshot.states.items():
        if state.depth not in kept:
            continue
        above = state.start
        while above is not None and snapshot.states[above].depth not in kept:
            above = snapshot.states[above].start
        parents[ref] = above if above is not None else _birth(state.founder)
    return parents


def _thinned_branches(dead: list[StateRef], parents: dict[StateRef, StateRef]) -> list[StateRef]:
    """The states of evenly chosen whole branches, about `EDGES` in all."""
    known = frozenset(dead)
    continued = {parents[ref] for ref in dead}
    tips = [ref for ref in dead if ref not in continued]
    chosen: set[StateRef] = set()
    for tip in thin(tips, max(2, len(tips) * EDGES // len(dead))):
        ref = tip
        while ref in known and ref not in chosen:
            chosen.add(ref)
            ref = parents[ref]
    return [ref for ref in dead if ref in chosen]


def _lines(refs: Iterable[StateRef], parents: dict[StateRef, StateRef], places: dict[StateRef, Place]) -> Curve:
    """All edges, joined into lines that are as long as possible."""
    open_ends: dict[StateRef, list[Point]] = {}
    lines: list[list[Point]] = []
    for ref in refs:
        line = open_ends.pop(parents[ref], None)
        if line is None:
            line = [_point(parents[ref], places)]
            lines.append(line)
        line.append(_point(ref, places))
        open_ends[ref] = line
    return joined(lines)


def _label(ref: StateRef, snapshot: RunSnapshot) -> str:
    if ref.round == 0:
        return f"birth of member {ref.member}"
    return f"member {ref.member} after round {ref.round}: {snapshot.score_name} {snapshot.states[ref].score:.5g}"
