"""The recorded values of a run, its meta data: the form in which `pbt.run` writes them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from pbt.errors import CorruptError, PBTError
from pbt.space import Space

_TEXTS = ("name", "object", "note", "score", "command", "plan", "of", "metrics")
"""Values of the application that are texts."""
_COUNTS = {"threads": 4096, "workers": 4096, "devices_per_member": 4096, "members_per_program": 1 << 20}
"""Values of the placement that are numbers, each with more than any placement has."""
_LARGEST = 1 << 53


def check_recorded(meta: Mapping[str, Any]) -> None:
    """Check the values that this package reads; others are data of their own writers.

    Raises:
        CorruptError: A value is none that `pbt.run` records; the message names it.
    """
    for name, (is_right, expected) in _RIGHT.items():
        if name in meta and not is_right(meta[name]):
            raise CorruptError(f"recorded {name}: expected {expected}, found {meta[name]!r:.80}")
    if "space" in meta:
        check_space(meta["space"])


def check_space(plain: Any) -> None:
    """Check that plain values are those of a space.

    Raises:
        CorruptError: They are not.
    """
    try:
        Space.from_dict(plain)
    except (PBTError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise CorruptError(f"recorded space: expected domains by name, found {plain!r:.80} ({error!s:.120})") from error


def _is_positive(value: Any) -> bool:
    return type(value) is int and 1 <= value < _LARGEST


def _is_mapping_of_mappings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def _is_application(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or not all(isinstance(value.get(name, ""), str | None) for name in _TEXTS):
        return False
    return isinstance(value.get("config", {}), dict) and isinstance(value.get("steps_per_epoch", 1), int | None)


def _is_place(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or not isinstance(value.get("need", {}), dict | None):
        return False
    texts = (item for name, item in value.items() if name not in (*_COUNTS, "need"))
    counts = ((value[name], most) for name, most in _COUNTS.items() if value.get(name) is not None)
    need = (value.get("need") or {}).values()
    return (
        all(isinstance(item, str | None) for item in texts)
        and all(type(item) is int and 1 <= item <= most for item, most in counts)
        and all(type(item) in (int, float) and math.isfinite(item) and item >= 0 for item in need)
    )


def _is_objective(value: Any) -> bool:
    each = value if isinstance(value, list) else [value]
    return bool(each) and all(isinstance(one, str) and one in ("maximize", "minimize") for one in each)


def _is_initial(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


_RIGHT: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda value: type(value) is int, "a whole number"),
    "population": (_is_positive, "a whole number of at least 1"),
    "rounds": (_is_positive, "a whole number of at least 1"),
    "objective": (_is_objective, "'maximize' or 'minimize', or a list of these"),
    "task": (lambda value: isinstance(value, str), "a name"),
    "plan": (lambda value: isinstance(value, dict), "the description of a plan"),
    "initial": (_is_initial, "a list of hyperparameters"),
    "application": (_is_application, "values by name"),
    "place": (_is_place, "a placement"),
    "data": (_is_mapping_of_mappings, "a description of each split"),
    "changed_plan": (lambda value: isinstance(value, list), "a list of changes"),
}
