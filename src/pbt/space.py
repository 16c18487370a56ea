"""The search space: domains of hyperparameters and their moves.

A `Space` maps names to domains: `Float`, `Int` or `Choice`. Each domain samples, perturbs, shifts and clips its own
values. Names may be dotted (`"optimizer.lr"`), and a domain may be conditional on the value of another name.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

from pbt.errors import SpaceError, nearest
from pbt.scales import BACK, FORWARD, LIMITS, Scale, clamp, shifted

Value = float | int | str | bool | None
"""The value of a hyperparameter."""

HParams = Mapping[str, Any]
"""One `Value` per active name; never mutated."""

When = tuple[str, Value]
Constraint = Callable[[HParams], "bool | HParams"]
"""A condition on all values together: whether they may be trained, or the values repaired so that they may."""
SAMPLES = 10_000
"""The most samples that are drawn until one satisfies a constraint."""


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
        for name in ("low", "high"):
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
        for name in ("low", "high"):
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
        options: Distinct values: strings, numbers, booleans or None.
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
        if not isinstance(options, (list, tuple)):
            raise SpaceError(f"Choice: expected a tuple of options, as Choice(('a', 'b')), got {options!r:.80}")
        ordered = others[0] if others else ordered
        when = others[1] if len(others) > 1 else when
        if not isinstance(ordered, bool):
            raise SpaceError(f"Choice: expected ordered to be True or False, got {ordered!r}")
        object.__setattr__(self, "options", tuple(map(plain, options)))
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
_NAME = re.compile(r"[^\W\d]\w*([-./]\w+)*")
_KINDS: Mapping[str, type[Float | Int | Choice]] = {cls.kind: cls for cls in (Float, Int, Choice)}


class Space(Mapping[str, Domain]):
    """Named domains. A conditional domain follows the name it depends on.

    Args:
        domains: Domains by name. A name consists of letters, digits and `_`, `-`, `.` and `/`, and begins with a letter
            or `_`.
        constraint: A pure function of all values: a predicate, or a repair that returns the values to train. It holds
            for initial values and for every strategy: what a predicate refuses is drawn again. Default: the constraint
            of `domains` if that is a `Space`, else none.

    Raises:
        SpaceError: An invalid name, or a condition on an unknown name or an impossible value.
    """

    def __init__(self, domains: Mapping[str, DomainBase], constraint: Constraint | None = None) -> None:
        self.constraint: Constraint | None = constraint
        if constraint is None and isinstance(domains, Space):
            self.constraint = domains.constraint
        self._domains: dict[str, Domain] = {}
        known = self._domains
        for name, domain in domains.items():
            if not isinstance(domain, Float | Int | Choice):
                raise SpaceError(f"hyperparameter '{name}': expected Float, Int or Choice, got {domain!r}")
            if not isinstance(name, str) or not _NAME.fullmatch(name):  # type: ignore[redundant-expr]
                raise SpaceError(
                    f"hyperparameter {name!r}: expected letters, digits, and `_`, `-`, `.` and `/` between them, as "
                    "'optimizer.lr' or 'weight-decay'"
                )
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
        """A value for every active name, each sampled from its prior, so that the constraint holds."""
        return self.completed({}, rng)

    def completed(self, hparams: HParams, rng: Draws) -> dict[str, Value]:
        """The values with all other active names sampled from their priors, so that the constraint holds.

        Raises:
            SpaceError: No sample satisfied the constraint.
        """
        for _ in range(SAMPLES):
            settled = self.settle(hparams, rng)
            if self.allows(settled):
                return settled
            if hparams.keys() >= settled.keys():
                break
        raise SpaceError(
            f"constraint {_named(self.constraint)}: refuses {dict(hparams)}"
            if hparams.keys() >= settled.keys()
            else f"constraint {_named(self.constraint)}: refused all of {SAMPLES:,} samples, the last {settled}"
        )

    def settle(self, hparams: HParams, rng: Draws) -> dict[str, Value]:
        """The values with newly active names sampled from their priors and inactive names removed, and repaired."""
        if self._is_flat and hparams.keys() == self._domains.keys():
            settled = {name: hparams[name] for name in self._domains}
        else:
            settled = {}
            for name, domain in self._domains.items():
                if domain.when is None or (domain.when[0] in settled and settled[domain.when[0]] == domain.when[1]):
                    settled[name] = hparams[name] if name in hparams else domain.sample(rng)
        answer = None if self.constraint is None else self._answer(settled)
        return dict(answer) if isinstance(answer, Mapping) else settled

    def allows(self, hparams: HParams) -> bool:
        """Whether the constraint accepts these values, unrepaired."""
        if self.constraint is None:
            return True
        answer = self._answer(hparams)
        return answer == dict(hparams) if isinstance(answer, Mapping) else bool(answer)

    def _answer(self, hparams: HParams) -> "bool | Mapping[str, Value]":
        """The answer of the constraint: whether the values are accepted, or the repaired values, checked."""
        assert self.constraint is not None  # noqa: S101 (called only then)
        label = f"constraint {_named(self.constraint)}"
        try:
            answer: Any = self.constraint(hparams)
        except Exception as error:
            raise SpaceError(f"{label}: failed for {dict(hparams)} ({type(error).__name__}: {error})") from error
        if isinstance(answer, Mapping):
            return self.check(answer, label)
        answer = plain(answer)
        if not isinstance(answer, bool):
            raise SpaceError(f"{label}: expected True, False or repaired values, got {answer!r:.80}")
        return answer

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

    def check_given(self, hparams: HParams, label: str) -> dict[str, Value]:
        """Values of some of the names, each checked by itself.

        Raises:
            SpaceError: A name is unknown, or a value is outside its domain; the message starts with `label`.
        """
        given = {name: plain(value) for name, value in hparams.items()}
        for name, value in given.items():
            if name not in self:
                raise SpaceError(f"{label}: unknown name '{name}'{nearest(name, self)}")
            if not self[name].contains(value):
                raise SpaceError(f"{label}: '{name}' must be {self[name].describe()}, got {value!r}")
        return given

    def check(self, hparams: HParams, label: str = "hyperparameters") -> dict[str, Value]:
        """The values as a dict in the order of the space.

        Raises:
            SpaceError: A name is unknown or missing, or a value is outside its domain; the message starts with `label`.
        """
        if self._is_flat and self.contains(hparams):
            return {name: hparams[name] for name in self._domains}
        hparams = self.check_given(hparams, label)
        active = tuple(self.active(hparams))
        for name in active:
            if name not in hparams:
                raise SpaceError(f"{label}: expected a value for '{name}' ({self[name].describe()}), got none")
        extra = set(hparams).difference(active)
        if extra:
            raise SpaceError(f"{label}: {sorted(extra)} are inactive under the other values")
        return {name: hparams[name] for name in active}

    def describe(self) -> dict[str, str]:
        """A one-line description per name."""
        return {name: domain.describe() for name, domain in self.items()}

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values; `from_dict` restores an equal space."""
        plain_fields = {name: asdict(domain) for name, domain in self.items()}
        for fields in plain_fields.values():
            if "step" in fields and fields["step"] is None:
                del fields["step"]  # earlier versions had none, and their runs are compared with this one
        return {name: {"kind": self[name].kind, **fields} for name, fields in plain_fields.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Mapping[str, Any]]) -> "Space":
        """The space that `to_dict` described."""
        return cls({name: _domain(dict(fields)) for name, fields in plain.items()})


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python; any other value as it is."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _named(constraint: Constraint | None) -> str:
    return getattr(constraint, "__name__", type(constraint).__name__)


def _domain(fields: dict[str, Any]) -> Domain:
    for key in ("prior", "when", "options"):
        if fields.get(key) is not None:
            fields[key] = tuple(fields[key])
    return _KINDS[fields.pop("kind")](**fields)
