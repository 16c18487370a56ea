"""Values of hyperparameters: numbers, texts, booleans, None, and tuples of these."""

import math
from collections.abc import Mapping
from typing import Any

Scalar = float | int | str | bool | None
Value = Scalar | tuple[Scalar, ...]
"""The value of a hyperparameter. In JSON a tuple is a list; everywhere else it is a tuple, which cannot be changed."""

_SCALARS = frozenset((float, int, str, bool, type(None)))


def plain(value: Any) -> Any:
    """A number or array of NumPy as numbers of Python, and a list as a tuple; any other value as it is."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value


def is_exact(value: Any) -> bool:
    """Whether this is a value of exactly the types that a log holds, subclasses of numbers excluded."""
    return type(value) in _SCALARS or (type(value) is tuple and _SCALARS.issuperset(map(type, value)))


def are_exact(hparams: Mapping[str, Any]) -> bool:
    """Whether all values are exact; as `is_exact`, in a fraction of the time."""
    return _SCALARS.issuperset(map(type, hparams.values())) or all(map(is_exact, hparams.values()))


def is_option(value: Any) -> bool:
    """Whether a choice can have this option: an exact value without NaN, which differs from itself."""
    parts = value if type(value) is tuple else (value,)
    return is_exact(value) and not any(isinstance(part, float) and math.isnan(part) for part in parts)


def typed(value: Any) -> tuple[Any, ...]:
    """The value with its types, for comparisons: 1 == True, but they are different options."""
    return (tuple, *map(typed, value)) if type(value) is tuple else (type(value), value)


def from_lists(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values that were read from JSON: the lists are tuples."""
    return {name: plain(value) for name, value in values.items()} if list in map(type, values.values()) else values
