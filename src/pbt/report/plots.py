"""One picture of a run as a matplotlib figure, for notebooks and papers."""

from pathlib import Path
from typing import Any

from pbt.errors import UsageError
from pbt.report.data.figures import pictures
from pbt.report.read import read_story
from pbt.report.sentences import shows
from pbt.runs.results import Run

RunLike = Run | str | Path
"""A run, or its directory, which may still be written."""


def plot_fitness(run: RunLike) -> Any:
    """The scores of all members, their band and median, and the winner's ancestry."""
    return _drawn("fitness", run)


def plot_schedules(run: RunLike) -> Any:
    """What every member trained with, one panel per hyperparameter, and the schedule that was found."""
    return _drawn("schedules", run)


def plot_tree(run: RunLike) -> Any:
    """The development of the population, from the initial members to the living ones."""
    return _drawn("tree", run)


def plot_founders(run: RunLike) -> Any:
    """Which initial members the population descends from, over time."""
    return _drawn("founders", run)


def plot_exploits(run: RunLike) -> Any:
    """Who copied whom, and how often."""
    return _drawn("exploits", run)


def plot_plane(run: RunLike) -> Any:
    """Where the population stood in the hyperparameter plane, after four rounds."""
    return _drawn("plane", run)


def plot_health(run: RunLike) -> Any:
    """Founders, copies, failures and seconds, round by round."""
    return _drawn("health", run)


def _drawn(name: str, run: RunLike) -> Any:
    from pbt.report import matplotlib_figures as printed

    snapshot = read_story(run)
    shown = pictures(snapshot)
    record = getattr(shown, name)
    if record is None:
        raise UsageError(f"{snapshot.name}: there is no picture '{name}' of this run. {shows(name, shown, snapshot)}")
    return getattr(printed, f"plot_{name}")(record)
