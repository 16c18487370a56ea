"""Bounds of the JSON texts of a run database: what no run writes is refused before other code computes with it."""

import json
import re
from typing import Any

DEEPEST = 64
"""Nesting; a value that a task reports has at most 50."""
_DIGITS = bytes(48 if chr(byte).isdigit() else byte for byte in range(256))
_LONGEST = 309
"""Digits of an integer that a float does not hold for certain."""
_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)


def check_text(text: object) -> None:
    """Check a text before it is decoded.

    Raises:
        TypeError: It is no text.
        ValueError: It has a longer number than a run writes.
    """
    if type(text) is not str:
        raise TypeError(f"{type(text).__name__} instead of a text")
    if len(text) >= _LONGEST and b"0" * _LONGEST in text.encode("utf-8", "replace").translate(_DIGITS):
        raise ValueError(f"a number of {_LONGEST} or more digits")


def check_value(text: str, value: Any) -> None:
    """Check a decoded text.

    Raises:
        ValueError: It is nested more deeply than a run writes, or has texts that cannot be encoded.
    """
    if text.count("[") + text.count("{") > DEEPEST:
        _check_depth(value)
    if "\\u" in text and _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text that cannot be encoded") from None


def decoded(text: str) -> Any:
    """The value of a text within these bounds.

    Raises:
        ValueError, RecursionError: It is not JSON, or beyond them.
    """
    check_text(text)
    value = json.loads(text)
    check_value(text, value)
    return value


def _check_depth(value: Any) -> None:
    layer = [value]
    for _ in range(DEEPEST):
        # One layer after the other, so that no stack overflows here either.
        containers = [one.values() if type(one) is dict else one for one in layer if type(one) in (dict, list)]
        layer = [item for container in containers for item in container if type(item) in (dict, list)]
        if not layer:
            return
    raise ValueError(f"nested more than {DEEPEST} times")
