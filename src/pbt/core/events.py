"""Events: the frozen records of what happens to a population.

A run's log is the ordered list of these events and its only source of truth. `to_plain` and `from_plain` convert
between events and JSON-ready dicts. JSON has neither NaN nor infinity: such a number is written as
`{"float": "inf"}`, and a mapping of that very form is written with its value in a list.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple

from pbt.core.population import Role, StateRef
from pbt.space import HParams
from pbt.values import Value, from_lists

DecisionKind = Literal["continue", "explore", "exploit", "replace"]


class Decision(NamedTuple):
    """The hand-over: everything a member starts its next round with, read from one view.

    A tuple for speed, like `Member`: one is made per member and round.
    """

    member: int
    round: int
    """The round opened by this decision."""
    start: StateRef | None
    """The state to start from; None: freshly built."""
    step: int
    """Training steps contained in `start`."""
    hparams: HParams
    """The complete hyperparameters of the round."""
    scores: tuple[float, ...] = ()
    """Scores of `start` if it is another member's state; they count for this member until its own next report."""
    series: tuple[float, ...] = ()
    """The series behind those scores."""
    donor: int | None = None
    """The member whose state, hyperparameters or both are copied; None: no copy."""
    hparams_from: int | None = None
    """The member whose hyperparameters these are, before exploration."""
    kind: DecisionKind = "continue"
    """`continue` unchanged; `explore` own values changed; `exploit` a donor copied; `replace` a failed one renewed."""
    draws: Mapping[str, Value] = {}
    """The draw per changed name: a factor, a shift, or "resample"."""
    why: str = ""
    compared: int | None = None
    """The step at which the member was compared with its donor; None: compared by the current scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """A member enters the population; its first round is open."""

    kind: ClassVar[str] = "born"
    member: int
    round: int = 1
    """The round opened by the birth."""
    hparams: HParams
    start: StateRef | None = None
    """The state to start from; None: freshly built."""
    step: int = 0
    """Training steps contained in `start`."""
    role: Role = "member"
    group: int = 0


Opening = Born | Decision
"""The record that opens a member's round; both kinds have its start, step and hyperparameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A member finished a round: it is trained and scored, and its state is durable."""

    kind: ClassVar[str] = "reported"
    member: int
    round: int
    step: int
    """Training steps contained in the state."""
    scores: tuple[float, ...]
    series: tuple[float, ...] = ()
    state: StateRef
    digest: str
    """SHA-256 of the state's content."""
    reported: Mapping[str, Any] = field(default_factory=dict)
    """Metrics for people only (test accuracy, loss curves); strategies cannot see them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A member's round failed: no usable score, an exception in the task, or too many lost workers."""

    kind: ClassVar[str] = "failed"
    member: int
    round: int
    cause: str
    """`score`, `state`, `exception` or `worker`."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision was made; its round is open."""

    kind: ClassVar[str] = "decided"
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUpdated:
    """The strategy's new memory, complete."""

    kind: ClassVar[str] = "noted"
    round: int
    memory: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """A member left the population for good."""

    kind: ClassVar[str] = "retired"
    member: int
    round: int
    why: str


FINISHED, LOST = "finished", "every member failed"
"""Why a run ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The run ended; it can still be extended."""

    kind: ClassVar[str] = "ended"
    round: int
    why: str
    """`FINISHED`, `LOST`, or the condition that stopped the run before its last round."""


Event = Born | Reported | Failed | Decided | MemoryUpdated | Retired | Ended
_KINDS: Mapping[str, type[Any]] = {
    cls.kind: cls for cls in (Born, Reported, Failed, Decided, MemoryUpdated, Retired, Ended)
}

_NAMES: Mapping[type[Any], tuple[str, ...]] = {
    Decision: Decision._fields,
    **{cls: tuple(f.name for f in fields(cls)) for cls in _KINDS.values()},
}
_PLAIN = frozenset((int, str, bool, type(None)))


def to_plain(event: Event) -> dict[str, Any]:
    """Convert an event to JSON-ready values; `kind` names the type of event."""
    record = event.decision if isinstance(event, Decided) else event
    # A Decision has a `kind` of its own; it is stored under `how`.
    plain: dict[str, Any] = {"kind": event.kind}
    for name in _NAMES[type(record)]:
        plain["how" if name == "kind" else name] = encode_floats(getattr(record, name))
    if plain.get("compared", 0) is None:
        del plain["compared"]  # absent from most logs, whose text stays as it was
    return plain


def from_plain(plain: Mapping[str, Any], *, encoded: bool = True) -> Event:
    """The event that `to_plain` converted.

    Args:
        plain: Its plain values.
        encoded: Whether some of them may be encoded (`encode_floats`); if not, they are taken as they are.

    Raises:
        KeyError: Unknown kind of event.
        TypeError: A field is missing or unknown.
    """
    values = {name: decode_floats(value) for name, value in plain.items()} if encoded else dict(plain)
    kind = values.pop("kind")
    for name in ("hparams", "draws"):
        if name in values:
            values[name] = from_lists(values[name])
    for name in ("scores", "series"):
        if name in values:
            values[name] = tuple(values[name])
    if kind == "reported":
        values["state"] = StateRef(*values["state"])
        return Reported(**values)
    if values.get("start") is not None:
        values["start"] = StateRef(*values["start"])
    if kind == "decided":
        values["kind"] = values.pop("how")
        return Decided(decision=Decision(**values))
    event: Event = _KINDS[kind](**values)
    return event


def encode_floats(value: Any) -> Any:
    """Plain values for strict JSON: NaN and infinities as `{"float": "nan"}`, tuples as lists, keys as strings."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, (list, tuple)):
        return [encode_floats(item) for item in value]
    if isinstance(value, (dict, Mapping)):
        plain = {str(key): encode_floats(item) for key, item in value.items()}
        return {"float": [plain["float"]]} if plain.keys() == {"float"} else plain
    return value


def decode_floats(value: Any) -> Any:
    """The values that `encode_floats` encoded, tuples as lists."""
    if type(value) in _PLAIN or type(value) is float:
        return value
    if isinstance(value, dict):
        if value.keys() == {"float"}:
            inner = value["float"]
            return float(inner) if isinstance(inner, str) else {"float": decode_floats(inner[0])}
        return {key: decode_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode_floats(item) for item in value]
    return value
