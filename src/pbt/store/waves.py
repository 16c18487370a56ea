"""One row of the log for the members of a wave that continue unchanged, instead of a row for each of them.

Most decisions of a large synchronous run say only that. Such a row repeats what belongs to all of them once, and has
the id of its last event; the ids of events count events, as in a log with a row for each.
"""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from pbt.core.events import Decided, Decision, Event
from pbt.core.laws import check_form
from pbt.core.population import StateRef
from pbt.errors import CorruptError
from pbt.store.database import LOOK
from pbt.store.event_rows import EventValues, to_event, to_row
from pbt.store.event_text import dump
from pbt.store.plain_json import decoded

KIND = "continued"
"""The kind of these rows."""
FEWEST = 256
"""Decisions from which they share a row; a smaller run is easier to read with a row for each."""
MOST = 1 << 16
"""The most decisions in one row."""
_START = f'{{"kind":"{KIND}"'
_PLAIN = frozenset((int, float, str, bool, type(None)))

Entry = list[Any]
"""`[events before the last one of the row, member, why, *values of the hyperparameters]`."""


class PlacedRow(NamedTuple):
    """A row of a commit."""

    place: int
    """The number of its (last) event in the commit, from 0."""
    values: EventValues


def to_rows(events: Sequence[Event], *, pack: bool) -> list[PlacedRow]:
    """The rows of a commit, in order.

    Args:
        events: The events.
        pack: Whether decisions may share a row.

    Raises:
        UsageError: An event contains a value that is not plain.
    """
    packed = [row for group in _groups(events) for row in _rows_of(events, *group)] if pack else []
    taken = {place for places, _ in packed for place in places}
    rows = [PlacedRow(place, to_row(event)) for place, event in enumerate(events) if place not in taken]
    return sorted(rows + [row for _, row in packed], key=itemgetter(0)) if packed else rows


_Key = tuple[int, int, tuple[str, ...]]
"""What the decisions of a row have in common: round, step and the names of the hyperparameters."""


def _groups(events: Sequence[Event]) -> list[tuple[_Key, list[int]]]:
    """The places of decisions that can share a row, by what they have in common."""
    groups: dict[_Key, list[int]] = {}
    if len(events) >= FEWEST:
        for place, event in enumerate(events):
            if type(event) is Decided and continues(event.decision):
                one = event.decision
                groups.setdefault((one.round, one.step, tuple(one.hparams)), []).append(place)
    return [(key, places) for key, places in groups.items() if len(places) >= FEWEST]


def continues(one: Decision) -> bool:
    """Whether a decision says only that the member continues from the round before."""
    return (
        one.kind == "continue"
        and one.start == (one.member, one.round - 1)
        and one.hparams_from == one.member
        and one.donor is one.compared is None
        and not (one.scores or one.series or one.draws)
    )


def _rows_of(events: Sequence[Event], key: _Key, places: Sequence[int]) -> list[tuple[Sequence[int], PlacedRow]]:
    """Their rows with the places in each; nothing if a value needs the general way, which also names what is wrong."""
    found = []
    for begin in range(0, len(places), MOST):
        part = places[begin : begin + MOST]
        decisions = [event.decision for place in part if isinstance(event := events[place], Decided)]
        last = part[-1]
        entries = [
            [last - place, one.member, one.why, *one.hparams.values()]
            for place, one in zip(part, decisions, strict=True)
        ]
        if not {type(value) for entry in entries for value in entry} <= _PLAIN or set(map(type, key[2])) - {str}:
            return []
        round_, step, names = key
        try:
            text = dump({"kind": KIND, "round": round_, "step": step, "names": names, "events": entries})
        except (TypeError, ValueError):
            return []
        found.append((part, PlacedRow(last, EventValues(round_, None, KIND, text))))
    return found


def is_wave(text: str) -> bool:
    """Whether this is the text of such a row."""
    return text.startswith(_START)


def to_events(rows: Iterable[tuple[int, str]], after: int = 0) -> list[Event]:
    """The events after an id in rows of a log, given as id and text, in order.

    Raises:
        CorruptError: A text is not an event, or an event is missing or there twice.
    """
    found = numbered(rows, after)
    for expected, (id_, _) in enumerate(found, after + 1):
        if id_ != expected:
            raise CorruptError(f"event {expected}: expected the events in a row, found event {id_!r}; {LOOK}")
    return [event for _, event in found]


def numbered(rows: Iterable[tuple[int, str]], after: int = 0) -> list[tuple[int, Event]]:
    """These events with their ids.

    Raises:
        CorruptError: A text is not an event.
    """
    found: list[tuple[int, Event]] = []
    has_waves = False
    for id_, text in rows:
        if is_wave(text):
            found += _unpacked(id_, text)
            has_waves = True
        else:
            found.append((id_, to_event(text, id_)))
    # They are nearly in order, for which a sort takes little more than a pass.
    return sorted((pair for pair in found if pair[0] > after), key=itemgetter(0)) if has_waves else found


def _unpacked(id_: int, text: str) -> list[tuple[int, Event]]:
    plain, entries = _read(id_, text)
    try:
        make = _maker(plain)
        events: list[tuple[int, Event]] = [(id_ - entry[0], Decided(decision=make(entry))) for entry in entries]
        for _, event in events:
            check_form(event)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _foreign(id_, text, error) from error
    return events


def decision_in(id_: int, text: str, ref: StateRef) -> Decision | None:
    """The decision that opened a member's round in such a row, if it is there.

    Raises:
        CorruptError: It is not such a row.
    """
    plain, entries = _read(id_, text)
    try:
        entry = next((entry for entry in entries if entry[1] == ref.member), None)
        return None if entry is None or plain["round"] != ref.round else _maker(plain)(entry)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _foreign(id_, text, error) from error


def _read(id_: int, text: str) -> tuple[dict[str, Any], list[Entry]]:
    try:
        plain = decoded(text)
        return plain, plain["events"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _foreign(id_, text, error) from error


def _maker(plain: dict[str, Any]) -> Any:
    """A function from an entry to its decision."""
    round_, step, names = plain["round"], plain["step"], plain["names"]
    before = round_ - 1

    def make(entry: Entry) -> Decision:
        _, member, why, *values = entry
        start, hparams = StateRef(member, before), dict(zip(names, values, strict=True))
        return Decision(member, round_, start, step, hparams, (), (), None, member, "continue", {}, why)

    return make


def _foreign(id_: int, text: str, error: Exception) -> CorruptError:
    return CorruptError(f"event {id_}: expected the decisions of a wave, found {text!r:.80} ({error!r})")
