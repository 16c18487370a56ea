"""What happens to a population, as frozen records; the log of a run is a list of them and nothing else is true.

`to_plain` and `from_plain` turn them into JSON-ready dicts and back. JSON has no NaN and no infinity, so such a
number is written as `{"float": "inf"}`, and a mapping that looks like this is written with its value in a list.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple

from pbt.core.population import Role, StateRef
from pbt.space import HParams, Value

DecisionKind = Literal["continue", "explore", "exploit", "replace"]


class Decision(NamedTuple):
    """The hand-over: everything a member starts its next round with, read from one view.

    A tuple, as `Member` is: one is made per member and round.
    """

    member: int
    round: int
    """The round this decision opens."""
    start: StateRef | None
    """The state to start from; None: freshly built."""
    step: int
    """Training steps that are in `start`."""
    hparams: HParams
    """The complete hyperparameters of the round."""
    scores: tuple[float, ...] = ()
    """What `start` scored, where it is another's state: counts for the member until its own next report."""
    series: tuple[float, ...] = ()
    """The series behind those scores."""
    donor: int | None = None
    """The member whose state, hyperparameters or both were taken; None: nobody's."""
    hparams_from: int | None = None
    """The member whose hyperparameters these were before they were explored."""
    kind: DecisionKind = "continue"
    """`continue` unchanged; `explore` own values changed; `exploit` a donor copied; `replace` a failed one renewed."""
    draws: Mapping[str, Value] = {}
    """What was drawn per changed name: a factor, a shift, or "resample"."""
    why: str = ""
    compared: int | None = None
    """The step at which the member was compared with its donor; None: with the scores of the moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """A member enters the population; its first round is open."""

    kind: ClassVar[str] = "born"
    member: int
    round: int = 1
    """The round that birth opens."""
    hparams: HParams
    start: StateRef | None = None
    """The state to start from; None: freshly built."""
    step: int = 0
    """Training steps that are in `start`."""
    role: Role = "member"
    group: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A member finished a round: it was trained, scored, and its state is durable."""

    kind: ClassVar[str] = "reported"
    member: int
    round: int
    step: int
    """Training steps that are in the state."""
    scores: tuple[float, ...]
    series: tuple[float, ...] = ()
    state: StateRef
    digest: str
    """SHA-256 of the state's content."""
    reported: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for people alone (test accuracy, loss curves): no strategy can see them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A member's round gave no usable score, or its task raised, or its workers died too often."""

    kind: ClassVar[str] = "failed"
    member: int
    round: int
    cause: str
    """`score`, `state`, `exception` or `worker`."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision was taken; its round is open."""

    kind: ClassVar[str] = "decided"
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUpdated:
    """The strategy's memory, complete, as it is from now on."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The run came to its end; it may still be extended."""

    kind: ClassVar[str] = "ended"
    round: int
    why: str


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
    """The event as values that JSON can hold; `kind` says which event it is."""
    record = event.decision if isinstance(event, Decided) else event
    # A Decision has a `kind` of its own: how it came about is stored under `how`.
    plain: dict[str, Any] = {"kind": event.kind}
    for name in _NAMES[type(record)]:
        plain["how" if name == "kind" else name] = encode_floats(getattr(record, name))
    if plain.get("compared", 0) is None:
        del plain["compared"]  # most logs have none, and stay as they were
    return plain


def from_plain(plain: Mapping[str, Any]) -> Event:
    """The event that `to_plain` wrote.

    Raises:
        KeyError: The kind of event is unknown.
        TypeError: A field is missing or unknown.
    """
    values = {name: decode_floats(value) for name, value in plain.items() if name != "kind"}
    for name in ("start", "state"):
        if values.get(name) is not None:
            values[name] = StateRef(*values[name])
    for name in ("scores", "series"):
        if name in values:
            values[name] = tuple(values[name])
    if plain["kind"] == "decided":
        values["kind"] = values.pop("how")
        return Decided(decision=Decision(**values))
    event: Event = _KINDS[plain["kind"]](**values)
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
    """The values given to `encode_floats`, tuples as lists."""
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
