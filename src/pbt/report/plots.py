"""One picture of a run as a matplotlib figure, for notebooks and papers."""

from pathlib import Path
from typing import Any

from pbt.errors import UsageError
from pbt.report.data.figures import pictures
from pbt.report.read import read_story
from pbt.report.sentences import shows
from pbt.runs.results import Run

Source = Run | str | Path
"""A run, or its directory, which may still be written."""


def plot_fitness(run: Source) -> Any:
    """The scores of all members, their band and median, and the winner's ancestry."""
    return _drawn("fitness", run)


def plot_schedules(run: Source) -> Any:
    """What every member trained with, one panel per hyperparameter, and the schedule that was found."""
    return _drawn("schedules", run)


def plot_tree(run: Source) -> Any:
    """The development of the population, from the initial members to the living ones."""
    return _drawn("tree", run)


def plot_founders(run: Source) -> Any:
    """Which initial members the population descends from, over time."""
    return _drawn("founders", run)


def plot_exploits(run: Source) -> Any:
    """Who copied whom, and how often."""
    return _drawn("exploits", run)


def plot_plane(run: Source) -> Any:
    """Where the population stood in the hyperparameter plane, after four rounds."""
    return _drawn("plane", run)


def plot_health(run: Source) -> Any:
    """Founders, copies, failures and seconds, round by round."""
    return _drawn("health", run)


def _drawn(name: str, run: Source) -> Any:
    from pbt.report import matplotlib_figures as printed

    story = read_story(run)
    shown = pictures(story)
    record = getattr(shown, name)
    if record is None:
        raise UsageError(f"{story.name}: there is no picture '{name}' of this run. {shows(name, shown, story)}")
    return getattr(printed, f"plot_{name}")(record)
