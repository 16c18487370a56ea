"""Parallel coordinates: a line per member through all hyperparameters and the score."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pbt.core.history import TrainedState
from pbt.core.population import StateRef
from pbt.domains import Int
from pbt.report.data.axes import Axis, Number, axis_of, extent, log_ticks, thin, thinned
from pbt.report.data.fitness import logarithmic
from pbt.report.snapshot import RunSnapshot
from pbt.text import number

LINES = 200
"""The most lines of a panel."""
AXES = 12
"""The most hyperparameters drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelLine:
    """One member."""

    ref: StateRef
    heights: tuple[Number, ...]
    """One per axis, from 0 at the bottom to 1 at the top; None: the hyperparameter is inactive."""
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Upright:
    """One of the axes, which stand side by side."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    """Height and label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Two panels over the same axes; lines in the order of their scores, the best last."""

    axes: tuple[Upright, ...]
    """The hyperparameters, and the score, whose better end is on top."""
    newest: tuple[ParallelLine, ...]
    """The values of the last round."""
    means: tuple[ParallelLine, ...]
    """The means along the ancestry of each living state, weighted by training steps."""
    score: str
    others: tuple[str, ...]
    """Hyperparameters not shown."""
    note: str


def parallel(snapshot: RunSnapshot) -> Parallel | None:
    """The members as lines; None without hyperparameters or for a single member."""
    names = list(snapshot.space)
    if not names or len(snapshot.members) < 2:
        return None
    last = snapshot.generations[-1].states
    living = [snapshot.states[ref] for ref in snapshot.living]
    axes = [axis_of(name, snapshot.space[name]) for name in names[:AXES]]
    newest = [([axis.place(s.hparams.get(axis.name)) for axis in axes], s) for s in _thinned(snapshot, last)]
    means = [(_means(snapshot.tree.ancestry(s.state), axes), s) for s in _thinned(snapshot, living)]
    rows = newest + means
    scales = [
        _scale(axis, [values[i] for values, _ in rows], whole=isinstance(snapshot.space[axis.name], Int))
        for i, axis in enumerate(axes)
    ]
    score = _Scale([s.score for _, s in rows], log=logarithmic(snapshot), down=snapshot.sign < 0)
    uprights = [Upright(title=axis.title, ticks=scale.ticks(axis)) for axis, scale in zip(axes, scales, strict=True)]

    def lines(found: Sequence[tuple[list[Number], TrainedState]]) -> tuple[ParallelLine, ...]:
        ordered = sorted(found, key=lambda row: snapshot.sign * row[1].score)
        return tuple(
            ParallelLine(
                ref=state.state,
                heights=(*(s.height(v) for s, v in zip(scales, values, strict=True)), score.height(state.score)),
                score=state.score,
            )
            for values, state in ordered
        )

    notes = [
        thinned("members", min(LINES, len(last)), len(last)),
        thinned("hyperparameters", len(axes), len(names)),
    ]
    return Parallel(
        axes=(*uprights, Upright(title=snapshot.score_name, ticks=score.ticks(None))),
        newest=lines(newest),
        means=lines(means),
        score=snapshot.score_name,
        others=tuple(names[AXES:]),
        note="; ".join(filter(None, notes)),
    )


def _thinned(snapshot: RunSnapshot, states: Sequence[TrainedState]) -> list[TrainedState]:
    """At most `LINES` states, evenly over their ranks."""
    return thin(sorted(states, key=lambda state: (snapshot.sign * state.score, state.state)), LINES)


def _means(ancestry: Sequence[TrainedState], axes: Sequence[Axis]) -> list[Number]:
    return [_mean(ancestry, axis) for axis in axes]


def _mean(ancestry: Sequence[TrainedState], axis: Axis) -> Number:
    """The mean over training steps on the scale of the axis; of a choice, the option trained with for longest."""
    found = [(axis.place(state.hparams.get(axis.name)), state.step - state.first_step) for state in ancestry]
    known = [(place, steps) for place, steps in found if place is not None]
    total = sum(steps for _, steps in known)
    if not total:
        return None
    if axis.options:
        amounts: Counter[float] = Counter()
        for place, steps in known:
            amounts[place] += steps
        return max(amounts, key=lambda place: amounts[place])
    if axis.log and all(place > 0 for place, _ in known):
        return math.exp(sum(math.log(place) * steps for place, steps in known) / total)
    return sum(place * steps for place, steps in known) / total


class _Scale:
    """Maps values to heights from 0 to 1."""

    def __init__(self, values: Sequence[Number], *, log: bool, down: bool, whole: bool = False) -> None:
        known = [value for value in values if value is not None]
        low, high = math.ceil(min(known, default=0)), math.floor(max(known, default=0))
        # Means of whole numbers are fractions; the marks are at whole numbers.
        self._whole = sorted({low, (low + high) // 2, high}) if whole else []
        self._log = log
        self._down = down
        self._low, self._high = extent([v for v in values if v is None or math.isfinite(v)], log=log)

    def height(self, value: Number) -> Number:
        if value is None or not math.isfinite(value) or (self._log and value <= 0):
            return None
        place = (math.log10(value) if self._log else value) - self._low
        share = place / (self._high - self._low)
        return 1 - share if self._down else share

    def ticks(self, axis: Axis | None) -> tuple[tuple[float, str], ...]:
        if axis is not None and axis.options:
            marks = [(float(i), number(option)[:12]) for i, option in enumerate(axis.options)]
        elif self._log:
            marks = [(value, number(value, 3)) for value in log_ticks(self._low, self._high)]
        elif self._whole:
            marks = [(float(value), f"{value:,}") for value in self._whole]
        else:
            ends = [self._low + share * (self._high - self._low) for share in (0.06, 0.5, 0.94)]
            marks = [(value, number(value, 3)) for value in ends]
        heights = [(self.height(value), label) for value, label in marks]
        return tuple((height, label) for height, label in heights if height is not None and 0 <= height <= 1)


def _scale(axis: Axis, values: Sequence[Number], *, whole: bool) -> _Scale:
    if axis.options:
        return _Scale([0.0, float(len(axis.options) - 1)], log=False, down=False)
    return _Scale(values, log=axis.log, down=axis.flipped, whole=whole)
