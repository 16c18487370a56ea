"""What a run shows by itself, in a notebook or on a terminal: its results, its figures, and progress.

The figures and the live tables are drawn by packages above this one. They are imported by name when they are needed, as
the public names of `pbt` are: training and reading never depend on them.
"""

import html
import importlib
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from pbt.text import printable

Figure = Any
"""A matplotlib figure, which notebooks show as the value of a cell."""


def in_notebook() -> bool:
    """Whether this program runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def display_of(progress: bool | None, placement: Any, *, otherwise: bool = True) -> AbstractContextManager[Any]:
    """The observer that shows progress, as a context manager; it gives None if nothing is to be shown.

    Args:
        progress: Whether to show it; None: in a notebook only.
        placement: The placement of the run.
        otherwise: Whether to show it in a notebook if `progress` is None.
    """
    notebook = in_notebook()
    if progress is None:
        progress = notebook and otherwise
    if not progress:
        return nullcontext()
    module, name = ("notebook", "NotebookProgress") if notebook else ("progress", "ProgressObserver")
    observer: AbstractContextManager[Any] = getattr(importlib.import_module(f"pbt.terminal.{module}"), name)(
        placement=placement
    )
    return observer


@dataclass(frozen=True, slots=True)
class RunPlots:
    """The figures of a run, as `run.plot.fitness()`; the report contains the same ones.

    Each returns a matplotlib figure, which a notebook shows, and raises `UsageError` if the run has nothing to draw in
    it, or `MissingExtraError` without the extra `report`.
    """

    run: Any

    def fitness(self) -> Figure:
        """The scores of all members, their 10 to 90 % band and median, and the winner's ancestry."""
        return self._drawn("fitness")

    def curves(self) -> Figure:
        """The numbers reported with `ctx.report`, of all members and along the winner's ancestry."""
        return self._drawn("curves")

    def schedules(self) -> Figure:
        """The hyperparameters of all members and of the winner's ancestry, one panel per hyperparameter."""
        return self._drawn("schedules")

    def tree(self) -> Figure:
        """The family tree of the population, from the initial members to the living states."""
        return self._drawn("tree")

    def founders(self) -> Figure:
        """The share of the population that descends from each initial member, over time."""
        return self._drawn("founders")

    def exploits(self) -> Figure:
        """The number of copies by donor and by copying member."""
        return self._drawn("exploits")

    def plane(self) -> Figure:
        """The population in the plane of two hyperparameters, after four rounds."""
        return self._drawn("plane")

    def parallel(self) -> Figure:
        """The members as lines through all hyperparameters: the last round, and the means of their ancestries."""
        return self._drawn("parallel")

    def importance(self) -> Figure:
        """How much each hyperparameter goes with the score, between members of the same round."""
        return self._drawn("importance")

    def health(self) -> Figure:
        """Founders, copies, failures and training time per round."""
        return self._drawn("health")

    def _drawn(self, name: str) -> Figure:
        return getattr(importlib.import_module("pbt.report.plots"), f"plot_{name}")(self.run)


def table_of(facts: Mapping[str, str]) -> str:
    """Facts as an HTML table with a row each."""
    rows = (
        f'<tr><th style="text-align:left">{html.escape(printable(name))}</th>'
        f'<td style="text-align:left">{html.escape(printable(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table>{''.join(rows)}</table>"
