"""Field types of the configuration: pydantic's, which also accept numbers, switches and lists as text.

The original's files write lists as text, `"0.1,0.0001"`, and switches as 0 and 1; on the command line all values are
text. The same types read files, overrides and stored configurations, and `describe` puts them into words.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

T = TypeVar("T")

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SWITCHES = {"0": False, "1": True, "false": False, "true": True}


def _number(value: object) -> object:
    """The number that a text stands for; other values unchanged."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(text := value.strip()):
        return value
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def _switch(value: object) -> object:
    """The switch that 0, 1, or the text of a switch stands for."""
    if isinstance(value, int | str) and (word := str(value).strip().lower()) in _SWITCHES:
        return _SWITCHES[word]
    return value


def _folder(value: object) -> object:
    """The path that a text stands for, `~` expanded."""
    if not isinstance(value, str):
        return value
    if not value.strip() or "\0" in value:
        raise ValueError("no path")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # an unknown user
        raise ValueError("no such home") from error


def _file(value: object) -> object:
    """The name of a file, `~` expanded; empty for none."""
    if isinstance(value, str) and "\0" in value:
        raise ValueError("no path")
    return str(_folder(value)) if isinstance(value, str) and value.startswith("~") else value


def _nothing(value: object) -> object:
    """None for an empty text."""
    return None if value == "" else _number(value)


def entries(value: object) -> tuple[object, ...]:
    """The entries of a JSON list, of a text with commas, or a single value."""
    if isinstance(value, str):
        return tuple(value.split(",")) if value.strip() else ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("not distinct")
    return values


Integer = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
OptionalInteger = Annotated[int | None, BeforeValidator(_nothing)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Folder = Annotated[Path, BeforeValidator(_folder), "a path"]
File = Annotated[str, BeforeValidator(_file), "a path, or nothing"]
Suffix = Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z0-9._-]+$"), "1 to 40 letters, digits, '-', '_' or '.'"]
Entries, Distinct = BeforeValidator(entries), AfterValidator(_distinct)
"""Of a tuple: read it as a list; its entries must differ."""

HYPERPARAMETERS: dict[str, Any] = {
    "lr": Field(gt=0, le=10),
    "keep_prob": Field(gt=0, le=1),
    "weight_decay": Field(ge=0, le=1),
    "label_smoothing": Field(ge=0, lt=1),
    "beta1": Field(ge=0, lt=1),
    "beta2": Field(ge=0, lt=1),
}
"""The hyperparameters that may evolve, each with its range."""


def describe(annotation: Any, metadata: Sequence[Any]) -> str:
    """The values that a field accepts, in words.

    Args:
        annotation: The type of the field.
        metadata: Its constraints. A text describes the values, of a tuple its entries.
    """
    flat = [item for part in metadata for item in (part.metadata if isinstance(part, FieldInfo) else [part])]
    words = next((item for item in flat if isinstance(item, str)), "")
    bounds = _attributes(flat, ("ge", "gt", "le", "lt", "min_length", "max_length"))
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return f"{describe(get_args(annotation)[0], metadata)}, or nothing"
    if origin is Literal:
        *first, last = map(repr, get_args(annotation))
        return f"{', '.join(first)} or {last}" if first else last
    if origin is tuple:
        item, *_ = get_args(annotation)
        least, most = bounds.get("min_length", 0), bounds["max_length"]
        amount = f"{least} to {most}" if least else f"up to {most}"
        return (
            f"{amount} {'different ' * (Distinct in flat)}{words}, each {describe(item.__origin__, item.__metadata__)}"
        )
    if annotation is int:
        return f"a whole number from {bounds['ge']} to {bounds['le']}"
    if annotation is float:
        return f"a number {in_words(flat)}"
    return words or "0 or 1"


def in_words(metadata: Iterable[Any]) -> str:
    """The bounds of a number, as `above 0 up to 10`."""
    bounds = _attributes(metadata, ("ge", "gt", "le", "lt"))
    low = f"above {bounds['gt']:g}" if "gt" in bounds else f"from {bounds['ge']:g}"
    high = f"below {bounds['lt']:g}" if "lt" in bounds else f"up to {bounds['le']:g}"
    return f"{low} {high}"


def _attributes(metadata: Iterable[Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(item, name) for item in metadata for name in names if hasattr(item, name)}


def absolute(value: object) -> object:
    """A folder of the command line as an absolute path, which never equals the default; a wrong value unchanged."""
    try:
        found = _folder(value)
    except ValueError:
        return value
    return found.absolute() if isinstance(found, Path) else value


def plain(value: object) -> object:
    """The value as the original's files write it: lists as text, switches as 0 and 1, paths as text."""
    if isinstance(value, tuple):
        return ",".join(str(plain(entry)) for entry in value)
    if isinstance(value, bool):
        return int(value)
    return str(value) if isinstance(value, Path) else value
