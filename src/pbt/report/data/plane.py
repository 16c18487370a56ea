"""The population in the plane of two hyperparameters, round by round, colored by score."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pbt.core.history import TrainedState
from pbt.core.population import StateRef
from pbt.report.data.axes import Axis, Number, axis_of, log_ticks, quantile, thin, thinned
from pbt.report.data.fitness import logarithmic
from pbt.report.snapshot import Generation, RunSnapshot
from pbt.text import number

FRAMES = 100
"""The most rounds drawn."""
POINTS = 20_000
"""The most points of all frames together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneFrame:
    """The population after one round."""

    round: int
    step: int
    refs: tuple[StateRef, ...]
    """The states of the members."""
    x: tuple[Number, ...]
    y: tuple[Number, ...]
    scores: tuple[float, ...]
    winner: tuple[tuple[Number, Number], ...]
    """Coordinates of the best state's ancestor in this round; empty if there is none."""
    ancestors: tuple[StateRef, ...]
    """The states of `winner`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Two hyperparameters, or one and the score."""

    x: Axis
    y: Axis | None
    """None for the score."""
    score: str
    minimize: bool
    colors: tuple[float, float]
    """The scores at both ends of the color scale; their decimal logarithms if `log` is true."""
    log: bool
    clipped: int
    """Number of scores beyond the ends of the color scale."""
    frames: tuple[PlaneFrame, ...]
    others: tuple[str, ...]
    """Hyperparameters not shown."""
    note: str


def plane(snapshot: RunSnapshot) -> Plane | None:
    """The plane of the first two hyperparameters that vary; None without hyperparameters or for a single member."""
    names = _varied(snapshot)
    if not names or len(snapshot.members) < 2:
        return None
    generations = thin(snapshot.generations, FRAMES)
    limit = _most(generations)
    x = axis_of(names[0], snapshot.space[names[0]])
    y = axis_of(names[1], snapshot.space[names[1]]) if len(names) > 1 else None
    most = max(len(generation.states) for generation in generations)
    later = sorted(s for g in snapshot.generations[len(snapshot.generations) // 4 :] for s in g.scores)
    log = logarithmic(snapshot)
    every = [state.score for state in snapshot.counted]
    low, high = (min(every), quantile(later, 0.95)) if snapshot.sign < 0 else (quantile(later, 0.05), max(every))
    ancestry = frozenset(link.state for link in snapshot.path)
    notes = [
        thinned("rounds", len(generations), len(snapshot.generations)),
        thinned("members", min(limit, most), most),
    ]
    frames = tuple(_frame(generation, x, y, ancestry, limit) for generation in generations)
    return Plane(
        x=x,
        y=y,
        score=snapshot.score_name,
        minimize=snapshot.sign < 0,
        colors=_ends(low, high, log=log),
        log=log,
        clipped=sum(not low <= score <= high for frame in frames for score in frame.scores),
        frames=frames,
        others=tuple(name for name in snapshot.space if name not in names[:2]),
        note="; ".join(filter(None, notes)),
    )


def color_ticks(record: Plane) -> list[tuple[float, str]]:
    """Positions and labels of the color scale; an end beyond which scores have the same color says so."""
    low, high = record.colors
    if record.log:
        inner = [(math.log10(value), number(value, 3)) for value in log_ticks(low, high)]
    else:
        inner = [(low + part * (high - low) / 4, number(low + part * (high - low) / 4, 3)) for part in range(5)]
    if not record.clipped:
        return inner
    # Only the worse end is cut.
    end, sign = (high, "≥") if record.minimize else (low, "≤")
    room = 0.08 * (high - low)
    label = f"{sign} {number(10**end if record.log else end, 3)}"
    return sorted([*((at, text) for at, text in inner if abs(at - end) > room), (end, label)])


def ties(frame: PlaneFrame) -> dict[tuple[Number, Number], int]:
    """The places with more than one member, and how many."""
    amounts = Counter(zip(frame.x, frame.y, strict=True))
    return {place: amount for place, amount in amounts.items() if amount > 1 and None not in place}


def frame_states(snapshot: RunSnapshot) -> list[list[TrainedState]]:
    """The states drawn of each round."""
    generations = thin(snapshot.generations, FRAMES)
    limit = _most(generations)
    return [_shown(generation, limit) for generation in generations]


def _most(generations: Sequence[Generation]) -> int:
    """The most members drawn per round."""
    return max(10, POINTS // len(generations))


def _shown(generation: Generation, limit: int) -> list[TrainedState]:
    return thin(sorted(generation.states, key=lambda state: state.state), limit)


def _ends(low: float, high: float, *, log: bool) -> tuple[float, float]:
    if log:
        low, high = math.log10(low), math.log10(high)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _varied(snapshot: RunSnapshot) -> list[str]:
    """The names with more than one value, in the order of the space; all names if none varies."""
    names = list(snapshot.space)
    values: dict[str, set[object]] = {name: set() for name in names}
    for state in snapshot.counted:
        for name, value in state.hparams.items():
            if len(values[name]) < 2:
                values[name].add(value)
    return [name for name in names if len(values[name]) > 1] or names


def _frame(generation: Generation, x: Axis, y: Axis | None, ancestry: frozenset[StateRef], limit: int) -> PlaneFrame:
    shown = _shown(generation, limit)
    drawn = ancestry | {state.state for state in shown}
    points = {
        state.state: (
            x.place(state.hparams.get(x.name)),
            state.score if y is None else y.place(state.hparams.get(y.name)),
        )
        for state in sorted(generation.states, key=lambda state: state.state)
        if state.state in drawn
    }
    return PlaneFrame(
        round=generation.depth,
        step=generation.step,
        refs=tuple(state.state for state in shown),
        x=tuple(points[state.state][0] for state in shown),
        y=tuple(points[state.state][1] for state in shown),
        scores=tuple(state.score for state in shown),
        winner=tuple(point for ref, point in points.items() if ref in ancestry),
        ancestors=tuple(ref for ref in points if ref in ancestry),
    )
