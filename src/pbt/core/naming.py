"""A plain description of a rule: which one, with which settings.

Frozen records are described by their fields, functions by where they are defined. A description is for people
and for comparing a run with itself; nothing is ever imported or called because a description names it.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any


def describe(rule: Any) -> Any:
    """Plain values: numbers and strings as they are, records as dicts with their name, functions by their place."""
    if rule is None or isinstance(rule, (bool, int, float, str)):
        return rule
    if isinstance(rule, Mapping):
        return {str(key): describe(item) for key, item in rule.items()}
    if isinstance(rule, (list, tuple)):
        return [describe(item) for item in rule]
    if isinstance(rule, partial):
        return {"name": _place(rule.func), "args": describe(rule.args), "settings": describe(rule.keywords)}
    if is_dataclass(rule) and not isinstance(rule, type):
        return describe_record(rule)
    return _place(rule)


def describe_record(record: Any) -> dict[str, Any]:
    """A frozen record as its class name and its described fields."""
    return {"name": type(record).__name__, **{f.name: describe(getattr(record, f.name)) for f in fields(record)}}


def _place(rule: Callable[..., Any]) -> str:
    named = rule if hasattr(rule, "__qualname__") else type(rule)
    return f"{named.__module__}:{named.__qualname__}"
