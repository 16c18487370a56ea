"""Consoles on stdout and stderr."""

import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from pbt.terminal.exit import silence
from pbt.text import printable

WIDE = 120
"""Width in columns of a stream that is no terminal, unless COLUMNS is set."""


class QuietConsole(Console):
    """A console that stops writing, without an error, when its reader closes the pipe.

    What it prints may come from a run directory of an unknown author: control characters and marks of direction are
    replaced, whatever printed them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.push_render_hook(_PrintableHook())

    def on_broken_pipe(self) -> None:
        """Write nothing from now on."""
        self.quiet = True
        if self.file in {sys.stdout, sys.stderr}:
            silence(self.file)  # type: ignore[arg-type]


class _PrintableHook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap everything that is printed."""
        return [_Printable(renderable) for renderable in renderables]


class _Printable:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment("\n".join(map(printable, segment.text.split("\n"))), segment.style)


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
