"""Values as short texts for people."""

import math
from collections.abc import Mapping
from typing import Any

from pbt.space import Value

NONE = "-"


def printable(text: object) -> str:
    """The text without characters that command a terminal: what a run directory holds may be a stranger's."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def number(value: Value, name: str = "") -> str:
    """A value for a table: accuracies with four decimals, other reals with four significant digits."""
    if value is None:
        return NONE
    if isinstance(value, (bool, str)):
        return printable(value)
    if isinstance(value, int):
        return f"{value:,}"
    if "acc" in name and 0 <= value <= 1:
        return f"{value:.4f}"
    return f"{value:.4g}"


def scored(value: float | None) -> str:
    """A score with four significant digits, trailing zeros kept so that a column stays aligned."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:#.4g}".rstrip(".")


def span(seconds: float) -> str:
    """A length of time: `0:07`, `12:34`, `1:02:03`, `2 d 03:04`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sign_of(meta: Mapping[str, Any]) -> int:
    """What turns a recorded score, of which higher is better, into the one that the task returned."""
    return -1 if meta.get("objective") == "minimize" else 1


def scalars(reported: Mapping[str, Any]) -> dict[str, Any]:
    """The reported numbers and words, without curves."""
    return {name: value for name, value in reported.items() if not isinstance(value, (list, dict))}
