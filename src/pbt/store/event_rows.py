"""Records as rows and back: the JSON texts that both stores keep, and the checks before anything is kept."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pbt.core.events import Born, Decided, Event, Reported, decode_floats, encode_floats, from_plain, to_plain
from pbt.core.population import StateRef, Stored
from pbt.errors import CorruptError, RunError, UsageError


class EventValues(NamedTuple):
    """An event as it is kept."""

    round: int
    member: int | None
    kind: str
    data: str


def to_row(event: Event) -> EventValues:
    """The event as a row.

    Raises:
        UsageError: It holds something else than plain values.
    """
    plain = to_plain(event)
    member = plain.get("member")
    try:
        data = _dump(plain)
    except (TypeError, ValueError) as error:
        whose = "" if member is None else f" of member {member}"
        raise UsageError(
            f"event '{event.kind}'{whose}: expected numbers, strings, booleans, None and lists and dicts of them, "
            f"got something else ({error}); turn array scalars into numbers with float(x)"
        ) from error
    return EventValues(plain["round"], member, event.kind, data)


def to_event(data: str, id_: int) -> Event:
    """The event that `to_row` wrote.

    Raises:
        CorruptError: This text is no event.
    """
    try:
        return from_plain(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, LookupError) as error:
        raise CorruptError(f"event {id_}: expected an event, found {data[:80]!r} ({error!r})") from error


def to_json(value: Any, what: str) -> str:
    """Plain values as JSON; numbers that JSON does not know as `{"float": "nan"}`, as in the texts of events.

    Raises:
        UsageError: The value holds something else than plain values.
    """
    try:
        return _dump(encode_floats(value))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what}: expected plain values, got something else ({error})") from error


def from_json(text: str) -> Any:
    """The values that `to_json` wrote, tuples as lists.

    Raises:
        CorruptError: This text is none of its.
    """
    try:
        return decode_floats(json.loads(text))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CorruptError(f"expected JSON, found {text[:80]!r}") from error


def check_named(events: Sequence[Event], stored: Mapping[StateRef, Stored], known: Mapping[StateRef, Any]) -> None:
    """Check that every state these events name is there: nothing is named before it is durable.

    Raises:
        RunError: A state is named that is neither handed over nor known, or under another digest; or one is
            handed over that is known.
    """
    for ref in stored.keys() & known.keys():
        raise RunError(f"state of member {ref.member}, round {ref.round}: stored already, and never changed")
    for event in events:
        match event:
            case Reported():
                there = stored.get(event.state)
                if there is None or there.digest != event.digest:
                    found = "none" if there is None else there.digest
                    raise _unknown(event.member, event.state, f"with digest {event.digest}", found)
            case Decided(decision=opened) | (Born() as opened):
                if opened.start is not None and opened.start not in stored and opened.start not in known:
                    raise _unknown(opened.member, opened.start, "to start from", "none (was it retained?)")
            case _:
                pass


def _unknown(member: int, ref: StateRef, role: str, found: str) -> RunError:
    return RunError(
        f"member {member}: expected a stored state of member {ref.member}, round {ref.round} {role}, found {found}; "
        "nothing was written"
    )


_dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
