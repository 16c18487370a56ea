"""Numbers that the task reported while it trained, of all members, along the winner's ancestry, and of open rounds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pbt.core.population import StateRef
from pbt.report.data.axes import DECADES, Curve, Point, joined, thin, thinned
from pbt.report.snapshot import LiveRound, RunSnapshot
from pbt.store.points import Points

POINTS = 60_000
"""The most points of all panels together."""
PANELS = 4
"""The most numbers drawn."""

Piece = list[Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointPanel:
    """One reported number against training steps in the state; NaN and infinities are gaps."""

    name: str
    members: Curve
    winner: Curve
    live: Curve
    """Of the rounds in progress."""
    training: tuple[int | None, ...]
    """The member of each point of `live`."""
    ends: tuple[float, float] | None
    """The first and the last value along the winner's ancestry; None if it has none."""
    odd: int
    """Number of values that are NaN or infinite."""
    log: bool
    sparse: bool
    """Whether a line would be a single point, which needs a mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointLines:
    """The numbers reported during the rounds."""

    panels: tuple[PointPanel, ...]
    training: int
    """Number of rounds in progress."""
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Round:
    """A round with points."""

    ref: StateRef
    start: StateRef | None
    points: Points


def curves(snapshot: RunSnapshot) -> PointLines | None:
    """One panel per reported name; None if nothing was reported."""
    members = frozenset(snapshot.members)
    rounds = [
        _Round(ref=StateRef(*ref), start=snapshot.tree.start(*ref), points=points)
        for ref, points in sorted(snapshot.points.items())
        if ref[0] in members
    ]
    reported: list[Points] = [one.points for one in rounds] + [one.points for one in snapshot.live]
    names = list(dict.fromkeys(name for points in reported for name in points))
    if not names:
        return None
    shown = names[:PANELS]
    drawn, kept = _thinned(rounds, shown)
    notes = [
        thinned("members' lines", len({one.ref.member for one in drawn}), len({one.ref.member for one in rounds})),
        thinned("points", kept, _count(rounds, shown)),
        thinned("reported numbers", len(shown), len(names)),
    ]
    return PointLines(
        panels=tuple(_panel(name, snapshot, rounds, drawn) for name in shown),
        training=len(snapshot.live),
        note="; ".join(filter(None, notes)),
    )


def _count(rounds: Iterable[_Round], names: Sequence[str]) -> int:
    return sum(len(one.points.get(name, ())) for one in rounds for name in names)


def _thinned(rounds: Sequence[_Round], names: Sequence[str]) -> tuple[list[_Round], int]:
    """The rounds, with so few points and members that at most about `POINTS` points are drawn, and their number."""
    total = _count(rounds, names)
    share = max(2, math.floor(100 * POINTS / max(1, total)))
    if total > POINTS:
        rounds = [
            replace(one, points={name: tuple(thin(series, share)) for name, series in one.points.items()})
            for one in rounds
        ]
    members = sorted({one.ref.member for one in rounds})
    most = max(2, len(members) * POINTS // max(1, _count(rounds, names)))
    chosen = frozenset(thin(members, most))
    drawn = [one for one in rounds if one.ref.member in chosen]
    return drawn, _count(drawn, names)


def _panel(name: str, snapshot: RunSnapshot, rounds: Sequence[_Round], drawn: Sequence[_Round]) -> PointPanel:
    pieces = _pieces(drawn, name)
    winner = [
        (*point, link.state)
        for link in snapshot.path
        for point in snapshot.points.get((link.member, link.round), {}).get(name, ())
    ]
    live = [_live(one, name, snapshot) for one in snapshot.live if name in one.points]
    reported: list[Points] = [one.points for one in rounds] + [one.points for one in snapshot.live]
    every = [value for points in reported for _, value in points.get(name, ())]
    finite = [value for value in every if math.isfinite(value)]
    known = [value for _, value, _ in winner if math.isfinite(value)]
    return PointPanel(
        name=name,
        members=joined(pieces),
        winner=joined([[_finite(*point) for point in thin(winner, POINTS // PANELS)]]),
        live=joined(live),
        training=_members([one.member for one in snapshot.live if name in one.points], live),
        ends=(known[0], known[-1]) if known else None,
        odd=len(every) - len(finite),
        log=bool(finite) and min(finite) > 0 and max(finite) > DECADES * min(finite),
        sparse=any(len(piece) == 1 for piece in (*pieces, *live)),
    )


def _pieces(rounds: Iterable[_Round], name: str) -> list[Piece]:
    """The points of each member, cut where it did not continue its own state."""
    pieces: list[Piece] = []
    ends: dict[StateRef, Piece] = {}
    for one in rounds:
        series = one.points.get(name)
        if series is None:
            continue
        own = one.start is not None and one.start == (one.ref.member, one.ref.round - 1)
        piece = ends.pop(one.start, None) if own and one.start is not None else None
        if piece is None:
            pieces.append(piece := [])
        piece += [_finite(*point, one.ref) for point in series]
        ends[one.ref] = piece
    return pieces


def _live(one: LiveRound, name: str, snapshot: RunSnapshot) -> Piece:
    """The points of a round in progress, from the last point of the state that it started from."""
    before = () if one.start is None else snapshot.points.get(one.start, {}).get(name, ())[-1:]
    return [_finite(*point, None) for point in (*before, *one.points[name])]


def _members(members: Sequence[int], pieces: Sequence[Piece]) -> tuple[int | None, ...]:
    """The member of each point of the joined pieces."""
    found: list[int | None] = []
    for member, piece in zip(members, pieces, strict=True):
        found += [None] * bool(found) + [member] * len(piece)
    return tuple(found)


def _finite(step: int, value: float, ref: StateRef | None) -> Point:
    return step, value if math.isfinite(value) else None, ref
