"""Help texts: paragraphs are wrapped once, at the width of the terminal."""

import re
import textwrap
from typing import Any

from cyclopts.help.formatters.default import DefaultFormatter


class HelpFormatter(DefaultFormatter):
    """The usual form, with the description wrapped anew instead of at the lines of its docstring."""

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        """Print the description of a command; a line of a list keeps its indentation."""
        text = getattr(getattr(description, "primary_renderable", None), "plain", "")
        if text:
            console.print(f"{wrapped(text, options.max_width)}\n", markup=False, highlight=False, soft_wrap=True)


def wrapped(text: str, width: int) -> str:
    """The text with each paragraph, and each indented line, wrapped at this width."""
    lines = []
    for line in re.sub(r"(?<=\S)\n(?=\S)", " ", text).split("\n"):
        head = re.match(r"\s+\S+\s+", line)  # of a list: a number and its meaning
        hanging = " " * len(head[0]) if head else ""
        lines += textwrap.wrap(
            line, width, subsequent_indent=hanging, break_on_hyphens=False, break_long_words=False
        ) or [""]
    return "\n".join(lines)
