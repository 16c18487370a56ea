"""Values as short texts for people."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pbt.values import Value

NONE = "-"


def printable(text: object) -> str:
    """The text on one line, without control characters: a run directory may come from a stranger."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def as_ascii(json_text: str) -> str:
    """A JSON text in which only ASCII was left, without the control character that JSON does not escape."""
    return json_text.replace("\x7f", "\\u007f")


def number(value: Value, digits: int = 4) -> str:
    """A value for a sentence or an axis: reals with `digits` significant digits, texts made printable."""
    if value is None:
        return "–"  # noqa: RUF001 (a dash in a table)
    if isinstance(value, tuple):
        return f"({', '.join('None' if one is None else number(one, digits) for one in value)})"
    if isinstance(value, (bool, str)):
        return printable(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e15 else f"{value:.{digits}g}"


def cell(value: Value, name: str = "") -> str:
    """A value for a column of a terminal: accuracies with four decimals, other reals with four significant digits."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.4f}" if "acc" in name and 0 <= value <= 1 else f"{value:.4g}"
    return number(value)


def steady(value: Value, name: str = "") -> str:
    """A value for a column that is redrawn: as `cell`, with trailing zeros kept so that its width hardly changes."""
    if isinstance(value, float) and math.isfinite(value) and not ("acc" in name and 0 <= value <= 1):
        return f"{value:#.4g}".rstrip(".")
    return cell(value, name)


def scored(value: float | None) -> str:
    """A score with four significant digits, trailing zeros kept so that a column stays aligned."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:#.4g}".rstrip(".")


def distinct(*values: float) -> list[str]:
    """Numbers with as many digits as it takes to tell them apart, at most nine."""
    for digits in range(4, 9):
        texts = [number(value, digits) for value in values]
        if len(set(texts)) == len(set(values)):
            return texts
    return [number(value, 9) for value in values]


def percent(share: float) -> str:
    """A share as a percentage."""
    if 0 < share < 0.01:
        return "under 1 %"
    return "over 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def count(amount: int, noun: str) -> str:
    """A number of things: `1 member`, `3 members`."""
    return f"{amount:,} {noun}{'s' * (amount != 1)}"


def times(amount: int) -> str:
    """A number of repetitions: `once`, `twice`, `5 times`."""
    return {1: "once", 2: "twice"}.get(amount, f"{amount:,} times")


def listed(items: Iterable[object], most: int = 5) -> str:
    """`a`, `a and b`, `a, b and c`; a long list is cut."""
    texts = [str(item) for item in items]
    if len(texts) > most:
        texts = [*texts[: most - 1], f"{len(texts) - most + 1:,} more"]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def span(seconds: float) -> str:
    """A duration for a sentence: `43 ms`, `7.2 s`, `12 min 34 s`, `1 h 02 min`, `2 d 03 h`."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.2g} ms"
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def clock(seconds: float) -> str:
    """A duration for a column: `0:07`, `12:34`, `1:02:03`, `2 d 03:04`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def scalars(reported: Mapping[str, Any]) -> dict[str, Any]:
    """The reported numbers and texts, without curves."""
    return {name: value for name, value in reported.items() if not isinstance(value, (list, dict))}


def finite(value: Any) -> Any:
    """Plain values for JSON, with None for NaN and infinities, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value
