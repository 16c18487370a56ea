"""A checkpoint of the fold: continued, it is the fold of the whole log."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbt.core.ages import Ages
from pbt.core.checkpoint import from_plain, to_plain, unfolded
from pbt.core.events import Born, Decided, Decision, MemoryUpdated, Reported, Retired
from pbt.core.events import from_plain as event_of
from pbt.core.exploit import BinaryTournament, Truncation
from pbt.core.fold import fold
from pbt.core.population import StateRef, View
from pbt.core.strategy import Plan
from pbt.domains import Float
from pbt.space import Space
from pbt.store.event_rows import to_row
from tests.core.test_fold import EMPTY, a_run

BY_AGE = replace(EMPTY, ages=Ages(), lookback=2)


def stored(events):
    """The events as they are read back, without the check of their form."""
    texts = [to_row(event).data for event in events]
    return [event_of(json.loads(text), encoded='"float"' in text) for text in texts]


def restored(folded, empty):
    plain = json.loads(json.dumps(to_plain(folded), allow_nan=False))
    return from_plain(plain, folded.standings.last, empty)


def check_at(events, cut, empty):
    """The fold of the first events, saved, restored and continued, is the fold of all."""
    events = stored(events)
    found = restored(unfolded(empty).after(events[:cut]), empty).after(events[cut:])
    whole = unfolded(empty).after(events)
    assert found.view == whole.view == fold(events, empty)
    assert vars(found.standings) == vars(whole.standings)
    assert json.dumps(to_plain(found)) == json.dumps(to_plain(whole))
    return found


@settings(max_examples=60)
@given(st.data())
def test_a_fold_continues_from_a_checkpoint_at_any_event(data):
    """Members, history, ages, memory, the best: as folded from the beginning, wherever the log was cut."""
    num_members, rounds = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 4))
    score = st.none() | st.integers(0, 4).map(float) | st.just(0.1)
    scores = [[data.draw(score) for _ in range(num_members)] for _ in range(rounds)]
    exploit = data.draw(st.sampled_from((Truncation(0.4), BinaryTournament())))
    plan = Plan(exploit=exploit, lookback=data.draw(st.integers(0, 3)))
    events = a_run(data.draw(st.integers(0, 99)), num_members, rounds, plan, scores)
    empty = replace(EMPTY, lookback=plan.lookback, ages=data.draw(st.none() | st.just(Ages())))
    check_at(events, data.draw(st.integers(0, len(events))), empty)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
PLAIN = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("float", "x")), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60)
@given(st.data())
def test_values_of_every_kind_come_back(data):
    """Different names per member, their order, nested values, NaN, texts and mappings that look like encoded ones."""
    events = []
    for member in range(data.draw(st.integers(1, 4))):
        names = data.draw(st.permutations(("b", "a", "float")))[: data.draw(st.integers(0, 3))]
        hparams = {name: data.draw(PLAIN) for name in names}
        events.append(Born(member=member, hparams=hparams, role=data.draw(st.sampled_from(("member", "elite")))))
        ref, finite = StateRef(member, 1), data.draw(st.booleans())
        series = tuple(data.draw(st.lists(st.floats(allow_nan=not finite, allow_infinity=not finite), max_size=3)))
        fields = {"step": 5, "scores": (0.5, *series), "series": series, "state": ref, "digest": ""}
        events.append(Reported(member=member, round=1, **fields))
        decision = Decision(
            member=member, round=2, start=ref, step=5, hparams=hparams, draws=data.draw(st.just({}) | st.just(hparams)),
            donor=data.draw(st.none() | st.just(0)), why="ä", kind="explore",
        )  # fmt: skip
        events.append(data.draw(st.sampled_from((Decided(decision=decision), Retired(member=member, round=1, why="")))))
    events.append(MemoryUpdated(round=1, memory={"all": data.draw(PLAIN)}))
    events, empty = stored(events), replace(EMPTY, lookback=1)
    whole = unfolded(empty).after(events)
    found = restored(whole, empty)
    # Compared as texts: NaN is not equal to itself, and the order of names matters to draws.
    assert repr(found.view) == repr(whole.view)
    assert repr(vars(found.standings)) == repr(vars(whole.standings))


def test_a_checkpoint_that_lacks_what_is_needed_is_not_used():
    """A longer lookback, ages, or another version; a shorter lookback is cut from a longer one."""
    events = stored(a_run(1, 3, 4, Plan(), [[1.0, 2.0, 3.0]] * 4))
    folded = unfolded(replace(EMPTY, lookback=2)).after(events)
    assert restored(folded, replace(EMPTY, lookback=3)) is None
    assert restored(folded, BY_AGE) is None
    shorter = replace(EMPTY, lookback=1)
    assert restored(folded, shorter).view == fold(events, shorter)
    assert restored(folded, EMPTY).view == fold(events, EMPTY)
    aged = unfolded(BY_AGE).after(events)
    assert restored(aged, EMPTY).view == fold(events, EMPTY)
    plain = to_plain(folded) | {"version": 0}
    assert from_plain(plain, folded.standings.last, EMPTY) is None


def test_standings_say_what_the_log_says():
    """Opening, values before it, own best score in either direction, last two states and founder."""
    space = Space({"lr": Float(1e-4, 1.0)})
    events = [Born(member=0, hparams={"lr": 0.1}), Born(member=1, hparams={"lr": 0.2})]
    for round_, scores in enumerate(((3.0, 2.0), (1.0, 4.0), (2.0, 5.0)), 1):
        for member, score in enumerate(scores):
            state = StateRef(member, round_)
            events.append(Reported(member=member, round=round_, step=round_, scores=(score,), state=state, digest=""))
        copied = Decision(
            member=1, round=round_ + 1, start=StateRef(0, round_), step=round_, hparams={"lr": 0.3}, donor=0
        )
        events.append(Decided(decision=copied))
        own = Decision(member=0, round=round_ + 1, start=StateRef(0, round_), step=round_, hparams={"lr": 0.1})
        events.append(Decided(decision=own))
    for sign, bests in ((1, {0: 3.0, 1: 5.0}), (-1, {0: 1.0, 1: 2.0})):
        standings = unfolded(View(seed=0, space=space, sign=sign)).after(events).standings
        assert standings.bests == bests
        assert standings.last == len(events)
        assert standings.openings[1].donor == 0
        assert standings.before == {0: {"lr": 0.1}, 1: {"lr": 0.3}}
        assert standings.recent == {m: (StateRef(m, 2), StateRef(m, 3)) for m in range(2)}
        assert standings.founders[StateRef(1, 1)] == 1
        assert standings.founder(1, StateRef(1, 3)) == 0
        assert standings.founder(1, None) == 1
        standings.forget({StateRef(1, 3)})
        assert standings.founders == {StateRef(1, 3): 0}


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_ages_of_an_asynchronous_log_continue(cut):
    """Cohorts with their members, pending decisions and lines."""
    scores = [[float(7 * m % 5 + r) for m in range(7)] for r in range(4)]
    found = check_at(a_run(2, 7, 4, Plan(), scores), cut, BY_AGE)
    assert found.view.ages is not None
