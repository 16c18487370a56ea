"""Domains of hyperparameters as text (`log:1e-5..1e-1`) and in TOML."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pbt.domains import Choice, Domain, Float, Int
from pbt.errors import SpaceError, nearest
from pbt.space import Space
from pbt.values import Value

FORMS = "'log:1e-5..1e-1', '0.1..0.9', 'one_minus_log:0.9..0.999', 'int:1..8', 'int-log:16..512', 'choice:a,b' or \
'ordered:16,32,64'"
_SCALES = {"log": "log", "linear": "linear", "one_minus_log": "one_minus_log", "": "linear"}
_INTS = {"int": "linear", "int-log": "log"}
_CHOICES = {"choice": False, "ordered": True}


def domain_of(name: str, text: str) -> Domain:
    """The domain in a text such as `log:1e-5..1e-1`.

    Raises:
        SpaceError: The text has another form.
    """
    kind, colon, rest = text.strip().partition(":")
    if not colon:
        kind, rest = "", text.strip()
    try:
        if kind in _CHOICES:
            options = json.loads(f"[{rest}]") if "[" in rest else tuple(map(_value, rest.split(",")))
            return Choice(options, ordered=_CHOICES[kind])
        low, dots, high = rest.partition("..")
        if dots and kind in _SCALES:
            return Float(float(low), float(high), _SCALES[kind])  # type: ignore[arg-type]
        if dots and kind in _INTS:
            return Int(int(low), int(high), _INTS[kind])  # type: ignore[arg-type]
    except ValueError:
        pass
    except SpaceError as error:
        raise SpaceError(f"hyperparameter '{name}': {error}") from None
    raise SpaceError(f"hyperparameter '{name}': expected a domain such as {FORMS}, got {text!r}")


def space_of(given: Mapping[str, Any]) -> Space:
    """The search space of a TOML table: by name a text, a list of options, or a table with the fields of a domain.

    A table has `kind` (`"float"`, `"int"` or `"choice"`) and the arguments of that class, such as `prior` and `when`.

    Raises:
        SpaceError: A domain has another form.
    """
    found: dict[str, Domain] = {}
    for name, value in _flat(given):
        if isinstance(value, str):
            found[name] = domain_of(name, value)
        elif isinstance(value, list):
            found[name] = Choice(tuple(value))
        else:
            found[name] = _from_table(name, value)
    if not found:
        raise SpaceError('space: expected at least one hyperparameter, as lr = "log:1e-5..1e-1", found none')
    return Space(found)


def pairs(given: Sequence[str]) -> Space:
    """The search space of `--space NAME=DOMAIN` options.

    Raises:
        SpaceError: One has another form, or a name is given twice.
    """
    found: dict[str, Domain] = {}
    for text in given:
        name, equals, domain = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise SpaceError(f"--space: expected NAME=DOMAIN, as lr=log:1e-5..1e-1, got {text!r}")
        if name in found:
            raise SpaceError(f"--space: '{name}' is given twice")
        found[name] = domain_of(name, domain)
    return Space(found)


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The domains in nested tables: `optimizer.lr = ...` is one of `optimizer`."""
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if (
            isinstance(value, dict)
            and "kind" not in value
            and all(isinstance(v, (str, list, dict)) for v in value.values())
        ):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _from_table(name: str, value: Any) -> Domain:
    kinds = {"float": Float, "int": Int, "choice": Choice}
    if not isinstance(value, dict) or value.get("kind") not in kinds:
        raise SpaceError(
            f"hyperparameter '{name}': expected a domain such as {FORMS}, or a table with kind = 'float', 'int' or "
            f"'choice', got {value!r:.80}"
        )
    fields = {key: tuple(v) if key in ("prior", "when") else v for key, v in value.items() if key != "kind"}
    known = {"float": ("low", "high", "scale", "prior", "when"), "choice": ("options", "ordered", "when")}
    names = known.get(value["kind"], known["float"])
    for key in fields.keys() - set(names):
        raise SpaceError(f"hyperparameter '{name}': unknown field '{key}'{nearest(key, names)}")
    try:
        made: Domain = kinds[value["kind"]](**fields)
    except TypeError:
        raise SpaceError(f"hyperparameter '{name}': expected {', '.join(names)}, got {value!r:.80}") from None
    except SpaceError as error:
        raise SpaceError(f"hyperparameter '{name}': {error}") from None
    return made


def _value(text: str) -> Value:
    """An option: a JSON number, boolean or null, else a string."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return text.strip()
    return text.strip() if isinstance(found, (list, dict)) else found
