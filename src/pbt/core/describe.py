"""Plain descriptions of rules: identity and settings.

Frozen records are described by their fields, functions by their qualified name and a hash of their code.
Descriptions are for people and for comparing a run with its own record; nothing is imported or called because a
description names it.
"""

import hashlib
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

DEEPEST, MOST = 8, 1000
"""Limits of a description: levels of nesting, and parts in all. A part beyond them is described by its name alone."""


def describe(rule: Any) -> Any:
    """Describe a rule as plain values: numbers and strings unchanged, records and functions as dicts with a name.

    A function is identified by its place, the values it closes over, and its source, or its bytecode and constants
    without source; a callable object by its class and attributes. Definitions of this package are identified by
    place and settings alone, so that a new version can resume a run.
    """
    return _Describer().of(rule)


def describe_record(record: Any) -> dict[str, Any]:
    """Describe a frozen record: class name and described fields."""
    return _Describer().record(record, 0)


def qualified_name(rule: Any) -> str:
    """The name of a function, a class or an object's class: `module:qualified name`."""
    named = rule if hasattr(rule, "__qualname__") else type(rule)
    return f"{named.__module__}:{named.__qualname__}"


class _Describer:
    """A description under construction."""

    def __init__(self) -> None:
        self._left = MOST

    def of(self, rule: Any, depth: int = 0) -> Any:  # noqa: PLR0911 (a return for each kind of value)
        if rule is None or isinstance(rule, (bool, int, float, str)):
            return rule
        self._left -= 1
        # A function may close over itself or over something large: beyond the limits only its name is recorded.
        if depth > DEEPEST or self._left < 0:
            return qualified_name(rule)
        if isinstance(rule, Mapping):
            return {str(key): self.of(item, depth + 1) for key, item in rule.items()}
        if isinstance(rule, (list, tuple)):
            return [self.of(item, depth + 1) for item in rule]
        if isinstance(rule, (set, frozenset)):
            return sorted((self.of(item, depth + 1) for item in rule), key=repr)
        if isinstance(rule, partial):
            return self._partial(rule, depth)
        if isinstance(rule, type):
            return qualified_name(rule)
        return self.record(rule, depth) if is_dataclass(rule) else self._other(rule, depth)

    def record(self, record: Any, depth: int) -> dict[str, Any]:
        own = {field.name: self.of(getattr(record, field.name), depth + 1) for field in fields(record)}
        cls = type(record)
        return {"name": cls.__name__, **({} if _is_ours(cls) else {"code": _code_of_class(cls)}), **own}

    def _partial(self, rule: "partial[Any]", depth: int) -> dict[str, Any]:
        function = self.of(rule.func, depth + 1)
        named = (
            {"name": function}
            if isinstance(function, str)
            else {"name": qualified_name(rule.func), "function": function}
        )
        return {**named, "args": self.of(rule.args, depth + 1), "settings": self.of(rule.keywords, depth + 1)}

    def _other(self, rule: Any, depth: int) -> Any:
        if isinstance(rule, MethodType):
            function = self.of(rule.__func__, depth + 1)
            return {"name": qualified_name(rule), "function": function, "self": self.of(rule.__self__, depth + 1)}
        if isinstance(rule, FunctionType):
            return self._function(rule, depth)
        if getattr(rule, "shape", None) == () and hasattr(rule, "item"):  # an array scalar
            return self.of(rule.item(), depth + 1)
        attributes = _attributes(rule)
        if not callable(rule):
            # An object that a rule merely refers to, such as a record of settings: its plain values only.
            attributes = {
                name: value for name, value in attributes.items() if isinstance(value, (bool, int, float, str))
            }
        if not attributes and not callable(rule):
            return qualified_name(rule)
        description: dict[str, Any] = {"name": qualified_name(rule)}
        if callable(rule) and not _is_ours(type(rule)):
            description["code"] = _code_of_class(type(rule))
        return description | {
            "attributes": {name: self.of(value, depth + 1) for name, value in sorted(attributes.items())}
        }

    def _function(self, function: FunctionType, depth: int) -> Any:
        closure: dict[str, Any] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                closure[name] = self.of(cell.cell_contents, depth + 1)
            except ValueError:  # not assigned yet
                continue
        given = dict(zip(_defaulted(function), function.__defaults__ or (), strict=True))
        parts = {
            "code": "" if _is_ours(function) else _code_of(function),
            "closure": closure,
            "defaults": self.of({**given, **(function.__kwdefaults__ or {})}, depth + 1),
        }
        parts = {name: value for name, value in parts.items() if value}
        return {"name": qualified_name(function), **parts} if parts else qualified_name(function)


