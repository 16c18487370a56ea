"""Validation of user-written rules: instantiate rules passed as classes, and check their arguments."""

import math
import operator
from collections.abc import Mapping
from typing import Any

from pbt.errors import UsageError
from pbt.values import plain

FORMS = {
    "exploit": "truncation(0.2), never() or a function (member, view, rng) -> Copy | Mutate | Stay",
    "explore": "perturb((0.8, 1.2)), keep() or a function (hparams, member, view, rng) -> (hparams, draws)",
    "rank": "pareto() or a function from the members to the same members, best first",
}
"""Accepted forms of each kind of rule, for error messages."""


def resolved(rule: Any, kind: str, owner: str) -> Any:
    """The rule itself; a rule class is called with its defaults.

    Args:
        rule: The rule as passed by the user.
        kind: A key of `FORMS`.
        owner: The plan or rule it belongs to, for error messages.

    Raises:
        UsageError: It is not a rule, or its class has settings without defaults.
    """
    if isinstance(rule, type):
        try:
            rule = rule()
        except TypeError as error:
            written = rule_name(rule)
            raise UsageError(
                f"{owner}: expected {kind}={written}(...) with its settings, got {written} itself, "
                f"which cannot be called without any ({error})"
            ) from error
    if not callable(rule):
        hint = "; one function sets every hyperparameter, each by its name" if isinstance(rule, dict) else ""
        raise UsageError(f"{owner}: expected {kind} to be {FORMS[kind]}, got {rule!r:.80}{hint}")
    return rule


def rule_name(rule: Any) -> str:
    """The name of a rule in messages: that of its function or class."""
    return str(getattr(rule, "__name__", None) or type(rule).__name__)


def is_number(value: Any) -> bool:
    """Whether the value is a finite number and not a boolean."""
    if isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def whole(value: Any) -> int | None:
    """The value as an `int` if it is of any integer type, else None."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


Factors = tuple[float, ...] | Mapping[str, tuple[float, ...]]
"""Equally likely factors of all values, or by name; `"*"` is for all names that are not listed."""
EVERY = "*"


def checked_factors(rule: str, factors: Any) -> Factors:
    """The factors of a rule, as tuples.

    Raises:
        UsageError: Not a tuple of one or more positive numbers, nor such tuples by name.
    """
    if isinstance(factors, Mapping):
        return {name: _factors(f"{rule}: '{name}'", own, rule) for name, own in factors.items()}
    return _factors(rule, factors, rule)


def factors_of(factors: Factors, name: str) -> tuple[float, ...]:
    """The factors of a name; none if it is to keep its value."""
    return factors if isinstance(factors, tuple) else factors.get(name, factors.get(EVERY, ()))


def _factors(what: str, factors: Any, rule: str) -> tuple[float, ...]:
    if is_number(factors):
        raise UsageError(f"{what}: expected a tuple of factors, as {rule}((0.8, 1.2)), got the number {factors!r}")
    found = given if isinstance(given := plain(factors), tuple) else ()
    if not found or not all(is_number(factor) and factor > 0 for factor in found):
        raise UsageError(f"{what}: expected one or more positive factors, got {factors!r}, as in {rule}((0.8, 1.2))")
    return found
