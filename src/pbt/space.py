"""The search space: the domains of all hyperparameters, and what holds for them together.

A `Space` maps names to domains. Names may be dotted (`"optimizer.lr"`), and a domain may be conditional on the value of
another name.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from pbt.domains import Choice, Domain, DomainBase, Draws, Float, Int, domain_from
from pbt.errors import SpaceError, nearest
from pbt.values import Value, are_exact, plain

HParams = Mapping[str, Any]
"""One `Value` per active name; never mutated."""

Constraint = Callable[[HParams], "bool | HParams"]
"""A condition on all values together: whether they may be trained, or the values repaired so that they may."""
SAMPLES = 10_000
"""The most samples that are drawn until one satisfies a constraint."""
_NAME = re.compile(r"[^\W\d]\w*([-./]\w+)*")


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
        if self._is_flat and are_exact(hparams) and self.contains(hparams):
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
        return cls({name: domain_from(dict(fields)) for name, fields in plain.items()})


def _named(constraint: Constraint | None) -> str:
    return getattr(constraint, "__name__", type(constraint).__name__)
