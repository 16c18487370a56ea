"""Progress of a training population in a notebook: the live table of the terminal, as the output of the cell."""

import importlib
import io
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pbt.core.events import Event, Failed
from pbt.executors.base import Failure, Outcome
from pbt.runs.engine import Engine
from pbt.runs.placement import Placement
from pbt.terminal.progress import ProgressObserver

WIDTH, HEIGHT = 110, 32
"""Of the table, in columns and lines."""
EVERY = 0.5
"""The least seconds between two updates."""
FAILURES = 3
"""The last failures that are listed."""
PAGE = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'


class NotebookProgress(ProgressObserver):
    """Shows the progress of a population under the running cell. A context manager.

    Args:
        placement: The placement, which determines how many members train at the same time.
    """

    def __init__(self, *, placement: Placement | None = None) -> None:
        console = Console(
            file=io.StringIO(), record=True, width=WIDTH, height=HEIGHT, color_system="truecolor", force_terminal=True,
            force_jupyter=False, markup=False, emoji=False, highlight=False,
        )  # fmt: skip
        super().__init__(show=False, placement=placement, console=console, live=False)
        self._ipython: Any = importlib.import_module("IPython.display")
        self._output: Any = None
        self._shown = 0.0
        self._failures: list[str] = []

    def on_start(self, engine: Engine) -> None:
        """Read the log so far and show the table."""
        super().on_start(engine)
        self._output = self._ipython.display(self._ipython.HTML(self._html()), display_id=True)

    def on_outcome(self, engine: Engine, outcome: Outcome) -> None:
        """Show the outcome of a member's round."""
        super().on_outcome(engine, outcome)
        self._refresh()

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Show the decisions."""
        super().on_commit(engine, events)
        self._refresh()

    def close(self) -> None:
        """Show the last state of the table, which stays."""
        if self._output is not None:
            self._shown = 0.0
            self._refresh()
            self._output = None
        super().close()

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._output is None or now - self._shown < EVERY:
            return
        self._shown = now
        self._output.update(self._ipython.HTML(self._html()))

    def _print_failure(self, failed: Failed | Failure) -> None:
        line = f"member {failed.member} failed in round {failed.round}: {failed.message}"
        self._failures = [*self._failures, line][-FAILURES:]

    def _html(self) -> str:
        self._console.print(self.render(), *self._failures, sep="\n")
        return self._console.export_html(inline_styles=True, code_format=PAGE)