def _is_ours(defined: Any) -> bool:
    return str(defined.__module__).partition(".")[0] == __name__.partition(".")[0]


def _attributes(held: Any) -> dict[str, Any]:
    """The attributes of an object, in its `__dict__` or its slots."""
    slots = [name for cls in type(held).__mro__ for name in _as_names(vars(cls).get("__slots__", ()))]
    values = {name: getattr(held, name) for name in slots if hasattr(held, name) and not name.startswith("__")}
    return values | dict(getattr(held, "__dict__", {}))


def _as_names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _defaulted(function: FunctionType) -> tuple[str, ...]:
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return names[len(names) - len(function.__defaults__ or ()) :]


def _code_of(function: FunctionType) -> str:
    """A hash of the function's source, or of its bytecode if it has no source of its own."""
    # The source of a lambda is the whole statement that contains it.
    if function.__name__ != "<lambda>":
        try:
            return _hashed(textwrap.dedent(inspect.getsource(function)))
        except (OSError, TypeError):
            pass
    return _hashed(_compiled(function.__code__))


def _code_of_class(cls: type) -> str:
    """A hash of the methods defined by a class and its bases."""
    methods = [
        f"{name} {_code_of(value)}"
        for base in cls.__mro__
        for name, value in sorted(vars(base).items())
        if isinstance(value, FunctionType) and value.__module__ == base.__module__ and not _is_ours(base)
        if value.__code__.co_filename != "<string>"  # what dataclasses writes follows from the fields
    ]
    return _hashed("\n".join(methods))


def _compiled(code: CodeType) -> str:
    """Bytecode, names and constants as text, without addresses, file names and line numbers."""
    constants = [_compiled(const) if isinstance(const, CodeType) else _constant(const) for const in code.co_consts]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, constants))


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Difference(NamedTuple):
    """The first field in which two descriptions differ."""

    field: str
    before: Any
    now: Any


_LATER = frozenset(("code", "closure", "defaults", "attributes", "function", "self", "age_gap"))
"""Keys that earlier versions did not write; a key missing from a recorded description is not compared."""


def difference(before: Any, now: Any, field: str) -> Difference | None:
    """The first field in which two descriptions differ; None if they agree.

    Args:
        before: The recorded description, possibly written by an earlier version.
        now: The current description.
        field: Name of the described object, such as `plan`; the result extends it, as `plan.explore.factors`.
    """
    if isinstance(before, str) and isinstance(now, dict) and now.get("name") == before:
        return None  # earlier versions recorded only the place of a function
    if isinstance(before, dict) and isinstance(now, dict):
        if before.get("name") != now.get("name"):
            return Difference(field, _shown(before), _shown(now))
        for key in dict.fromkeys((*before, *now)):
            if key in before or key not in _LATER:
                first = difference(before.get(key), now.get(key), f"{field}.{key}")
                if first is not None:
                    return first
        return None
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        deeper = (difference(one, other, f"{field}[{i}]") for i, (one, other) in pairs if isinstance(one, dict | list))
        return next(filter(None, deeper), None if before == now else Difference(field, before, now))
    return None if before == now else Difference(field, _shown(before), _shown(now))


def _shown(described: Any) -> Any:
    """The name in a description, or the description itself if it has none."""
    return described.get("name", described) if isinstance(described, dict) else described
