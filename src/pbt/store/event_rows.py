"""Conversion of records to and from their JSON rows, for both stores, and the checks before a commit."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pbt.core.events import Born, Decided, Event, Opening, Reported, decode_floats, encode_floats, from_plain
from pbt.core.laws import check_form
from pbt.core.population import StateRef, Stored
from pbt.errors import CorruptError, RunError, UsageError
from pbt.store.database import LOOK
from pbt.store.event_text import dump, text_of
from pbt.store.plain_json import check_text, check_value, decoded


class EventValues(NamedTuple):
    """An event as a row."""

    round: int
    member: int | None
    kind: str
    data: str


def to_row(event: Event) -> EventValues:
    """Convert an event to a row.

    Raises:
        UsageError: It contains a value that is not plain.
    """
    about = event.decision if isinstance(event, Decided) else event
    member = getattr(about, "member", None)
    try:
        data = text_of(event)
    except (TypeError, ValueError) as error:
        whose = "" if member is None else f" of member {member}"
        raise UsageError(
            f"event '{event.kind}'{whose}: expected numbers, strings, booleans, None, lists and dicts ({error}); "
            "convert array scalars with float(x)"
        ) from error
    return EventValues(about.round, member, event.kind, data)


def to_event(data: str, id_: int) -> Event:
    """The event that `to_row` converted.

    Raises:
        CorruptError: The text is not an event that a run writes.
    """
    try:
        check_text(data)
        # `json.loads` also looks for blanks on both sides, which takes as long as the text itself.
        plain, end = _decoder.raw_decode(data)
        plain = plain if end == len(data) else json.loads(data)
        check_value(data, plain)
        # Only a text with this name has values that are encoded, or look like it.
        event = from_plain(plain, encoded='"float"' in data)
        check_form(event)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, LookupError) as error:
        raise CorruptError(f"event {id_}: expected an event, found {data!r:.80} ({error!r:.120})") from error
    return event


_decoder = json.JSONDecoder()


class StoredRow(Protocol):
    """A row of the log as it is read."""

    @property
    def id(self) -> int:
        """Consecutive, from 1."""

    @property
    def kind(self) -> str:
        """The kind of event."""

    @property
    def data(self) -> str:
        """The event as JSON."""


def opening_of(ref: StateRef, rows: Sequence[StoredRow]) -> Opening:
    """The opening of a member's round among the rows of that round.

    Raises:
        CorruptError: There is none.
    """
    for event in (to_event(row.data, row.id) for row in rows if row.kind in (Born.kind, Decided.kind)):
        match event:
            case Decided(decision=opened) | (Born() as opened) if (opened.member, opened.round) == ref:
                return opened
    raise _gap(ref, "opening")


def report_of(ref: StateRef, rows: Sequence[StoredRow]) -> Reported:
    """The report of a state among the rows of its round.

    Raises:
        CorruptError: There is none.
    """
    for event in (to_event(row.data, row.id) for row in rows if row.kind == Reported.kind):
        if isinstance(event, Reported) and event.state == ref:
            return event
    raise _gap(ref, "report")


def _gap(ref: StateRef, what: str) -> CorruptError:
    return CorruptError(f"member {ref.member}, round {ref.round}: expected its {what} in the log, found none; {LOOK}")


def to_json(value: Any, label: str) -> str:
    """Plain values as strict JSON; NaN and infinities as `{"float": "nan"}`, as in events.

    Raises:
        UsageError: A value is not plain; the message starts with `label`.
    """
    try:
        return dump(encode_floats(value))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{label}: expected numbers, strings, booleans, None, lists and dicts ({error})") from error


def from_json(text: str) -> Any:
    """The values that `to_json` encoded, tuples as lists.

    Raises:
        CorruptError: The text is not such JSON.
    """
    try:
        plain = decoded(text)
        # Only a text with this name has values that are encoded, or look like it.
        return decode_floats(plain) if '"float"' in text else plain
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise CorruptError(f"expected JSON, found {text!r:.80}") from error


def check_named(events: Sequence[Event], stored: Mapping[StateRef, Stored], known: Mapping[StateRef, Any]) -> None:
    """Check that every state named by these events is stored: a state is named only once it is durable.

    Raises:
        RunError: A named state is neither in `stored` nor known, or has another digest; or a state in `stored` is
            known already.
    """
    for ref in stored.keys() & known.keys():
        raise RunError(f"state of member {ref.member}, round {ref.round}: stored already; states are immutable")
    for event in events:
        match event:
            case Reported():
                record = stored.get(event.state)
                if record is None or record.digest != event.digest:
                    found = "none" if record is None else record.digest
                    raise _unknown(event.member, event.state, f"with digest {event.digest}", found)
            case Decided(decision=opened) | (Born() as opened):
                if opened.start is not None and opened.start not in stored and opened.start not in known:
                    raise _unknown(opened.member, opened.start, "to start from", "none (check Strategy.retain)")
            case _:
                pass


def _unknown(member: int, ref: StateRef, role: str, found: str) -> RunError:
    return RunError(
        f"member {member}: expected a stored state of member {ref.member}, round {ref.round} {role}, found {found}; "
        "nothing was written"
    )
