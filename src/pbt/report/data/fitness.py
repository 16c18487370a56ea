"""Scores of the population over training, and along the ancestry of the best state."""

import itertools
from dataclasses import dataclass

from pbt.core.history import TrainedState
from pbt.report.data.axes import DECADES, Curve, Point, joined, quantile, thin, thinned
from pbt.report.snapshot import RunSnapshot

POINTS = 20_000
"""The most points of all members' lines together."""
GENERATIONS = 500
"""The most rounds drawn."""
MARKS = 2_000
"""The most copies marked."""
ZOOM = 3.0
"""If early scores stretch the axis by more than this factor, it is fitted to the later scores."""
CUTS = (0.03, 0.06, 0.1)
"""Shares of the rounds that may count as early, tried in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresByRound:
    """Scores of the population against rounds of the member."""

    rounds: tuple[int, ...]
    best: tuple[float, ...]
    """The best score up to each round."""
    median: tuple[float, ...]
    low: tuple[float, ...]
    """10 % quantiles."""
    high: tuple[float, ...]
    """90 % quantiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """Scores, as returned by the task, against training steps in the state."""

    score: str
    """The display name of the score."""
    minimize: bool
    steps: tuple[int, ...]
    """Training steps of each generation."""
    counts: tuple[int, ...]
    """Number of states in each generation."""
    best: tuple[float, ...]
    """The best score up to each generation."""
    median: tuple[float, ...]
    low: tuple[float, ...]
    """10 % quantiles."""
    high: tuple[float, ...]
    """90 % quantiles."""
    by_round: ScoresByRound
    """The same, against rounds of the member."""
    members: Curve
    winner: Curve
    """Scores along the ancestry of the best state."""
    marks: Curve
    """Steps and scores of copied states."""
    copies: int
    log: bool
    window: tuple[float, float] | None
    """The range of scores shown initially; None for all."""
    hidden: int
    """Number of states outside the window."""
    note: str


def fitness(snapshot: RunSnapshot) -> Fitness:
    """The scores of all members, of the population, and of the winner's ancestry."""
    generations = thin(snapshot.generations, GENERATIONS)
    shown = {generation.depth for generation in generations}
    members = thin(list(snapshot.by_member), max(2, POINTS // max(1, len(generations))))
    scores = [generation.scores for generation in generations]
    every = [state.score for state in snapshot.counted]
    log = logarithmic(snapshot)
    window = None if log else _window(snapshot)
    marks = [
        (d.step, snapshot.states[d.start].score, d.start)
        for d in snapshot.copies
        if d.start is not None and d.start.round > 0
    ]
    notes = [
        thinned("members' lines", len(members), len(snapshot.by_member)),
        thinned("rounds", len(generations), len(snapshot.generations)),
        thinned("marks of copies", min(MARKS, len(marks)), len(marks)),
    ]
    return Fitness(
        score=snapshot.score_name,
        minimize=snapshot.sign < 0,
        steps=tuple(generation.step for generation in generations),
        counts=tuple(len(generation.states) for generation in generations),
        best=tuple(best for depth, best in _best_so_far(snapshot) if depth in shown),
        median=tuple(quantile(values, 0.5) for values in scores),
        low=tuple(quantile(values, 0.1) for values in scores),
        high=tuple(quantile(values, 0.9) for values in scores),
        by_round=_by_round(snapshot),
        members=joined(
            piece
            for member in members
            for piece in _pieces([state for state in snapshot.by_member[member] if state.depth in shown])
        ),
        winner=joined([[(link.step, link.score, link.state) for link in thin(snapshot.path, GENERATIONS)]]),
        marks=joined([thin(marks, MARKS)]),
        copies=len(snapshot.copies),
        log=log,
        window=window,
        hidden=0 if window is None else sum(not window[0] <= score <= window[1] for score in every),
        note="; ".join(filter(None, notes)),
    )


def logarithmic(snapshot: RunSnapshot) -> bool:
    """Whether scores get a logarithmic axis: minimized, positive, and over more than two decades."""
    every = [state.score for state in snapshot.counted]
    return snapshot.sign < 0 and min(every) > 0 and max(every) > DECADES * min(every)


def _by_round(snapshot: RunSnapshot) -> ScoresByRound:
    scores: dict[int, list[float]] = {}
    for state in snapshot.counted:
        scores.setdefault(state.round, []).append(state.score)
    better = max if snapshot.sign > 0 else min
    rounds = sorted(scores)
    best = list(itertools.accumulate((better(scores[round_]) for round_ in rounds), better))
    shown = thin(list(zip(rounds, best, strict=True)), GENERATIONS)
    ordered = [sorted(scores[round_]) for round_, _ in shown]
    return ScoresByRound(
        rounds=tuple(round_ for round_, _ in shown),
        best=tuple(value for _, value in shown),
        median=tuple(quantile(values, 0.5) for values in ordered),
        low=tuple(quantile(values, 0.1) for values in ordered),
        high=tuple(quantile(values, 0.9) for values in ordered),
    )


def _best_so_far(snapshot: RunSnapshot) -> list[tuple[int, float]]:
    by_depth: list[tuple[int, float]] = []
    for generation in snapshot.generations:
        best = generation.scores[-1] if snapshot.sign > 0 else generation.scores[0]
        if by_depth and snapshot.better(by_depth[-1][1], best):
            best = by_depth[-1][1]
        by_depth.append((generation.depth, best))
    return by_depth


def _pieces(states: list[TrainedState]) -> list[list[Point]]:
    """The scores of a member, cut where a copy leads back to fewer steps."""
    pieces: list[list[Point]] = []
    last = -1
    for state in states:
        if state.step <= last or not pieces:
            pieces.append([])
        pieces[-1].append((state.step, state.score, state.state))
        last = state.step
    return pieces


def _window(snapshot: RunSnapshot) -> tuple[float, float] | None:
    """The range of the later scores, if the first ones stretch the axis by more than `ZOOM`; else None."""
    every = sorted(state.score for state in snapshot.counted)
    for share in CUTS:
        rounds = snapshot.generations[round(share * len(snapshot.generations)) :]
        later = sorted(score for generation in rounds for score in generation.scores)
        # A quantile, so that a single diverged member does not stretch the axis either.
        low = quantile(later, 0.01) if snapshot.sign > 0 else later[0]
        high = later[-1] if snapshot.sign > 0 else quantile(later, 0.99)
        if high > low and every[-1] - every[0] > ZOOM * (high - low):
            return low - 0.08 * (high - low), high + 0.08 * (high - low)
    return None
