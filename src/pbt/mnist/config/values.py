"""What a single value of a configuration may look like: text or JSON in, plain Python out.

The files write lists as text, `"0.1,0.0001"`, and switches as 0 and 1; the command line has nothing but text. So a
number may come as its text everywhere, and one parser serves files, overrides and stored configurations. Every
parser raises ValueError; what was expected is said once, by the key's own description.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SUFFIX = re.compile(r"[A-Za-z0-9._-]+")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """An interval of numbers, each end in it unless said to be open."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"from {self.low:g}"
        high = f"below {self.high:g}" if self.open_high else f"up to {self.high:g}"
        return f"{low} {high}"


HYPERPARAMETERS: dict[str, Bounds] = {
    "lr": Bounds(low=0, high=10, open_low=True),
    "keep_prob": Bounds(low=0, high=1, open_low=True),
    "weight_decay": Bounds(low=0, high=1),
    "label_smoothing": Bounds(low=0, high=1, open_high=True),
    "beta1": Bounds(low=0, high=1, open_high=True),
    "beta2": Bounds(low=0, high=1, open_high=True),
}
"""The values that training takes and that may evolve, each with its limits."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A parser that can say what it expects; it raises ValueError for anything else."""

    expected: str
    parse: Callable[[object], T]

    def __call__(self, value: object) -> T:
        """The value, parsed."""
        return self.parse(value)


def whole(low: int, high: int) -> Kind[int]:
    """Whole numbers of a range, both ends in it."""
    return Kind(f"a whole number from {low} to {high}", _checked(_integer, lambda value: low <= value <= high))


def real(limits: Bounds) -> Kind[float]:
    """Numbers inside limits."""
    return Kind(f"a number {limits}", _checked(number, limits.__contains__))


def one_of(words: tuple[str, ...]) -> Kind[str]:
    """A few words."""
    expected = " or ".join([", ".join(map(repr, words[:-1])), repr(words[-1])] if words[1:] else map(repr, words))
    return Kind(expected, _checked(_text, words.__contains__))


def suffix(most: int) -> Kind[str]:
    """The end of a file's name: letters, digits, and the characters - _ and ."""

    def fits(text: str) -> bool:
        return bool(_SUFFIX.fullmatch(text)) and len(text) <= most

    return Kind(f"1 to {most} letters, digits, '-', '_' or '.'", _checked(_text, fits))


def many(item: Kind[T], what: str, least: int, most: int, *, distinct: bool = False) -> Kind[tuple[T, ...]]:
    """Lists: JSON lists, text with commas, or a single value."""

    def fits(values: tuple[T, ...]) -> bool:
        return least <= len(values) <= most and not (distinct and len(set(values)) < len(values))

    amount = f"{least} to {most}" if least else f"up to {most}"
    expected = f"{amount} {'different ' if distinct else ''}{what}, each {item.expected}"
    return Kind(expected, _checked(lambda value: tuple(item(entry) for entry in entries(value)), fits))


def entries(value: object) -> list[object]:
    """The entries of a list that may be written as text, `"0.1,0.0001"`, or be a single value."""
    if isinstance(value, str):
        return list(value.split(",")) if value.strip() else []
    return list(value) if isinstance(value, list | tuple) else [value]


def _checked(parse: Callable[[object], T], fits: Callable[[T], bool]) -> Callable[[object], T]:
    def parse_checked(value: object) -> T:
        parsed = parse(value)
        if not fits(parsed):
            raise ValueError("out of range")
        return parsed

    return parse_checked


def number(value: object) -> float:
    """A finite number, given as one or as its text.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            parsed = float(value)
        except OverflowError as error:
            raise ValueError("too large") from error
        if math.isfinite(parsed):
            return parsed
    raise ValueError("no finite number")


def _integer(value: object) -> int:
    """A whole number, given as one or as its text."""
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("no whole number")


def _flag(value: object) -> bool:
    """A switch: 0, 1, true or false, or the text of one."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | str) and (word := str(value).strip().lower()) in _FLAGS:
        return _FLAGS[word]
    raise ValueError("no switch")


def _folder(value: object) -> Path:
    """A path, `~` expanded."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("no path")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # a user that is not known
        raise ValueError("no such home") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("no text")
    return value


def _file(value: object) -> str:
    """A file's name or nothing, `~` expanded."""
    text = _text(value)
    return str(_folder(text)) if text.startswith("~") else text


def _optional(parse: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None or value == "" else parse(value)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The same or nothing, written as null or empty text."""
    return Kind(f"{kind.expected}, or nothing", _optional(kind.parse))


FILE = Kind("a path, or nothing", _file)
FLAG = Kind("0 or 1", _flag)
FOLDER = Kind("a path", _folder)


def absolute(value: object) -> object:
    """A folder that was named on the command line, absolute: unlike a default it means this folder and no other."""
    try:
        return FOLDER(value).absolute()
    except ValueError:
        return value


def plain(value: object) -> object:
    """The value as the original's files write it: lists as text, switches as 0 and 1, paths as text."""
    if isinstance(value, tuple):
        return ",".join(str(plain(entry)) for entry in value)
    if isinstance(value, bool):
        return int(value)
    return str(value) if isinstance(value, Path) else value
