"""What a task returns, checked and brought into the form that the log holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pbt.errors import TaskError
from pbt.executors.base import State

Objective = Literal["maximize", "minimize"]
Metrics = float | Mapping[str, Any]

_DEPTH = 50
"""Levels of a reported value; more are taken for a container that holds itself."""
_LARGEST = 2**1023
"""Whole numbers from here on are refused: readers of the log compute with floats."""


class MetricsError(TaskError):
    """A task returned no usable metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMetrics:
    """Metrics with their direction settled: higher scores are better."""

    scores: tuple[float, ...]
    series: tuple[float, ...] = ()
    reported: Mapping[str, Any] = field(default_factory=dict)


def pair_of(returned: Any) -> tuple[State, Metrics]:
    """The state and the metrics that a task returned.

    Raises:
        MetricsError: It returned something else.
    """
    if isinstance(returned, (tuple, list)) and len(returned) == 2:
        return returned[0], returned[1]
    kind = type(returned).__name__
    got = f"{kind} of length {len(returned)}" if isinstance(returned, (tuple, list)) else kind
    raise MetricsError(f"a task must return (state, metrics), got {got}")


def settle(metrics: Metrics) -> TaskMetrics:
    """The metrics that a task returned, checked.

    Raises:
        MetricsError: There is no score in it, or it is no finite number, or something is reported that the log
            cannot hold.
    """
    values: dict[Any, Any] = dict(metrics) if isinstance(metrics, Mapping) else {"score": metrics}
    given = values.pop("scores", None)
    if given is None:
        if "score" not in values:
            raise MetricsError(f"a task must return metrics with 'score' or 'scores', got {sorted(map(str, values))}")
        scores = [number(values.pop("score"), "score")]
    else:
        scores = numbers(given, "scores")
    series = numbers(values.pop("series", ()), "series")
    if not scores:
        raise MetricsError("a task must return at least one score, got none in 'scores'")
    if not all(map(math.isfinite, scores)):
        raise MetricsError(f"the score is not a finite number: {tuple(scores)}")
    return TaskMetrics(
        scores=tuple(scores),
        series=tuple(series),
        reported={writable(str(name)): plain(value, str(name)) for name, value in values.items()},
    )


def number(value: Any, name: str) -> float:
    """A score as a float: of a number, or of an array or tensor with one element.

    Raises:
        MetricsError: It is something else.
    """
    if type(value) is float:
        return value
    found = value.tolist() if hasattr(value, "tolist") else value
    while isinstance(found, list) and found is not value and len(found) == 1:
        found = found[0]
    if not isinstance(found, (str, bytes, bytearray, bool)):
        try:
            return float(found)
        except (TypeError, ValueError, OverflowError):
            pass
    raise MetricsError(f"'{name}' must be a number, got {_brief(value)}")


def numbers(values: Any, name: str) -> list[float]:
    """Scores as floats.

    Raises:
        MetricsError: They are no list of numbers.
    """
    if not isinstance(values, (str, bytes, Mapping)):
        try:
            found = list(values)
        except TypeError:
            pass
        else:
            return [number(value, name) for value in found]
    raise MetricsError(f"'{name}' must be a list of numbers, got {_brief(values)}")


def plain(value: Any, name: str, depth: int = 0) -> Any:  # noqa: PLR0911 (one for each form)
    """A reported value as numbers, strings and lists and dicts of them.

    Raises:
        MetricsError: It holds something that the log cannot hold.
    """
    if depth > _DEPTH:
        raise MetricsError(f"the metric '{name[:80]}' is nested more than {_DEPTH} levels deep; does it hold itself?")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        if abs(value) >= _LARGEST:
            raise MetricsError(f"the metric '{name}' is larger than a float can hold; report its logarithm or a string")
        return int(value)
    if isinstance(value, Mapping):
        return {writable(str(key)): plain(item, f"{name}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, name, depth + 1) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return plain(value.tolist(), name, depth + 1)
    raise MetricsError(f"the metric '{name}' must be a number, a string or a list of them, got {type(value).__name__}")


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (whatever its own code does wrong)
        text = ""
    return text if 0 < len(text) <= 80 and "\n" not in text else type(value).__name__


def writable(text: str) -> str:
    """The text with what no file can hold, as half a character out of a file name, spelled out."""
    return text.encode(errors="backslashreplace").decode()
