"""The `PBT_<name>` keys: the evolving hyperparameters with their initial ranges and bounds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import TypeAdapter, ValidationError

from pbt.errors import nearest
from pbt.mnist.config.types import HYPERPARAMETERS, Number, entries, in_words, plain

_KEY = re.compile(r"PBT_(?P<name>.*?)(?P<part>|_bounds|_scale)", re.DOTALL)
_MOST_VALUES = 1000
_NUMBERS = TypeAdapter(list[Number])
_IN_RANGE = {name: TypeAdapter(Annotated[float, limits]) for name, limits in HYPERPARAMETERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolving:
    """An evolving hyperparameter."""

    name: str
    values: tuple[float, ...]  # a range: initial low and high; a choice: the options, ascending
    kind: Literal["range", "choice"]
    bounds: tuple[float, float]  # lowest and highest value at any time
    scale: Literal["linear", "log"] = "linear"

    def to_plain(self) -> dict[str, object]:
        """Its keys in a file."""
        given: dict[str, object] = {f"PBT_{self.name}": plain(self.values)}
        if self.kind == "range" and self.bounds != self.values:
            given[f"PBT_{self.name}_bounds"] = plain(self.bounds)
        if self.scale != "linear":
            given[f"PBT_{self.name}_scale"] = self.scale
        return given


class EvolvingError(ValueError):
    """A wrong key, and the reason."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def is_evolving_key(key: str) -> bool:
    """Whether a key of a file belongs to this module."""
    return key.startswith("PBT_")


def parse_evolving(keys: Mapping[str, object]) -> tuple[dict[str, Evolving], list[EvolvingError]]:
    """Read all `PBT_` keys, in the order of the file.

    Returns:
        The evolving hyperparameters by name, and all errors.
    """
    evolving: dict[str, Evolving] = {}
    errors: list[EvolvingError] = []
    for key, value in keys.items():
        try:
            name, part = _split(key, keys)
            if not part:
                evolving[name] = _parse(name, value, keys)
        except EvolvingError as error:
            errors.append(error)
    return evolving, errors


def _split(key: str, keys: Mapping[str, object]) -> tuple[str, str]:
    match = _KEY.fullmatch(key)
    name, part = (match["name"], match["part"]) if match else ("", "")
    if name not in HYPERPARAMETERS:
        raise EvolvingError(key, f"{name!r} cannot evolve{nearest(name, HYPERPARAMETERS)}")
    if f"PBT_{name}" not in keys:
        raise EvolvingError(key, f"expected PBT_{name} beside it, found none")
    return name, part


def _parse(name: str, value: object, keys: Mapping[str, object]) -> Evolving:
    key = f"PBT_{name}"
    numbers = _numbers(key, value, name)
    if not 2 <= len(numbers) <= _MOST_VALUES or len(set(numbers)) < len(numbers):
        raise EvolvingError(key, f"expected two different numbers (a range) or more (choices), found {short(value)}")
    # Sorted: a range may be written either way round, and the neighbor of a choice is the next larger or smaller.
    values = tuple(sorted(numbers))
    bounds, scale = keys.get(f"{key}_bounds"), keys.get(f"{key}_scale")
    if len(values) > 2:
        for part, given in (("bounds", bounds), ("scale", scale)):
            if given is not None:
                raise EvolvingError(f"{key}_{part}", f"expected {key} to be a range, found choices")
        return Evolving(name=name, values=values, kind="choice", bounds=(values[0], values[-1]))
    low, high = _bounds(name, bounds, values) if bounds is not None else values
    return Evolving(name=name, values=values, kind="range", bounds=(low, high), scale=_scale(key, scale, low))


def _numbers(key: str, value: object, name: str) -> list[float]:
    """The numbers of a key, each in the range of the hyperparameter."""
    try:
        numbers = _NUMBERS.validate_python(list(entries(value)), strict=True)
    except ValidationError:
        raise EvolvingError(key, f"expected numbers, found {short(value)}") from None
    for entry in numbers:
        try:
            _IN_RANGE[name].validate_python(entry)
        except ValidationError:
            limits = in_words(HYPERPARAMETERS[name].metadata)
            raise EvolvingError(key, f"expected numbers {limits}, found {entry:g}") from None
    return numbers


def _bounds(name: str, value: object, prior: tuple[float, ...]) -> tuple[float, float]:
    key = f"PBT_{name}_bounds"
    bounds = sorted(_numbers(key, value, name))
    if len(bounds) != 2 or not bounds[0] <= prior[0] <= prior[1] <= bounds[1]:
        raise EvolvingError(
            key, f"expected two numbers with {prior[0]:g} to {prior[1]:g} between them, found {short(value)}"
        )
    return bounds[0], bounds[1]


def _scale(key: str, value: object, low: float) -> Literal["linear", "log"]:
    if value is None or value == "linear":
        return "linear"
    if value != "log":
        raise EvolvingError(f"{key}_scale", f"expected 'linear' or 'log', found {short(value)}")
    if low <= 0:
        raise EvolvingError(f"{key}_scale", "expected 'linear', because a log scale has no 0, found 'log'")
    return "log"


def short(value: object) -> str:
    """The representation of a value in an error, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
