"""Hyperparameters over training: what everybody tried, and what made the winner."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from pbt.report.data.axes import Axis, Curve, Number, axis_of, joined, thin, thinned
from pbt.report.snapshot import RunSnapshot, SnapshotState
from pbt.space import Value

POINTS = 60_000
"""Of all panels together."""
PANELS = 12

Stretch = tuple[int, int, Value]
"""From step, to step, value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One hyperparameter. Curves are steps: a value holds until the next point."""

    axis: Axis
    members: Curve
    winner: Curve
    handovers: Curve
    """Where the winner's ancestry went over to another member."""
    first: Value
    last: Value
    """Of the winner."""
    changes: int
    """How often the winner's value changed."""
    at_bound: str
    """`lower` or `upper` where the winner's last value is a bound; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleLines:
    """Against training steps in the state."""

    panels: tuple[Panel, ...]
    note: str


def schedules(snapshot: RunSnapshot) -> ScheduleLines | None:
    """A panel per hyperparameter; None: there are none."""
    names = list(snapshot.space)
    if not names:
        return None
    shown = names[:PANELS]
    longest = max(map(len, snapshot.by_member.values()))
    members = thin(list(snapshot.by_member), max(2, POINTS // (longest * len(shown))))
    notes = [
        thinned("members' lines", len(members), len(snapshot.by_member)),
        thinned("hyperparameters", len(shown), len(names)),
    ]
    return ScheduleLines(
        panels=tuple(_panel(name, snapshot, members) for name in shown),
        note="; ".join(filter(None, notes)),
    )


def _panel(name: str, snapshot: RunSnapshot, members: list[int]) -> Panel:
    axis = axis_of(name, snapshot.space[name])
    won: list[Stretch] = [(link.first_step, link.last_step, link.hparams.get(name)) for link in snapshot.path]
    values = [value for _, _, value in won]
    over = [b for a, b in itertools.pairwise(snapshot.path) if a.member != b.member]
    rings = [(link.first_step, axis.place(link.hparams.get(name))) for link in over]
    pieces = [piece for member in members for piece in _steps(_stretches(snapshot.by_member[member], name), axis)]
    return Panel(
        axis=axis,
        members=joined(pieces),
        winner=joined(_steps(won, axis)),
        handovers=joined([[ring for ring in rings if ring[1] is not None]]),
        first=values[0],
        last=values[-1],
        changes=sum(a != b for a, b in itertools.pairwise(values)),
        at_bound=bound(axis, values[-1]),
    )


def bound(axis: Axis, value: Value) -> str:
    """Which bound of a number this value is; empty: none, or it is no number."""
    place = axis.place(value)
    if axis.options or place is None:
        return ""
    reach = 1e-6 * (axis.high - axis.low)
    if axis.log:
        reach = 1e-6 * place
    low, high = abs(place - axis.low) <= reach, abs(place - axis.high) <= reach
    if axis.flipped:
        low, high = high, low
    return "lower" if low else "upper" if high else ""


def _stretches(states: Iterable[SnapshotState], name: str) -> list[Stretch]:
    return [(state.first_step, state.step, state.hparams.get(name)) for state in states]


def _steps(stretches: Iterable[Stretch], axis: Axis) -> list[list[tuple[float, Number]]]:
    """Corners of a step line; a new piece wherever the steps do not join."""
    pieces: list[list[tuple[float, Number]]] = []
    end: float | None = None
    for start, stop, value in stretches:
        place = axis.place(value)
        if place is None:
            _close(pieces, end)
            end = None
            continue
        if end is None or start != end:
            _close(pieces, end)
            pieces.append([])
        if not pieces[-1] or pieces[-1][-1][1] != place:
            pieces[-1].append((start, place))
        end = stop
    _close(pieces, end)
    return pieces


def _close(pieces: list[list[tuple[float, Number]]], end: float | None) -> None:
    if end is not None:
        pieces[-1].append((end, pieces[-1][-1][1]))
