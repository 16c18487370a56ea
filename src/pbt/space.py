"""The search space: domains of hyperparameters and their moves.

A `Space` maps names to domains: `Float`, `Int` or `Choice`. Each domain samples, perturbs, shifts and clips its own
values. Names may be dotted (`"optimizer.lr"`), and a domain may be conditional on the value of another name.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

from pbt.errors import SpaceError, nearest

Value = float | int | str | bool | None
"""The value of a hyperparameter."""

HParams = Mapping[str, Any]
"""One `Value` per active name; never mutated."""

Scale = Literal["linear", "log", "one_minus_log"]
When = tuple[str, Value]


class Draws(Protocol):
    """The source of randomness of a domain; `pbt.core.rng.Rng` implements it."""

    def random(self) -> float:
        """A float in [0, 1)."""

    def below(self, n: int) -> int:
        """An integer in 0 .. n-1, uniformly distributed."""


_FORWARD: Mapping[Scale, Callable[[float], float]] = {
    "linear": float,
    "log": math.log,
    "one_minus_log": lambda value: -math.log1p(-value),
}
_BACK: Mapping[Scale, Callable[[float], float]] = {
    "linear": float,
    "log": math.exp,
    "one_minus_log": lambda value: -math.expm1(-value),
}
_LIMITS: Mapping[Scale, tuple[float, float]] = {
    "linear": (-math.inf, math.inf),
    "log": (0.0, math.inf),
    "one_minus_log": (-math.inf, 1.0),
}


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _shifted(value: float, by: float, bounds: tuple[float, float], scale: Scale) -> float:
    """`value` moved by a fraction of the range, measured in the scale; the nearer bound if that leaves the range."""
    forward = _FORWARD[scale]
    start, stop = forward(bounds[0]), forward(bounds[1])
    target = forward(value) + by * (stop - start)
    # Checked before the inverse, because the exponential overflows far outside the range.
    if not start < target < stop:
        return bounds[target >= stop]
    return _BACK[scale](target)


def _check_range(kind: str, bounds: tuple[float, float], scale: Scale, prior: tuple[float, float] | None) -> None:
    low, high = bounds
    if scale not in _FORWARD:
        raise SpaceError(f"{kind}: expected scale 'linear', 'log' or 'one_minus_log', got {scale!r}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpaceError(f"{kind}: expected finite bounds with low < high, got low={low!r}, high={high!r}")
    floor, ceiling = _LIMITS[scale]
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

    Raises:
        SpaceError: The bounds are not a finite range, or do not fit the scale or the prior.
    """

    low: float
    high: float
    scale: Scale = "linear"
    prior: tuple[float, float] | None = None
    when: When | None = None
    kind: ClassVar[str] = "float"

    def __post_init__(self) -> None:
        _check_range("Float", (self.low, self.high), self.scale, self.prior)

    def contains(self, value: Value) -> bool:
        """Whether `value` is a number within the bounds."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def clip(self, value: Any) -> float:
        """The nearest value within the bounds."""
        return float(_clamp(value, self.low, self.high))

    def sample(self, rng: Draws) -> float:
        """A sample from the prior, uniform in the scale."""
        low, high = self.prior or (self.low, self.high)
        forward = _FORWARD[self.scale]
        start = forward(low)
        return float(_clamp(_BACK[self.scale](start + rng.random() * (forward(high) - start)), low, high))

    def perturb(self, value: Any, factor: float, rng: Draws) -> float:  # noqa: ARG002 (one signature for all domains)
        """`value` times `factor`, clipped; under `one_minus_log` the distance from one is multiplied.

        A product never leaves zero, so zero moves by the corresponding fraction of the range instead.
        """
        if self.scale == "one_minus_log":
            return self.clip(1 - (1 - value) * factor)
        if value == 0:
            return self.clip((factor - 1) * (self.high - self.low))
        return self.clip(value * factor)

    def shift(self, value: Any, by: float, rng: Draws) -> float:  # noqa: ARG002
        """`value` moved by the fraction `by` of the range, measured in the scale, clipped."""
        return self.clip(_shifted(value, by, (self.low, self.high), self.scale))

    def describe(self) -> str:
        """A one-line description."""
        return f"float {self.low:g} .. {self.high:g} ({self.scale})"


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
        return int(_clamp(round(value), self.low, self.high))

    def sample(self, rng: Draws) -> int:
        """A sample from the prior: uniform over the integers, or uniform in the logarithm."""
        low, high = self.prior or (self.low, self.high)
        if self.scale == "linear":
            return low + rng.below(high - low + 1)
        # Half a unit on both sides gives the end values their share of the rounding.
        start, stop = math.log(low - 0.5), math.log(high + 0.5)
        return int(_clamp(round(math.exp(start + rng.random() * (stop - start))), low, high))

    def perturb(self, value: Any, factor: float, rng: Draws) -> int:  # noqa: ARG002
        """`value` times `factor`, rounded, at least one away from `value`, clipped; factor 1 changes nothing."""
        away = (factor > 1) - (factor < 1)
        return self._moved(value, value * factor, away if value >= 0 else -away)

    def shift(self, value: Any, by: float, rng: Draws) -> int:  # noqa: ARG002
        """`value` moved by the fraction `by` of the range, measured in the scale: at least one, clipped."""
        return self._moved(value, _shifted(value, by, (self.low, self.high), self.scale), (by > 0) - (by < 0))

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
        options: Distinct values: strings, numbers, booleans or None.
        ordered: True: a move goes to an adjacent option and stops at the ends. False: a move draws a new option.
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
        if not isinstance(options, (list, tuple)):
            raise SpaceError(f"Choice: expected a tuple of options, as Choice(('a', 'b')), got {options!r:.80}")
        ordered = others[0] if others else ordered
        when = others[1] if len(others) > 1 else when
        if not isinstance(ordered, bool):
            raise SpaceError(f"Choice: expected ordered to be True or False, got {ordered!r}")
        object.__setattr__(self, "options", tuple(options))
        object.__setattr__(self, "ordered", ordered)
        object.__setattr__(self, "when", when)
        self._check()

    def _check(self) -> None:
        for option in self.options:
            # NaN differs from itself: it could be sampled but never looked up.
            plain = option is None or isinstance(option, (str, int, float))
            if not plain or (isinstance(option, float) and math.isnan(option)):
                raise SpaceError(f"Choice: expected strings, numbers, booleans or None, got {option!r}")
        if not self.options or len({(type(option), option) for option in self.options}) < len(self.options):
            raise SpaceError(f"Choice: expected one or more distinct options, got {list(self.options)!r}")

    def contains(self, value: Value) -> bool:
        """Whether `value` is an option of the same type (1 is not True)."""
        return any(type(option) is type(value) and option == value for option in self.options)

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
        # Types are compared too: 1 == True, but they are distinct options.
        index = [(type(option), option) for option in self.options].index((type(value), value))
        return self.options[min(max(index + (by > 0) - (by < 0), 0), len(self.options) - 1)]

    def describe(self) -> str:
        """A one-line description."""
        return f"{'ordered ' if self.ordered else ''}choice of {', '.join(map(str, self.options))}"


def _call(given: tuple[Any, ...]) -> str:
    return repr(given) if len(given) > 1 else f"({given[0]!r})"


Domain = Float | Int | Choice
_KINDS: Mapping[str, type[Float | Int | Choice]] = {cls.kind: cls for cls in (Float, Int, Choice)}


class Space(Mapping[str, Domain]):
    """Named domains. A conditional domain follows the name it depends on.

    Args:
        domains: Domains by name. A name consists of identifiers joined by dots.

    Raises:
        SpaceError: An invalid name, or a condition on an unknown name or an impossible value.
    """

    def __init__(self, domains: Mapping[str, DomainBase]) -> None:
        self._domains: dict[str, Domain] = {}
        known = self._domains
        for name, domain in domains.items():
            if not isinstance(domain, Float | Int | Choice):
                raise SpaceError(f"hyperparameter '{name}': expected Float, Int or Choice, got {domain!r}")
            if not name or not all(part.isidentifier() for part in name.split(".")):
                raise SpaceError(f"hyperparameter {name!r}: expected identifiers joined by dots, as 'optimizer.lr'")
            if domain.when is not None:
                other, value = domain.when
                if other not in known:
                    raise SpaceError(f"hyperparameter '{name}' depends on '{other}', which must be defined before it")
                if not known[other].contains(value):
                    raise SpaceError(f"hyperparameter '{name}' depends on '{other}' = {value!r}, outside its domain")
            known[name] = domain
        # Without conditions every name is active, which saves a pass over the domains.
        self._is_flat = all(domain.when is None for domain in known.values())

    def __getitem__(self, name: str) -> Domain:
        return self._domains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def __repr__(self) -> str:
        return f"Space({self._domains!r})"

    def active(self, hparams: HParams) -> Iterator[str]:
        """The names that are active under these values, in order."""
        present: set[str] = set()
        for name, domain in self._domains.items():
            if domain.when is None or (domain.when[0] in present and hparams.get(domain.when[0]) == domain.when[1]):
                present.add(name)
                yield name

    def sample(self, rng: Draws) -> dict[str, Value]:
        """A value for every active name, each sampled from its prior."""
        return self.settle({}, rng)

    def settle(self, hparams: HParams, rng: Draws) -> dict[str, Value]:
        """The values with newly active names sampled from their priors and inactive names removed."""
        if self._is_flat and hparams.keys() == self._domains.keys():
            return {name: hparams[name] for name in self._domains}
        settled: dict[str, Value] = {}
        for name, domain in self._domains.items():
            if domain.when is None or (domain.when[0] in settled and settled[domain.when[0]] == domain.when[1]):
                settled[name] = hparams[name] if name in hparams else domain.sample(rng)
        return settled

    def clip(self, hparams: HParams) -> dict[str, Value]:
        """Every value clipped to its domain."""
        return {name: self[name].clip(value) for name, value in hparams.items()}

    def contains(self, hparams: HParams) -> bool:
        """Whether exactly the active names have values, each within its domain."""
        if self._is_flat:
            if hparams.keys() != self._domains.keys():
                return False
        elif set(self.active(hparams)) != set(hparams):
            return False
        return all(self._domains[name].contains(value) for name, value in hparams.items())

    def check(self, hparams: HParams, label: str = "hyperparameters") -> dict[str, Value]:
        """The values as a dict in the order of the space.

        Raises:
            SpaceError: A name is unknown or missing, or a value is outside its domain; the message starts with `label`.
        """
        if self._is_flat and self.contains(hparams):
            return {name: hparams[name] for name in self._domains}
        for name in hparams:
            if name not in self:
                raise SpaceError(f"{label}: unknown name '{name}'{nearest(name, self)}")
        active = tuple(self.active(hparams))
        for name in active:
            if name not in hparams:
                raise SpaceError(f"{label}: expected a value for '{name}' ({self[name].describe()}), got none")
            if not self[name].contains(hparams[name]):
                raise SpaceError(f"{label}: '{name}' must be {self[name].describe()}, got {hparams[name]!r}")
        extra = set(hparams).difference(active)
        if extra:
            raise SpaceError(f"{label}: {sorted(extra)} are inactive under the other values")
        return {name: hparams[name] for name in active}

    def describe(self) -> dict[str, str]:
        """A one-line description per name."""
        return {name: domain.describe() for name, domain in self.items()}

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values; `from_dict` restores an equal space."""
        return {name: {"kind": domain.kind, **asdict(domain)} for name, domain in self.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Mapping[str, Any]]) -> "Space":
        """The space that `to_dict` described."""
        return cls({name: _domain(dict(fields)) for name, fields in plain.items()})


def _domain(fields: dict[str, Any]) -> Domain:
    for key in ("prior", "when", "options"):
        if fields.get(key) is not None:
            fields[key] = tuple(fields[key])
    return _KINDS[fields.pop("kind")](**fields)
