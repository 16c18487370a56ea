"""One row of the log for many events of a wave instead of a row for each: its reports, and decisions to continue.

Most events of a large synchronous run are of these kinds. Such a row repeats what belongs to all of them once, and
has the id of its last event; the ids of events count events, as in a log with a row for each.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from pbt.core.events import Decided, Decision, Event, Reported
from pbt.core.laws import check_form
from pbt.core.population import StateRef
from pbt.errors import CorruptError
from pbt.store.database import LOOK
from pbt.store.event_rows import EventValues, to_event, to_row
from pbt.store.event_text import dump
from pbt.store.plain_json import decoded

KIND, TRAINED = "continued", "trained"
"""The kinds of these rows: of decisions, and of reports."""
FEWEST = 256
"""Events from which they share a row; a smaller run is easier to read with a row for each."""
MOST, MOST_REPORTS = 1 << 16, 1 << 14
"""The most events in one row. A single report is looked up in its row, which is decoded for it."""
MOST_TEXT = 1 << 24
"""Characters of a row from which its events have a row each."""
_PLAIN = frozenset((int, float, str, bool, type(None)))
_NUMBERS = frozenset((int, float))

Entry = list[Any]
"""An event in such a row. The first value is the number of events between it and the last one of the row.

A decision: `[..., member, why, *values of the hyperparameters]`. A report: `[..., member, step, digest, reported values
or null, series or null, *scores]`.
"""
_Key = tuple[Any, ...]
"""What the events of a row have in common, in the order of `_Form.shared`."""


class PlacedRow(NamedTuple):
    """A row of a commit."""

    place: int
    """The number of its (last) event in the commit, from 0."""
    values: EventValues


class _Form(NamedTuple):
    """How the events of one kind share a row."""

    kind: str
    shared: tuple[str, ...]
    """The names of what they have in common; the first is the round."""
    most: int
    key_of: Callable[[Any], _Key | None]
    """What an event has in common with others; None: it has a row of its own."""
    values_of: Callable[[Any], Entry]
    """The values of an entry after the first."""


def to_rows(events: Sequence[Event], *, pack: bool, reports: bool = False) -> list[PlacedRow]:
    """The rows of a commit, in order.

    Args:
        events: The events.
        pack: Whether decisions may share a row.
        reports: Whether reports may, too.

    Raises:
        UsageError: An event contains a value that is not plain.
    """
    forms: dict[type, _Form] = {Decided: _decisions()} if pack else {}
    forms |= {Reported: _reports()} if reports else {}
    packed = [row for group in _groups(forms, events) for row in _rows_of(*group, events)]
    taken = {place for places, _ in packed for place in places}
    rows = [PlacedRow(place, to_row(event)) for place, event in enumerate(events) if place not in taken]
    return sorted(rows + [row for _, row in packed], key=itemgetter(0)) if packed else rows


def _decisions() -> _Form:
    return _Form(KIND, ("round", "step", "names"), MOST, _decision_key, _decision_values)


def _reports() -> _Form:
    return _Form(TRAINED, ("round",), MOST_REPORTS, _report_key, _report_values)


def _groups(forms: Mapping[type, _Form], events: Sequence[Event]) -> list[tuple[_Form, _Key, list[int]]]:
    """The places of events that can share a row, by their form and what they have in common."""
    groups: dict[tuple[type, _Key], list[int]] = {}
    if forms and len(events) >= FEWEST:
        for place, event in enumerate(events):
            kind = type(event)
            key = forms[kind].key_of(event) if kind in forms else None
            if key is not None:
                groups.setdefault((kind, key), []).append(place)
    return [(forms[kind], key, places) for (kind, key), places in groups.items() if len(places) >= FEWEST]


def _decision_key(event: Decided) -> _Key | None:
    one = event.decision
    return (one.round, one.step, tuple(one.hparams)) if continues(one) else None


def continues(one: Decision) -> bool:
    """Whether a decision says only that the member continues from the round before."""
    return (
        one.kind == "continue"
        and one.start == (one.member, one.round - 1)
        and one.hparams_from == one.member
        and one.donor is one.compared is None
        and not (one.scores or one.series or one.draws)
    )


def _decision_values(event: Decided) -> Entry:
    one = event.decision
    return [one.member, one.why, *one.hparams.values()]


def _report_key(event: Reported) -> _Key | None:
    if (
        type(event.member) is type(event.step) is int
        and type(event.digest) is str
        and event.state == (event.member, event.round)
        and type(event.scores) is type(event.series) is tuple
        and _NUMBERS.issuperset(map(type, event.scores + event.series))
        and type(event.reported) is dict
        and (not event.reported or _is_plain(event.reported))
    ):
        return (event.round,)
    return None


def _is_plain(reported: dict[Any, Any]) -> bool:
    # A mapping with this name may look like an encoded number.
    return (
        set(map(type, reported)) == {str}
        and "float" not in reported
        and _PLAIN.issuperset(map(type, reported.values()))
    )


def _report_values(event: Reported) -> Entry:
    return [event.member, event.step, event.digest, event.reported or None, event.series or None, *event.scores]


def _rows_of(
    form: _Form, key: _Key, places: Sequence[int], events: Sequence[Event]
) -> list[tuple[Sequence[int], PlacedRow]]:
    """Their rows with the places in each; nothing if a value needs the general way, which also names what is wrong."""
    found = []
    for begin in range(0, len(places), form.most):
        part = places[begin : begin + form.most]
        last = part[-1]
        entries = [[last - place, *form.values_of(events[place])] for place in part]
        # The values of reports are checked already.
        if form.kind == KIND and not _are_plain(entries, key[2]):
            return []
        try:
            text = dump({"kind": form.kind, **dict(zip(form.shared, key, strict=True)), "events": entries})
        except (TypeError, ValueError):
            return []
        if len(text) > MOST_TEXT:
            return []
        found.append((part, PlacedRow(last, EventValues(key[0], None, form.kind, text))))
    return found


def _are_plain(entries: Sequence[Entry], names: Sequence[Any]) -> bool:
    return {type(value) for entry in entries for value in entry} <= _PLAIN and set(map(type, names)) <= {str}


def is_wave(text: str) -> bool:
    """Whether this is the text of such a row."""
    return text.startswith(_STARTS)


_STARTS = tuple(f'{{"kind":"{kind}"' for kind in (KIND, TRAINED))


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
        events: list[tuple[int, Event]] = [(id_ - entry[0], make(entry)) for entry in entries]
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
    found = _events_of(id_, text, [ref])
    return next((event.decision for event in found if isinstance(event, Decided)), None)


def reports_in(id_: int, text: str, refs: Collection[StateRef]) -> list[Reported]:
    """The reports of these states that are in such a row.

    Raises:
        CorruptError: It is not such a row.
    """
    return [event for event in _events_of(id_, text, refs) if isinstance(event, Reported)]


def _events_of(id_: int, text: str, refs: Collection[StateRef]) -> list[Event]:
    """The events of these members and rounds in such a row."""
    plain, entries = _read(id_, text)
    try:
        members = {ref.member for ref in refs if ref.round == plain["round"]}
        make = _maker(plain)
        return [make(entry) for entry in entries if entry[1] in members]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _foreign(id_, text, error) from error


def _read(id_: int, text: str) -> tuple[dict[str, Any], list[Entry]]:
    try:
        plain = decoded(text)
        return plain, plain["events"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _foreign(id_, text, error) from error


def _maker(plain: dict[str, Any]) -> Callable[[Entry], Event]:
    """A function from an entry to its event."""
    return _report_maker(plain) if plain["kind"] == TRAINED else _decision_maker(plain)


def _decision_maker(plain: dict[str, Any]) -> Callable[[Entry], Event]:
    round_, step, names = plain["round"], plain["step"], plain["names"]
    before = round_ - 1

    def make(entry: Entry) -> Event:
        _, member, why, *values = entry
        start, hparams = StateRef(member, before), dict(zip(names, values, strict=True))
        decision = Decision(member, round_, start, step, hparams, (), (), None, member, "continue", {}, why)
        return Decided(decision=decision)

    return make


def _report_maker(plain: dict[str, Any]) -> Callable[[Entry], Event]:
    round_ = plain["round"]

    def make(entry: Entry) -> Event:
        _, member, step, digest, reported, series, *scores = entry
        return Reported(
            member=member,
            round=round_,
            step=step,
            scores=tuple(scores),
            series=() if series is None else tuple(series),
            state=StateRef(member, round_),
            digest=digest,
            reported={} if reported is None else reported,
        )

    return make


def _foreign(id_: int, text: str, error: Exception) -> CorruptError:
    what = "reports" if text.startswith(_STARTS[1]) else "decisions"
    return CorruptError(f"event {id_}: expected the {what} of a wave, found {text!r:.80} ({error!r})")
