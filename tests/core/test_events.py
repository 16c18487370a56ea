"""What happens to a population: records to plain values and back."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbt.core.events import (
    Born,
    Decided,
    Decision,
    Ended,
    Failed,
    MemoryUpdated,
    Reported,
    Retired,
    from_plain,
    to_plain,
)
from pbt.core.population import StateRef

COUNTS = st.integers(0, 2**63)
NAMES = st.text(max_size=8) | st.sampled_from(("lr", "float", "kind", "how", "start", "state", "scores"))
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(("inf", "nan"))
HPARAMS = st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=3).map(tuple), max_size=4)
PLAIN = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
MAPPINGS = st.dictionaries(NAMES, PLAIN, max_size=3)
REFS = st.builds(StateRef, COUNTS, COUNTS)
SERIES = st.lists(st.floats(), max_size=4).map(tuple)
ROLES = st.sampled_from(("member", "evaluator", "elite"))
KINDS = st.sampled_from(("continue", "explore", "exploit", "replace"))

DECISIONS = st.builds(
    Decision,
    member=COUNTS,
    round=COUNTS,
    start=st.none() | REFS,
    step=COUNTS,
    hparams=HPARAMS,
    scores=SERIES,
    series=SERIES,
    donor=st.none() | COUNTS,
    hparams_from=st.none() | COUNTS,
    kind=KINDS,
    draws=HPARAMS,
    why=st.text(max_size=8),
)
EVENTS = st.one_of(
    st.builds(Born, member=COUNTS, round=COUNTS, hparams=HPARAMS, start=st.none() | REFS, role=ROLES, group=COUNTS),
    st.builds(
        Reported,
        member=COUNTS,
        round=COUNTS,
        step=COUNTS,
        scores=SERIES,
        series=SERIES,
        state=REFS,
        digest=st.text(max_size=8),
        reported=MAPPINGS,
    ),
    st.builds(Failed, member=COUNTS, round=COUNTS, cause=st.text(max_size=8), message=st.text(max_size=20)),
    st.builds(Decided, decision=DECISIONS),
    st.builds(MemoryUpdated, round=COUNTS, memory=MAPPINGS),
    st.builds(Retired, member=COUNTS, round=COUNTS, why=st.text(max_size=8)),
    st.builds(Ended, round=COUNTS, why=st.text(max_size=8)),
)


@given(EVENTS)
def test_round_trip_through_strict_json(event):
    """Every event is the same after JSON without NaN and infinity: values, types and classes."""
    text = json.dumps(to_plain(event), allow_nan=False)
    again = from_plain(json.loads(text))
    assert type(again) is type(event)
    # Compared as text, where NaN equals NaN and 1, 1.0 and True differ.
    assert repr(again) == repr(event)
    assert json.dumps(to_plain(again), allow_nan=False) == text


def test_infinite_options_and_nan_reports_survive():
    """An infinite hyperparameter and a NaN for people come back as what they were."""
    born = Born(member=0, hparams={"clip": math.inf, "floor": -math.inf, "lr": 0.1})
    assert from_plain(json.loads(json.dumps(to_plain(born)))) == born
    reported = Reported(
        member=0, round=1, step=5, scores=(0.5,), state=StateRef(0, 1), digest="", reported={"loss": [math.nan, 2.0]}
    )
    again = from_plain(json.loads(json.dumps(to_plain(reported))))
    assert math.isnan(again.reported["loss"][0])
    assert again.reported["loss"][1] == 2.0
    assert type(again.state) is StateRef


@pytest.mark.parametrize("value", ["relu", "inf", "nan", 1.5, math.inf, ["inf"], {"float": "inf"}, None])
def test_a_mapping_that_looks_like_a_number_stays_a_mapping(value):
    """A hyperparameter of the name `float`, whatever its value, is not taken for an encoded number."""
    event = MemoryUpdated(round=1, memory={"float": value})
    assert from_plain(json.loads(json.dumps(to_plain(event)))) == event


def test_a_decision_is_stored_whole():
    """The plain form of a decision names every part of the hand-over; how it came about is under `how`."""
    decision = Decision(
        member=1,
        round=3,
        start=StateRef(0, 2),
        step=20,
        hparams={"lr": 0.12},
        scores=(0.9,),
        series=(0.8, 0.9),
        donor=0,
        hparams_from=0,
        kind="exploit",
        draws={"lr": 1.2},
        why="rank 4 of 4, donor 1",
    )
    assert to_plain(Decided(decision=decision)) == {
        "kind": "decided",
        "member": 1,
        "round": 3,
        "start": [0, 2],
        "step": 20,
        "hparams": {"lr": 0.12},
        "scores": [0.9],
        "series": [0.8, 0.9],
        "donor": 0,
        "hparams_from": 0,
        "how": "exploit",
        "draws": {"lr": 1.2},
        "why": "rank 4 of 4, donor 1",
    }


@pytest.mark.parametrize(
    ("plain", "error"),
    [
        ({"kind": "resurrected", "member": 0}, KeyError),
        ({"kind": "retired", "member": 0, "round": 1}, TypeError),  # a field is missing
        ({"kind": "ended", "round": 1, "why": "", "how": "?"}, TypeError),  # a field is unknown
    ],
)
def test_what_is_no_event_is_refused(plain, error):
    """An unknown kind, a missing and an unknown field are errors, not guesses."""
    with pytest.raises(error):
        from_plain(plain)
