"""Codecs for values in a state beyond dicts, lists, tuples, numbers and arrays: sets, deques, paths, ...

A type is matched exactly and stored under a tag of this module; no name in a file is ever imported.
"""

import datetime as dt
import enum
import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pbt.core.events import encode_floats
from pbt.errors import StateError

Step = Callable[[Any], Any]
"""Encodes or decodes a plain container at the same path."""

FACTORIES: Mapping[str, Any] = {
    "none": None, "int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "tuple": tuple,
    "set": set,
}  # fmt: skip
"""Supported factories of a defaultdict, by their name in a file."""
EXACT = 2**53
"""Every JSON reader keeps integers up to here exactly."""
_order: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":")).encode


def encode_number(value: float) -> Any:
    """A number for strict JSON: NaN and infinities as in the log, and large integers in hexadecimal."""
    if type(value) is int:
        return value if -EXACT <= value <= EXACT else {"int": hex(value)}
    return encode_floats(value)


class TypeCodec(NamedTuple):
    """The codec of one type."""

    tag: str
    down: Callable[[Any, Step], Any]
    """`(value, step) -> body`; the caller adds the path to its StateError."""
    up: Callable[[Any, Step], Any]
    """`(body, step) -> value`."""


def _counter_up(body: Any, step: Step) -> "Counter[Any]":
    found: Counter[Any] = Counter()
    found.update(_a_dict(step(body)))
    return found


def _a_dict(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise TypeError("expected a dict")
    return value


def _default_down(value: "defaultdict[Any, Any]", step: Step) -> Any:
    for name, factory in FACTORIES.items():
        if value.default_factory is factory:
            return [name, step(dict(value))]
    raise StateError(
        f"expected a defaultdict of {', '.join(FACTORIES)}, got one of {value.default_factory!r}; write dict(x)"
    )


def _deque_up(body: Any, step: Step) -> "deque[Any]":
    most, items = body
    if type(items) is not list or (most is not None and (type(most) is not int or not len(items) <= most)):
        raise TypeError("expected the items of a deque")
    return deque(step(items), most)


def _set_down(value: "set[Any] | frozenset[Any]", _: Step) -> Any:
    # Sorted by text: the iteration order of a set differs between processes.
    return sorted(map(_item_down, value), key=_order)


def _item_down(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int or kind is float:
        return encode_number(value)
    if kind is tuple:
        return {"tuple": [_item_down(item) for item in value]}
    if kind is frozenset:
        return {"frozenset": _set_down(value, _item_down)}
    raise StateError(
        f"expected a set of strings, numbers, booleans, None and tuples of them, got one with {kind.__module__}."
        f"{kind.__qualname__}; write list(x)"
    )


def _set_up(body: Any, step: Step) -> "set[Any]":
    if type(body) is not list:
        raise TypeError("expected the items of a set")
    found = set(step(body))
    if len(found) != len(body):
        raise ValueError("expected distinct items of a set")
    return found


def _path_up(body: Any, _: Step) -> Path:
    if type(body) is not str:
        raise TypeError("expected the text of a path")
    return Path(body)


KINDS: Mapping[type, TypeCodec] = {
    Counter: TypeCodec("counter", lambda value, step: step(dict(value)), _counter_up),
    defaultdict: TypeCodec(
        "defaultdict", _default_down, lambda body, step: defaultdict(FACTORIES[body[0]], _a_dict(step(body[1])))
    ),
    deque: TypeCodec("deque", lambda value, step: [value.maxlen, step(list(value))], _deque_up),
    set: TypeCodec("set", _set_down, _set_up),
    frozenset: TypeCodec("frozenset", _set_down, lambda body, step: frozenset(_set_up(body, step))),
    type(Path()): TypeCodec("path", lambda value, _: str(value), _path_up),
}
BY_TAG: Mapping[str, TypeCodec] = {kind.tag: kind for kind in KINDS.values()}


CONTAINERS = frozenset({"counter", "defaultdict", "deque", "node"})
"""The tags whose body contains a node of a plain container."""


def inner(tag: str, body: Any) -> Any:
    """The node of the plain container within a body.

    Raises:
        TypeError: This tag has none.
    """
    if tag == "counter":
        return body
    if tag in ("defaultdict", "deque"):
        return body[1]
    if tag == "node":
        return body[2]
    raise TypeError(f"'{tag}' contains no other node")


_REMEDIES: tuple[tuple[Any, str], ...] = (
    (enum.Enum, "write x.value"),
    (np.ndarray, "write numpy.array(x)"),
    (str, "write str(x)"),
    (int, "write int(x)"),
    (float, "write float(x)"),
    (list, "write list(x)"),
    (tuple, "write tuple(x)"),
    ((set, frozenset), "write set(x)"),
    (dt.timedelta, "write x.total_seconds()"),
    ((dt.date, dt.time), "write x.isoformat()"),
    ((bytearray, memoryview), "write bytes(x)"),
    (Mapping, "write dict(x)"),
)


def remedy(value: Any) -> str:
    """A replacement for a value that cannot be stored, for error messages."""
    if hasattr(type(value), "state_dict"):
        return "write x.state_dict()"
    return next((write for kinds, write in _REMEDIES if isinstance(value, kinds)), "store its parts")
