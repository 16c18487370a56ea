"""The fast text of events is the text of their plain values."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbt.core.events import Born, Decided, Decision, Failed, MemoryUpdated, Reported, from_plain, to_plain
from pbt.core.population import StateRef
from pbt.errors import CorruptError, UsageError
from pbt.store.event_rows import to_event, to_row
from pbt.store.event_text import dump, text_of

VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
NAMES = st.sampled_from(("lr", "float", "ä", 'a"b')) | st.text(max_size=3)
PLAIN = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.tuples(inner) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
MAPPINGS = st.dictionaries(NAMES, PLAIN, max_size=3)
NUMBERS = st.lists(st.floats() | st.integers(), max_size=3).map(tuple)
REFS = st.builds(StateRef, st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=200)
@given(st.data())
def test_the_text_of_an_event_is_that_of_its_plain_values(data):
    """Character by character, for numbers of every kind, nested values and names that look like encoded ones."""
    report = Reported(
        member=data.draw(st.integers(0, 9)), round=1, step=data.draw(st.integers()), scores=data.draw(NUMBERS),
        series=data.draw(NUMBERS), state=data.draw(REFS), digest=data.draw(st.text()), reported=data.draw(MAPPINGS),
    )  # fmt: skip
    decision = Decision(
        member=1, round=2, start=data.draw(st.none() | REFS), step=3, hparams=data.draw(MAPPINGS),
        scores=data.draw(NUMBERS), series=data.draw(NUMBERS), donor=data.draw(st.none() | st.integers(0, 9)),
        hparams_from=data.draw(st.none() | st.integers(0, 9)), kind="explore", draws=data.draw(MAPPINGS),
        why=data.draw(st.text()), compared=data.draw(st.none() | st.integers(0, 9)),
    )  # fmt: skip
    for event in (report, Decided(decision=decision)):
        text = text_of(event)
        assert text == dump(to_plain(event))
        row = to_row(event)
        assert (row.data, row.kind, row.member) == (text, event.kind, 1 if event.kind == "decided" else report.member)
        again = from_plain(json.loads(text), encoded='"float"' in text)
        # Compared as texts: NaN is not equal to itself.
        assert text_of(again) == text


class Whole(int):
    """A kind of integer of its own."""


def test_numbers_of_other_types_are_written_as_before():
    """Subclasses of numbers and texts pass through the general way."""
    state = StateRef(Whole(1), True)
    event = Reported(
        member=Whole(1), round=True, step=Whole(7), scores=(Whole(2),), state=state, digest="", reported={1: 2}
    )
    assert text_of(event) == dump(to_plain(event))


def test_what_is_not_plain_is_refused_as_before():
    """In a report, a decision and the others, with the member named."""
    decision = Decision(member=3, round=2, start=None, step=0, hparams={"x": {1j}})
    report = Reported(member=3, round=1, step=1, scores=(1.0,), state=StateRef(3, 1), digest="", reported={"x": {1j}})
    for event in (Decided(decision=decision), report, Born(member=3, hparams={"x": object()})):
        with pytest.raises(UsageError, match=r"of member 3: expected numbers.*convert array scalars"):
            to_row(event)
    with pytest.raises(UsageError, match=r"event 'noted': expected numbers"):
        to_row(MemoryUpdated(round=1, memory={"x": object()}))


@pytest.mark.parametrize("text", ["", "{}", "[]", "1", "null", '{"kind":"unheard"}', "{", b"{}", 7])
def test_a_text_that_is_no_event_is_an_error(text):
    """Never anything but a CorruptError, whatever the row holds."""
    with pytest.raises(CorruptError, match="event 5: expected an event"):
        to_event(text, 5)


def test_a_value_that_looks_encoded_is_kept():
    """A mapping with the name of encoded numbers, infinities, and a text with that name."""
    event = MemoryUpdated(round=1, memory={"a": {"float": "nan"}, "b": -math.inf, "c": '"float"', "d": [{"float": 1}]})
    assert to_event(to_row(event).data, 1) == event
    failed = Failed(member=0, round=1, cause="score", message='a text with "float"')
    assert to_event(json.dumps(to_plain(failed)), 1) == failed
