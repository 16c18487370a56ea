"""Numbers and lists as short texts for people."""

import math
from collections.abc import Iterable

from pbt.space import Value


def number(value: Value, digits: int = 4) -> str:
    """A value with so many significant digits, texts as they are, without characters that are no text."""
    if value is None:
        return "–"  # noqa: RUF001 (a dash in a table)
    if isinstance(value, (bool, str)):
        return plain(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e15 else f"{value:.{digits}g}"


def distinct(*values: float) -> list[str]:
    """Numbers with as many digits as it takes to tell them apart, at most nine."""
    for digits in range(4, 9):
        texts = [number(value, digits) for value in values]
        if len(set(texts)) == len(set(values)):
            return texts
    return [number(value, 9) for value in values]


def plain(text: object) -> str:
    """A text of somebody else's on one line, without control characters."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def percent(share: float) -> str:
    """A share as a percentage."""
    if 0 < share < 0.01:
        return "under 1 %"
    return "over 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def count(number_: int, what: str) -> str:
    """A number of things: `1 member`, `3 members`."""
    return f"{number_:,} {what}{'s' * (number_ != 1)}"


def times(number_: int) -> str:
    """How often: `once`, `twice`, `5 times`."""
    return {1: "once", 2: "twice"}.get(number_, f"{number_:,} times")


def span(seconds: float) -> str:
    """A length of time: `43 ms`, `7.2 s`, `12 min 34 s`, `1 h 02 min`, `2 d 03 h`."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.2g} ms"
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def listed(items: Iterable[object], most: int = 5) -> str:
    """`a`, `a and b`, `a, b and c`; a long list is cut."""
    texts = [str(item) for item in items]
    if len(texts) > most:
        texts = [*texts[: most - 1], f"{len(texts) - most + 1:,} more"]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
