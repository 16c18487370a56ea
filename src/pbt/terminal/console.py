"""The streams that people read."""

import os
import sys
from typing import TextIO

from rich.console import Console

from pbt.terminal.exit import silence

WIDE = 120
"""Columns where nobody says how many there are."""


class QuietConsole(Console):
    """A stream to people; one whose reader went away is written to no more, and nothing is raised."""

    def on_broken_pipe(self) -> None:
        """Be quiet from now on."""
        self.quiet = True
        if self.file in {sys.stdout, sys.stderr}:
            silence(self.file)  # type: ignore[arg-type]


def console_for(stream: TextIO | None = None, *, stderr: bool = False) -> QuietConsole:
    """A console on this stream, or on stdout or stderr; colors as NO_COLOR and FORCE_COLOR say."""
    target = stream or (sys.stderr if stderr else sys.stdout)
    # Terminals tell their width themselves; COLUMNS is read by rich.
    width = None if is_terminal(target) or os.environ.get("COLUMNS") else WIDE
    return QuietConsole(file=target, stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def is_terminal(stream: object) -> bool:
    """Whether somebody looks at this stream."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def can_redraw(console: Console) -> bool:
    """Whether a display on this console can be redrawn in place."""
    # Not console.is_terminal, which FORCE_COLOR makes true for any stream.
    return is_terminal(console.file) and not console.is_dumb_terminal and not os.environ.get("CI")
