"""Validation of the values returned by a task, and their conversion to the form of the log."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pbt.errors import TaskError
from pbt.executors.base import State
from pbt.executors.base_values import as_float

Objective = Literal["maximize", "minimize"]
Metrics = float | Mapping[str, Any]

_DEPTH = 50
"""Maximal nesting of a reported value; deeper ones are taken for containers that contain themselves."""
_LARGEST = 2**1023
"""Integers from here on are refused: readers of the log compute with floats."""


class MetricsError(TaskError):
    """The task returned no usable metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMetrics:
    """Validated metrics of a task."""

    scores: tuple[float, ...]
    series: tuple[float, ...] = ()
    reported: Mapping[str, Any] = field(default_factory=dict)


def pair_of(returned: Any) -> tuple[State, Metrics]:
    """Split the value returned by a task into state and metrics.

    Raises:
        MetricsError: It is not such a pair.
    """
    if isinstance(returned, (tuple, list)) and len(returned) == 2:
        return returned[0], returned[1]
    kind = type(returned).__name__
    got = f"{kind} of length {len(returned)}" if isinstance(returned, (tuple, list)) else kind
    raise MetricsError(f"expected a task to return (state, metrics), got {got}")


def settle(metrics: Metrics) -> TaskMetrics:
    """Validate the metrics returned by a task.

    Raises:
        MetricsError: There is no score, a score is not a finite number, or a reported value does not fit the log.
    """
    values: dict[Any, Any] = dict(metrics) if isinstance(metrics, Mapping) else {"score": metrics}
    given = values.pop("scores", None)
    if given is None:
        if "score" not in values:
            raise MetricsError(
                f"expected a task to return metrics with 'score' or 'scores', got {sorted(map(str, values))}"
            )
        scores = [number(values.pop("score"), "score")]
    else:
        scores = numbers(given, "scores")
    series = numbers(values.pop("series", ()), "series")
    if not scores:
        raise MetricsError("expected a task to return at least one score, got an empty 'scores'")
    if not all(map(math.isfinite, scores)):
        raise MetricsError(f"the score is not a finite number: {tuple(scores)}")
    return TaskMetrics(
        scores=tuple(scores),
        series=tuple(series),
        reported={writable(str(name)): plain(value, str(name)) for name, value in values.items()},
    )


def number(value: Any, name: str) -> float:
    """A score as a float, from a number or an array or tensor of one element.

    Raises:
        MetricsError: It is another kind of value.
    """
    if type(value) is float:
        return value
    found = as_float(value)
    if found is not None:
        return found
    raise MetricsError(f"'{name}' must be a number, got {_brief(value)}")


def numbers(values: Any, name: str) -> list[float]:
    """Scores as floats.

    Raises:
        MetricsError: Not a list of numbers.
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
    """Convert a reported value to numbers, strings, and lists and dicts of them.

    Raises:
        MetricsError: It contains a value that does not fit the log.
    """
    if depth > _DEPTH:
        raise MetricsError(f"the metric '{name[:80]}' is nested deeper than {_DEPTH} levels; does it contain itself?")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        if abs(value) >= _LARGEST:
            raise MetricsError(f"the metric '{name}' exceeds the range of a float; report its logarithm or a string")
        return int(value)
    if isinstance(value, Mapping):
        return {writable(str(key)): plain(item, f"{name}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, name, depth + 1) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return plain(value.tolist(), name, depth + 1)
    raise MetricsError(f"expected the metric '{name}' to be numbers or strings, got {type(value).__name__}")


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (any error of the value's own code)
        text = ""
    return text if 0 < len(text) <= 80 and "\n" not in text else type(value).__name__


def writable(text: str) -> str:
    """The text with unencodable characters, such as surrogates from file names, escaped."""
    return text.encode(errors="backslashreplace").decode()
