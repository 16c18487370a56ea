"""The numbers of a program: from the lines that it prints, and from a JSON file that it writes."""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pbt.errors import TaskError, nearest
from pbt.executors.metrics import MetricsError
from pbt.tasks.command.output import Lines

HPARAMS, STEP = "hparams", "step"
"""Keys of a JSON line with a meaning: values in effect, and the step of a point of a curve."""
_FILE_BYTES = 16 << 20


class Found:
    """What the lines of one stream contain.

    Args:
        score: Key of the score in a JSON line.
        patterns: Regular expressions by name, each with one group.
        on_point: Called with each point of a curve.
        on_values: Called with values that are in effect.
    """

    def __init__(
        self,
        score: str,
        patterns: Mapping[str, re.Pattern[str]],
        on_point: Callable[[int, dict[str, float]], None],
        on_values: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._score, self._patterns = score, patterns
        self._on_point, self._on_values = on_point, on_values
        self.metrics: dict[str, Any] = {}
        """The last JSON line with the score."""
        self.matches: dict[str, str] = {}
        """The last match of each pattern."""
        self.lines = Lines(self._line)

    def _line(self, line: str) -> None:
        for name, pattern in self._patterns.items():
            for match in pattern.finditer(line):
                self.matches[name] = match[1]
        values = _object(line) if line.startswith("{") and line.endswith("}") else None
        if values is None:
            return
        if isinstance(values.get(HPARAMS), dict):
            self._on_values(values[HPARAMS])
        if any(key in values for key in (self._score, "scores")):
            self.metrics = {name: value for name, value in values.items() if name not in (HPARAMS, STEP)}
        step = values.get(STEP)
        numbers = {name: float(value) for name, value in values.items() if name != STEP and _is_number(value)}
        if type(step) is int and numbers:
            self._on_point(step, numbers)


def metrics_in(file: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in a file that the program wrote; None if there is no file.

    Raises:
        MetricsError: It is something else.
    """
    if not os.path.lexists(file):
        return None
    if not file.is_file():  # reading a pipe could block forever
        raise MetricsError(f"{name}: expected a JSON file, found something else")
    try:
        if (size := file.stat().st_size) > _FILE_BYTES:
            raise MetricsError(f"{name}: expected at most {_FILE_BYTES >> 20} MiB of JSON, got {size:,} bytes")
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise MetricsError(f"{name}: expected a JSON file, which cannot be read ({error.strerror or error})") from error
    values = _object(text)
    if values is None:
        raise MetricsError(f'{name}: expected a JSON object such as {{"score": 0.5}}, got {text.strip()[:60]!r}')
    return values


def scored(values: Mapping[str, Any], score: str, sources: str) -> dict[str, Any]:
    """Metrics with the score under the name that the task's form has for it.

    Args:
        values: All that was found.
        score: Key of the score.
        sources: Where it was searched, for the error message.

    Raises:
        MetricsError: There is no score.
    """
    metrics = dict(values)
    if score in metrics:
        metrics["score"] = metrics.pop(score)
    elif "scores" not in metrics:
        hint = nearest(score, metrics) if metrics else ""
        raise MetricsError(f"expected the score '{score}' in {sources}, found none{hint}")
    return metrics


def number_of(text: str, name: str) -> float:
    """A match of a pattern as a number.

    Raises:
        MetricsError: It is none.
    """
    try:
        return float(text.replace("_", "x"))
    except ValueError:
        raise MetricsError(f"patterns: expected a number for '{name}', matched {text[:60]!r}") from None


def compiled(patterns: Mapping[str, str], what: str) -> dict[str, re.Pattern[str]]:
    """Compile regular expressions.

    Raises:
        TaskError: One is invalid, or has no group.
    """
    found = {}
    for name, pattern in patterns.items():
        try:
            found[name] = re.compile(pattern)
        except (re.error, TypeError) as error:
            raise TaskError(f"{what}: expected a regular expression for '{name}', got {pattern!r} ({error})") from error
        if found[name].groups < 1:
            raise TaskError(f"{what}: expected a group around the number, as 'loss: (\\S+)', got {pattern!r}")
    return found


def in_digits(text: str, value: Any) -> Any:
    """A printed value as the value that was decided, if it equals it in the digits that were printed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value if text == str(value) or text.lower() == json.dumps(value) else text
    try:
        printed = float(text)
    except ValueError:
        return text
    mantissa = re.split("[eE]", text)[0].lstrip("+-").replace(".", "").lstrip("0")
    rounded = float(f"{value:.{max(len(mantissa), 1)}g}")
    return value if math.isclose(rounded, printed, rel_tol=1e-12) else printed


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_number(value: Any) -> bool:
    # A loss that is NaN is shown as such; an integer may be too large for a float.
    return isinstance(value, float) or (type(value) is int and abs(value) < 1e308)
