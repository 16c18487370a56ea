"""One figure of a run, drawn by matplotlib, for notebooks and papers."""

from pathlib import Path
from typing import Any

from pbt.errors import UsageError
from pbt.report.data.figures import pictures
from pbt.report.read import read_snapshot
from pbt.report.sentences import shows
from pbt.runs.results import Run

RunLike = Run | str | Path
"""A run or its directory; a run that is still training is allowed."""


def plot_fitness(run: RunLike) -> Any:
    """Plot the scores of all members, their 10 to 90 % band and median, and the winner's ancestry."""
    return _drawn("fitness", run)


def plot_curves(run: RunLike) -> Any:
    """Plot the numbers reported with `ctx.report`, of all members and along the winner's ancestry."""
    return _drawn("curves", run)


def plot_schedules(run: RunLike) -> Any:
    """Plot the hyperparameters of all members and of the winner's ancestry, one panel per hyperparameter."""
    return _drawn("schedules", run)


def plot_tree(run: RunLike) -> Any:
    """Plot the family tree of the population, from the initial members to the living states."""
    return _drawn("tree", run)


def plot_founders(run: RunLike) -> Any:
    """Plot the share of the population that descends from each initial member, over time."""
    return _drawn("founders", run)


def plot_exploits(run: RunLike) -> Any:
    """Plot the number of copies by donor and by copying member."""
    return _drawn("exploits", run)


def plot_plane(run: RunLike) -> Any:
    """Plot the population in the plane of two hyperparameters, after four rounds."""
    return _drawn("plane", run)


def plot_parallel(run: RunLike) -> Any:
    """Plot the members as lines through all hyperparameters: the last round, and the means of their ancestries."""
    return _drawn("parallel", run)


def plot_importance(run: RunLike) -> Any:
    """Plot how much each hyperparameter goes with the score, between members of the same round."""
    return _drawn("importance", run)


def plot_health(run: RunLike) -> Any:
    """Plot founders, copies, failures and training time per round."""
    return _drawn("health", run)


def _drawn(name: str, run: RunLike) -> Any:
    from pbt.report import matplotlib_figures

    snapshot = read_snapshot(run)
    records = pictures(snapshot)
    record = getattr(records, name)
    if record is None:
        raise UsageError(f"{snapshot.name}: the figure '{name}' cannot be drawn. {shows(name, records, snapshot)}")
    return matplotlib_figures.captioned(getattr(matplotlib_figures, f"plot_{name}")(record), records.caption)
