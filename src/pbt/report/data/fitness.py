"""Scores of the whole population over training, and of the one ancestry that led to the best state."""

from dataclasses import dataclass

from pbt.report.data.axes import DECADES, Curve, joined, quantile, thin, thinned
from pbt.report.snapshot import RunSnapshot, SnapshotState

POINTS = 40_000
"""Of all members' lines together."""
GENERATIONS = 500
MARKS = 2_000
"""Copies that are marked."""
ZOOM = 3.0
"""Where early scores stretch the axis by more than this factor, it shows the later ones."""
CUTS = (0.03, 0.06, 0.1)
"""Shares of the rounds that may be early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """Scores as the task returned them, against training steps in the state."""

    score: str
    """What a score is called."""
    minimize: bool
    steps: tuple[int, ...]
    counts: tuple[int, ...]
    """States with so many steps."""
    best: tuple[float, ...]
    """The best one up to this step."""
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    """10 % and 90 % quantiles."""
    members: Curve
    winner: Curve
    """Along the ancestry of the best state."""
    marks: Curve
    """States that were copied, where they were."""
    copies: int
    log: bool
    window: tuple[float, float] | None
    """The part of the axis that is shown at first; None: all of it."""
    hidden: int
    """States outside of the window."""
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
        (d.step, snapshot.states[d.start].score) for d in snapshot.copies if d.start is not None and d.start.round > 0
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
        members=joined(
            piece
            for member in members
            for piece in _pieces([state for state in snapshot.by_member[member] if state.depth in shown])
        ),
        winner=joined([[(link.last_step, link.score) for link in thin(snapshot.path, GENERATIONS)]]),
        marks=joined([thin(marks, MARKS)]),
        copies=len(snapshot.copies),
        log=log,
        window=window,
        hidden=0 if window is None else sum(not window[0] <= score <= window[1] for score in every),
        note="; ".join(filter(None, notes)),
    )


def logarithmic(snapshot: RunSnapshot) -> bool:
    """Whether scores are drawn by their order of magnitude: losses that fall over decades."""
    every = [state.score for state in snapshot.counted]
    return snapshot.sign < 0 and min(every) > 0 and max(every) > DECADES * min(every)


def _best_so_far(snapshot: RunSnapshot) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    for generation in snapshot.generations:
        best = generation.scores[-1] if snapshot.sign > 0 else generation.scores[0]
        if found and snapshot.better(found[-1][1], best):
            best = found[-1][1]
        found.append((generation.depth, best))
    return found


def _pieces(states: list[SnapshotState]) -> list[list[tuple[float, float | None]]]:
    """A member's scores, cut wherever a copy took it back to fewer steps."""
    pieces: list[list[tuple[float, float | None]]] = []
    last = -1
    for state in states:
        if state.step <= last or not pieces:
            pieces.append([])
        pieces[-1].append((state.step, state.score))
        last = state.step
    return pieces


def _window(snapshot: RunSnapshot) -> tuple[float, float] | None:
    """The scores without the very first ones, where these would press all others together."""
    every = sorted(state.score for state in snapshot.counted)
    for share in CUTS:
        rounds = snapshot.generations[round(share * len(snapshot.generations)) :]
        later = sorted(score for generation in rounds for score in generation.scores)
        # One member that went wrong is no reason for a long axis either.
        low = quantile(later, 0.01) if snapshot.sign > 0 else later[0]
        high = later[-1] if snapshot.sign > 0 else quantile(later, 0.99)
        if high > low and every[-1] - every[0] > ZOOM * (high - low):
            return low - 0.08 * (high - low), high + 0.08 * (high - low)
    return None
