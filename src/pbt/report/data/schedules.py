"""Hyperparameters over training, of all members and along the winner's ancestry."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from pbt.core.history import TrainedState
from pbt.core.population import StateRef
from pbt.report.data.axes import Axis, Curve, Point, axis_of, joined, thin, thinned
from pbt.report.snapshot import RunSnapshot
from pbt.values import Value

POINTS = 24_000
"""The most points of all panels together."""
PANELS = 12
"""The most hyperparameters drawn."""

Interval = tuple[int, int, Value, StateRef]
"""(first step, last step, value, state at the end)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One hyperparameter, drawn as step curves: a value holds until the next point."""

    axis: Axis
    members: Curve
    winner: Curve
    handovers: Curve
    """Points where the winner's ancestry continues in another member."""
    first: Value
    """The first value along the winner's ancestry."""
    last: Value
    """The last value along the winner's ancestry."""
    changes: int
    """Number of changes along the winner's ancestry."""
    at_bound: str
    """`lower` or `upper` if the winner's last value is a bound, else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleLines:
    """Hyperparameters against training steps in the state."""

    panels: tuple[Panel, ...]
    note: str


def schedules(snapshot: RunSnapshot) -> ScheduleLines | None:
    """One panel per hyperparameter; None without hyperparameters."""
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
    ancestry: list[Interval] = _intervals(snapshot.path, name)
    values = [value for _, _, value, _ in ancestry]
    handovers = [b for a, b in itertools.pairwise(snapshot.path) if a.member != b.member]
    rings = [(link.first_step, axis.place(link.hparams.get(name)), link.state) for link in handovers]
    pieces = [piece for member in members for piece in _steps(_intervals(snapshot.by_member[member], name), axis)]
    return Panel(
        axis=axis,
        members=joined(pieces),
        winner=joined(_steps(ancestry, axis)),
        handovers=joined([[ring for ring in rings if ring[1] is not None]]),
        first=values[0],
        last=values[-1],
        changes=sum(a != b for a, b in itertools.pairwise(values)),
        at_bound=bound(axis, values[-1]),
    )


def bound(axis: Axis, value: Value) -> str:
    """`lower` or `upper` if the value is a bound; empty if it is not, or the domain is a choice."""
    place = axis.place(value)
    if axis.options or place is None:
        return ""
    tolerance = 1e-6 * (place if axis.log else axis.high - axis.low)
    low, high = abs(place - axis.low) <= tolerance, abs(place - axis.high) <= tolerance
    if axis.flipped:
        low, high = high, low
    return "lower" if low else "upper" if high else ""


def _intervals(states: Iterable[TrainedState], name: str) -> list[Interval]:
    return [(state.first_step, state.step, state.hparams.get(name), state.state) for state in states]


def _steps(intervals: Iterable[Interval], axis: Axis) -> list[list[Point]]:
    """Points of a step curve, one per round, and the end; a new piece starts where intervals do not meet."""
    pieces: list[list[Point]] = []
    end: float | None = None
    for start, stop, value, ref in intervals:
        place = axis.place(value)
        if place is None:
            _close(pieces, end)
            end = None
            continue
        if end is None or start != end:
            _close(pieces, end)
            pieces.append([])
        # Also where the value does not change, so that each round can be pointed at.
        pieces[-1].append((start, place, ref))
        end = stop
    _close(pieces, end)
    return pieces


def _close(pieces: list[list[Point]], end: float | None) -> None:
    if end is not None:
        pieces[-1].append((end, *pieces[-1][-1][1:]))
