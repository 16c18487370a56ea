"""The domains of hyperparameters: `Float`, `Int` and `Choice`, each of which samples and moves its own values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from pbt.errors import SpaceError
from pbt.scales import BACK, FORWARD, LIMITS, Scale, clamp, shifted
from pbt.values import Value, is_option, plain, typed

When = tuple[str, Value]


class Draws(Protocol):
    """The source of randomness of a domain; `pbt.core.rng.Rng` implements it."""

    def random(self) -> float:
        """A float in [0, 1)."""

    def below(self, n: int) -> int:
        """An integer in 0 .. n-1, uniformly distributed."""


def _check_range(kind: str, bounds: tuple[float, float], scale: Scale, prior: tuple[float, float] | None) -> None:
    low, high = bounds
    if scale not in FORWARD:
        raise SpaceError(f"{kind}: expected scale 'linear', 'log' or 'one_minus_log', got {scale!r}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpaceError(f"{kind}: expected finite bounds with low < high, got low={low!r}, high={high!r}")
    floor, ceiling = LIMITS[scale]
    if low <= floor or high >= ceiling:
        raise SpaceError(f"{kind}: scale {scale!r} needs bounds inside ({floor}, {ceiling}), got {low!r} .. {high!r}")
    if prior is not None and not low <= prior[0] <= prior[1] <= high:
        raise SpaceError(f"{kind}: expected a prior (a, b) with {low!r} <= a <= b <= {high!r}, got {prior!r}")


class DomainBase:
    """The base of all domains: type checkers infer it for a dictionary with domains of several kinds."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Float(DomainBase):
    """A real number in [low, high].

    Args:
        low: Smallest value.
        high: Largest value.
        scale: `"linear"`; `"log"` for parameters that act by order of magnitude (requires low > 0);
            `"one_minus_log"` for parameters that act by distance from one, such as a discount (requires high < 1).
        prior: The range of initial values, uniform in the scale; default (low, high).
        when: `(name, value)`: the parameter exists only while that other parameter has that value.
        step: The values are `low`, `low + step`, `low + 2 * step`, ..., and every move changes a value by at least one
            step, unless a bound prevents it. Default: all real numbers of the range.

    Raises:
        SpaceError: The bounds are not a finite range, or do not fit the scale, the prior or the step.
    """

    low: float
    high: float
    scale: Scale = "linear"
    prior: tuple[float, float] | None = None
    when: When | None = None
    step: float | None = None
    kind: ClassVar[str] = "float"

    def __post_init__(self) -> None:
        for name in ("low", "high", "prior", "when", "step"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        _check_range("Float", (self.low, self.high), self.scale, self.prior)
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise SpaceError(f"Float: expected a step above 0 and up to {self.high - self.low:g}, got {self.step!r}")

    def contains(self, value: Value) -> bool:
        """Whether `value` is a number within the bounds, and a step of the grid."""
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        return self.step is None or math.isclose(value, self._on_grid(value), rel_tol=1e-9, abs_tol=1e-9 * self.step)

    def clip(self, value: Any) -> float:
        """The nearest value within the bounds and on the grid."""
        near = float(clamp(value, self.low, self.high))
        return near if self.step is None else self._on_grid(near)

    def _on_grid(self, value: float) -> float:
        """The nearest step; rounded, so that 0.1 + 2 * 0.1 is 0.3."""
        step = self.step or 1.0
        last = math.floor((self.high - self.low) / step + 1e-9)
        return float(f"{self.low + min(round((value - self.low) / step), last) * step:.12g}")

    def _moved(self, value: float, target: float, direction: int) -> float:
        """The target within the domain; on a grid at least one step away from the value."""
        moved = self.clip(target)
        if self.step is None or not direction or not math.isclose(moved, value, rel_tol=1e-9):
            return moved
        return self.clip(value + direction * self.step)

    def sample(self, rng: Draws) -> float:
        """A sample from the prior, uniform in the scale."""
        low, high = self.prior or (self.low, self.high)
        forward = FORWARD[self.scale]
        start = forward(low)
        return self.clip(clamp(BACK[self.scale](start + rng.random() * (forward(high) - start)), low, high))

    def perturb(self, value: Any, factor: float, rng: Draws) -> float:  # noqa: ARG002 (one signature for all domains)
        """`value` times `factor`, clipped; under `one_minus_log` the distance from one is multiplied.

        A product never leaves zero, so zero moves by the corresponding fraction of the range instead.
        """
        away = (factor > 1) - (factor < 1)
        if self.scale == "one_minus_log":
            return self._moved(value, 1 - (1 - value) * factor, -away)
        if value == 0:
            return self._moved(value, (factor - 1) * (self.high - self.low), away)
        return self._moved(value, value * factor, away if value > 0 else -away)

    def shift(self, value: Any, by: float, rng: Draws) -> float:  # noqa: ARG002
        """`value` moved by the fraction `by` of the range, measured in the scale, clipped."""
        target = shifted(value, by, (self.low, self.high), self.scale)
        return self._moved(value, target, (by > 0) - (by < 0))

    def describe(self) -> str:
        """A one-line description."""
        grid = "" if self.step is None else f", step {self.step:g}"
        return f"float {self.low:g} .. {self.high:g} ({self.scale}{grid})"


@dataclass(frozen=True, slots=True)
class Int(DomainBase):
    """An integer in [low, high]; every move changes it by at least one, unless a bound prevents it.

    Args:
        low: Smallest value.
        high: Largest value.
        scale: `"linear"` or `"log"` (needs low > 0).
        prior: The range of initial values; default (low, high).
        when: `(name, value)`: the parameter exists only while that other parameter has that value.

    Raises:
        SpaceError: The bounds are not a range of integers, or do not fit the scale or the prior.
    """

    low: int
    high: int
    scale: Literal["linear", "log"] = "linear"
    prior: tuple[int, int] | None = None
    when: When | None = None
    kind: ClassVar[str] = "int"

    def __post_init__(self) -> None:
        for name in ("low", "high", "prior", "when"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        ends = (self.low, self.high, *(self.prior or ()))
        if any(isinstance(end, bool) or not isinstance(end, int) for end in ends):
            raise SpaceError(f"Int: expected whole numbers, got {ends!r}; use Float for real ones")
        if self.scale not in ("linear", "log"):
            raise SpaceError(f"Int: expected scale 'linear' or 'log', got {self.scale!r}")
        _check_range("Int", (self.low, self.high), self.scale, self.prior)

    def contains(self, value: Value) -> bool:
        """Whether `value` is an integer within the bounds."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def clip(self, value: Any) -> int:
        """The nearest integer within the bounds."""
        return int(clamp(round(value), self.low, self.high))

    def sample(self, rng: Draws) -> int:
        """A sample from the prior: uniform over the integers, or uniform in the logarithm."""
        low, high = self.prior or (self.low, self.high)
        if self.scale == "linear":
            return low + rng.below(high - low + 1)
        # Half a unit on both sides gives the end values their share of the rounding.
        start, stop = math.log(low - 0.5), math.log(high + 0.5)
        return int(clamp(round(math.exp(start + rng.random() * (stop - start))), low, high))

    def perturb(self, value: Any, factor: float, rng: Draws) -> int:  # noqa: ARG002
        """`value` times `factor`, rounded, at least one away from `value`, clipped; factor 1 changes nothing."""
        away = (factor > 1) - (factor < 1)
        return self._moved(value, value * factor, away if value >= 0 else -away)

    def shift(self, value: Any, by: float, rng: Draws) -> int:  # noqa: ARG002
        """`value` moved by the fraction `by` of the range, measured in the scale: at least one, clipped."""
        return self._moved(value, shifted(value, by, (self.low, self.high), self.scale), (by > 0) - (by < 0))

    def _moved(self, value: int, target: float, direction: int) -> int:
        moved = round(target)
        return self.clip(value + direction if moved == value else moved)

    def describe(self) -> str:
        """A one-line description."""
        return f"int {self.low} .. {self.high} ({self.scale})"


@dataclass(frozen=True, slots=True, init=False)
class Choice(DomainBase):
    """One of several values.

    Args:
        options: Distinct values: strings, numbers, booleans, None, or tuples of these, such as `(0.9, 0.999)` for
            `betas`. A list is taken as a tuple.
        ordered: True: a move goes to an adjacent option and stops at the ends. False: options have no neighbours, so
            every perturbation draws an option anew, which may be the same one.
        when: `(name, value)`: the parameter exists only while that other parameter has that value.

    Raises:
        SpaceError: No options, a duplicate option, or an option of another type.
    """

    options: tuple[Value, ...]
    ordered: bool = False
    when: When | None = None
    kind: ClassVar[str] = "choice"

    def __init__(self, options: Sequence[Value], *others: Any, ordered: Any = False, when: When | None = None) -> None:
        # `others` serves the error message only: Choice("a", "b") would otherwise mean one option, ordered.
        if isinstance(options, str) or (others and not isinstance(others[0], bool)) or len(others) > 2:
            given = (options, *others)
            raise SpaceError(f"Choice: expected one tuple of options, as Choice({given!r}), got Choice{_call(given)}")
        if not isinstance(plain(options), tuple):
            raise SpaceError(f"Choice: expected a tuple of options, as Choice(('a', 'b')), got {options!r:.80}")
        ordered = others[0] if others else ordered
        when = others[1] if len(others) > 1 else when
        if not isinstance(ordered, bool):
            raise SpaceError(f"Choice: expected ordered to be True or False, got {ordered!r}")
        object.__setattr__(self, "options", plain(options))
        object.__setattr__(self, "ordered", ordered)
        object.__setattr__(self, "when", plain(when))
        self._check()

    def _check(self) -> None:
        for option in self.options:
            if not is_option(option):
                raise SpaceError(
                    f"Choice: expected strings, numbers, booleans, None or tuples of these as options, got {option!r}"
                )
        if not self.options or len(set(map(typed, self.options))) < len(self.options):
            raise SpaceError(f"Choice: expected one or more distinct options, got {list(self.options)!r}")

    def contains(self, value: Value) -> bool:
        """Whether `value` is an option of the same type (1 is not True)."""
        if type(value) is tuple:
            return self.place(value) is not None
        return any(type(option) is type(value) and option == value for option in self.options)

    def place(self, value: Any) -> int | None:
        """The index of `value` among the options, compared with its type; None if it is no option."""
        places = {typed(option): i for i, option in enumerate(self.options)}
        return places.get(typed(plain(value)))

    def clip(self, value: Value) -> Value:
        """`value` itself; a choice has no nearest option.

        Raises:
            SpaceError: `value` is not an option.
        """
        if not self.contains(value):
            raise SpaceError(f"expected one of {list(self.options)!r}, got {value!r}")
        return value

    def sample(self, rng: Draws) -> Value:
        """A uniformly drawn option."""
        return self.options[rng.below(len(self.options))]

    def perturb(self, value: Value, factor: float, rng: Draws) -> Value:
        """The next option (factor > 1) or the previous one (factor < 1); unordered options are drawn anew."""
        return self.shift(value, factor - 1, rng)

    def shift(self, value: Value, by: float, rng: Draws) -> Value:
        """The adjacent option in the direction of `by`; unordered options are drawn anew."""
        if not self.ordered:
            return self.sample(rng)
        index = [typed(option) for option in self.options].index(typed(value))
        return self.options[min(max(index + (by > 0) - (by < 0), 0), len(self.options) - 1)]

    def describe(self) -> str:
        """A one-line description."""
        return f"{'ordered ' if self.ordered else ''}choice of {', '.join(map(str, self.options))}"


def _call(given: tuple[Any, ...]) -> str:
    return repr(given) if len(given) > 1 else f"({given[0]!r})"


Domain = Float | Int | Choice
_KINDS: Mapping[str, type[Float | Int | Choice]] = {cls.kind: cls for cls in (Float, Int, Choice)}


def domain_from(fields: dict[str, Any]) -> Domain:
    """The domain of plain values: its kind and its fields."""
    return _KINDS[fields.pop("kind")](**fields)
