"""Consoles on stdout and stderr."""

import os
import sys
from typing import Any, TextIO

from rich.console import Console

from pbt.terminal.exit import silence

WIDE = 120
"""Width in columns of a stream that is no terminal, unless COLUMNS is set."""


class QuietConsole(Console):
    """A console that stops writing, without an error, when its reader closes the pipe."""

    def on_broken_pipe(self) -> None:
        """Write nothing from now on."""
        self.quiet = True
        if self.file in {sys.stdout, sys.stderr}:
            silence(self.file)  # type: ignore[arg-type]


def console_for(stream: TextIO | None = None, *, stderr: bool = False) -> QuietConsole:
    """A console on this stream, by default stdout or stderr; NO_COLOR and FORCE_COLOR control colors."""
    target = stream or (sys.stderr if stderr else sys.stdout)
    # rich reads the width of a terminal, and COLUMNS, itself.
    width = None if is_terminal(target) or os.environ.get("COLUMNS") else WIDE
    return QuietConsole(file=target, stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def captured(target: TextIO, like: Console) -> QuietConsole:
    """A console that writes to `target` what `like` would show, with its width and colors."""
    colors: Any = like.color_system
    plain: dict[str, Any] = dict.fromkeys(("highlight", "markup", "emoji"), False)
    return QuietConsole(file=target, width=like.width, force_terminal=True, color_system=colors, **plain)


def is_terminal(stream: object) -> bool:
    """Whether the stream is a terminal."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


def can_redraw(console: Console) -> bool:
    """Whether the console can redraw a display in place."""
    # Not console.is_terminal: FORCE_COLOR makes it true for any stream.
    return is_terminal(console.file) and not console.is_dumb_terminal and not os.environ.get("CI")
