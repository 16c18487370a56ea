"""How much each hyperparameter goes with the results, compared between members of the same round.

Comparing within rounds removes the time: late rounds have better scores, whatever the values are. The ancestry remains:
values that are copied together share the credit.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pbt.core.history import TrainedState
from pbt.report.data.axes import Axis, axis_of, thin, thinned
from pbt.report.data.ranks import correlation_ratio, spearman
from pbt.report.snapshot import RunSnapshot

ROUNDS = 50
"""The most rounds compared."""
FEWEST = 5
"""The fewest members of a round that are compared."""
PANELS = 20
"""The most hyperparameters drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """One hyperparameter."""

    axis: Axis
    score: float | None
    """Mean over rounds of the rank correlation with the score; above 0: larger values went with better scores. For a
    choice the correlation ratio, which has no direction. None: undefined in every round."""
    gain: float | None
    """The same with the improvement of the score during the round."""
    chance: float
    """The size that a correlation in a single round reaches without any relation (one standard deviation)."""
    rounds: int
    """Number of rounds in which members with different values were compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """The hyperparameters, the one that goes most with the score first."""

    score: str
    rows: tuple[Influence, ...]
    rounds: int
    note: str


def importance(snapshot: RunSnapshot) -> Importance | None:
    """The influence of each hyperparameter; None without hyperparameters, or with too few members in every round."""
    generations = [one for one in snapshot.generations if len(one.states) >= FEWEST]
    if not generations or not snapshot.space:
        return None
    compared = thin(generations, ROUNDS)
    axes = [axis_of(name, domain) for name, domain in snapshot.space.items()]
    rows = [_influence(snapshot, axis, [one.states for one in compared]) for axis in axes]
    rows.sort(key=lambda row: -max(abs(row.score or 0), abs(row.gain or 0)))
    notes = [
        thinned("rounds", len(compared), len(generations)),
        thinned("hyperparameters", min(PANELS, len(rows)), len(rows)),
    ]
    return Importance(
        score=snapshot.score_name,
        rows=tuple(rows[:PANELS]),
        rounds=len(compared),
        note="; ".join(filter(None, notes)),
    )


def _influence(snapshot: RunSnapshot, axis: Axis, rounds: list[tuple[TrainedState, ...]]) -> Influence:
    def gain(state: TrainedState) -> float | None:
        before = None if state.start is None else snapshot.states.get(state.start)
        return None if before is None else snapshot.sign * (state.score - before.score)

    scores = [_related(axis, states, lambda state: snapshot.sign * state.score) for states in rounds]
    gains = [_related(axis, states, gain) for states in rounds]
    known = [(value, count) for value, count in scores if value is not None]
    members = sum(count for _, count in known) / len(known) if known else FEWEST
    freedom = len(axis.options) - 1 if axis.options else 1
    return Influence(
        axis=axis,
        score=_mean(value for value, _ in scores),
        gain=_mean(value for value, _ in gains),
        chance=min(1.0, math.sqrt(freedom / max(1.0, members - 1))),
        rounds=len(known),
    )


def _related(
    axis: Axis, states: Iterable[TrainedState], result: Callable[[TrainedState], float | None]
) -> tuple[float | None, int]:
    """The relation in one round, and the number of members compared."""
    pairs: list[Any] = []
    for state in states:
        place, found = axis.place(state.hparams.get(axis.name)), result(state)
        if place is not None and found is not None and math.isfinite(found):
            # A flipped axis draws 1 - value; the relation is with the value.
            pairs.append((-place if axis.flipped else place, found))
    if len(pairs) < FEWEST:
        return None, len(pairs)
    return (correlation_ratio(pairs) if axis.options else spearman(pairs)), len(pairs)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
