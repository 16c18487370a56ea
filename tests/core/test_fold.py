"""From events to the population."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbt.core.events import Born, Decided, Decision, Ended, Failed, MemoryUpdated, Reported, Retired
from pbt.core.exploit import BinaryTournament, Truncation
from pbt.core.fold import apply, fold
from pbt.core.population import Best, Member, StateRef, View
from pbt.core.strategy import Plan
from pbt.domains import Float
from pbt.space import Space

SPACE = Space({"lr": Float(1e-4, 1.0, "log")})
EMPTY = View(seed=3, space=SPACE)


def born(member, lr=0.1, **fields):
    return Born(member=member, hparams={"lr": lr}, **fields)


def reported(member, round_, score, **fields):
    values = {"step": 10 * round_, "scores": (score,), "state": StateRef(member, round_), "digest": ""}
    return Reported(member=member, round=round_, **(values | fields))


def failed(member, round_):
    return Failed(member=member, round=round_, cause="score", message="NaN")


def decided(member, round_, start, **fields):
    values = {"step": 10 * (round_ - 1), "hparams": {"lr": 0.1}}
    return Decided(decision=Decision(member=member, round=round_, start=start, **(values | fields)))


def a_run(seed, num_members, rounds, plan, scores):
    """The log of a whole run; a score of None fails its member."""
    events = list(plan.begin(replace(EMPTY, seed=seed), num_members, []).starts)
    view = apply(replace(EMPTY, seed=seed, lookback=plan.lookback), events)
    for round_ in range(1, rounds + 1):
        wave = [
            failed(member.id, round_) if score is None else reported(member.id, round_, score)
            for member, score in zip(view.population, scores[round_ - 1], strict=False)
        ]
        view = apply(view, wave)
        proposal = plan.decide(view, view.population)
        handed_over = [Decided(decision=decision) for decision in proposal.decisions]
        noted = MemoryUpdated(round=round_, memory={"round": round_})
        view = apply(view, [*handed_over, *proposal.retirements, noted])
        events += [*wave, *handed_over, *proposal.retirements, noted]
    return [*events, Ended(round=rounds, why="all rounds done")]


@settings(max_examples=60)
@given(st.data())
def test_fold_is_apply_in_any_split_of_the_log(data):
    """A log applied at once, event by event, or in any pieces gives the same view."""
    num_members, rounds = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 4))
    score = st.none() | st.integers(0, 4).map(float)
    scores = [[data.draw(score) for _ in range(num_members)] for _ in range(rounds)]
    exploit = data.draw(st.sampled_from((Truncation(0.4), BinaryTournament())))
    plan = Plan(exploit=exploit, lookback=data.draw(st.integers(0, 3)))
    events = a_run(data.draw(st.integers(0, 99)), num_members, rounds, plan, scores)
    empty = replace(EMPTY, lookback=plan.lookback)
    whole = fold(events, empty)
    view, rest = empty, list(events)
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        view, rest = apply(view, rest[:cut]), rest[cut:]
    assert view == whole
    assert whole.ended == "all rounds done"
    assert [member.id for member in whole.members] == list(range(num_members))


def test_apply_leaves_the_old_view_alone():
    """What a view showed, it shows for ever; nothing in it is shared with a later one in a way that changes it."""
    view = fold([born(0), reported(0, 1, 0.5)], replace(EMPTY, lookback=2))
    before = repr(view)
    later = apply(
        view, [reported(0, 2, 0.7), MemoryUpdated(round=2, memory={"x": 1}), Retired(member=0, round=2, why="")]
    )
    assert repr(view) == before
    assert later.member(0).status == "retired"
    assert later.memory == {"x": 1}


def test_what_the_empty_view_carries_stays():
    """Seed, space, lookback and rank are not of the log: they come from the empty view and never change."""
    empty = replace(EMPTY, lookback=4, rank=sorted)
    view = fold([born(0)], empty)
    assert (view.seed, view.space, view.lookback, view.rank) == (3, SPACE, 4, sorted)


def test_birth():
    """A newborn stands on nothing, or on the state it is given, and its first round is open."""
    assert fold([born(0, lr=0.2)], EMPTY).member(0) == Member(id=0, hparams={"lr": 0.2})
    late = fold([born(5, round=4, start=StateRef(0, 3), role="elite", group=2)], EMPTY).member(5)
    assert (late.round, late.opened, late.state, late.role, late.group) == (3, 4, StateRef(0, 3), "elite", 2)


def test_a_report_moves_a_member_on():
    """After a report the member stands on its own new state, with its own scores."""
    member = fold([born(0), reported(0, 1, 0.5, series=(0.4, 0.5), reported={"test": 0.9})], EMPTY).member(0)
    assert member == Member(
        id=0, hparams={"lr": 0.1}, step=10, scores=(0.5,), series=(0.4, 0.5), state=StateRef(0, 1), round=1
    )


def test_the_state_after_an_exploit_is_the_donors():
    """After an exploit state, step, scores and series are the donor's, the hyperparameters the decision's."""
    view = fold(
        [
            born(0),
            born(1),
            reported(0, 1, 0.9, step=12, series=(0.8, 0.9)),
            reported(1, 1, 0.1),
            decided(
                1,
                2,
                StateRef(0, 1),
                step=12,
                hparams={"lr": 0.12},
                donor=0,
                kind="exploit",
                scores=(0.9,),
                series=(0.8, 0.9),
            ),
        ],
        EMPTY,
    )
    member = view.member(1)
    assert (member.state, member.step, member.scores, member.series) == (StateRef(0, 1), 12, (0.9,), (0.8, 0.9))
    assert (member.hparams, member.copied_at, member.inherited) == ({"lr": 0.12}, 12, True)
    assert (member.round, member.opened) == (1, 2)
    after = apply(view, [reported(1, 2, 0.95, step=22)]).member(1)
    assert (after.state, after.step, after.inherited, after.copied_at) == (StateRef(1, 2), 22, False, 12)


def test_going_on_keeps_what_the_member_earned():
    """A decision that starts from the member's own state keeps its scores, and is no copy without a donor."""
    log = [born(0), reported(0, 1, 0.5, series=(0.5,))]
    member = fold([*log, decided(0, 2, StateRef(0, 1), hparams={"lr": 0.3})], EMPTY).member(0)
    assert (member.scores, member.series, member.inherited, member.copied_at) == ((0.5,), (0.5,), False, None)
    assert (member.hparams, member.step, member.opened) == ({"lr": 0.3}, 10, 2)
    copied = fold([*log, decided(0, 2, StateRef(0, 1), donor=7)], EMPTY).member(0)
    assert (copied.scores, copied.inherited, copied.copied_at) == ((0.5,), False, 10)


def test_nothing_of_a_failed_round_is_kept():
    """A failed member stands where it started the round, without scores, and is no donor and not the best."""
    view = fold([born(0), reported(0, 1, 0.5), decided(0, 2, StateRef(0, 1)), failed(0, 2)], EMPTY)
    member = view.member(0)
    assert (member.status, member.state, member.step, member.round) == ("failed", StateRef(0, 1), 10, 2)
    assert (member.scores, member.series, member.score, member.healthy) == ((), (), -math.inf, False)
    assert view.population == (member,)
    assert view.ranking == ()
    assert view.best.state == StateRef(0, 1)


@pytest.mark.parametrize("start", [StateRef(0, 1), StateRef(1, 1)])
def test_a_replaced_member_lives_again(start):
    """After its replacement a failed member is live with the donor's scores, even on the state it had before."""
    replaced = decided(1, 3, start, donor=0, kind="replace", scores=(0.9,), step=10)
    log = [born(0), born(1), reported(0, 1, 0.9), reported(1, 1, 0.1), decided(1, 2, StateRef(1, 1)), failed(1, 2)]
    member = fold([*log, replaced], EMPTY).member(1)
    assert (member.status, member.scores, member.inherited, member.step) == ("live", (0.9,), True, 10)
    assert (member.round, member.opened, member.copied_at) == (2, 3, 10)


def test_the_retired_leave_the_population_for_good():
    """A retired member stays in the view, and out of population and ranking."""
    view = fold([born(0), born(1), reported(0, 1, 0.9), reported(1, 1, 0.1), Retired(member=0, round=1, why="")], EMPTY)
    assert [member.id for member in view.members] == [0, 1]
    assert [member.id for member in view.population] == [member.id for member in view.ranking] == [1]


def test_the_best_changes_only_for_a_strictly_better_one():
    """The best is the first state that reached the highest score; an equal one later does not replace it."""
    log = [born(0), born(1, lr=0.2), reported(0, 1, 0.5), reported(1, 1, 0.5), reported(0, 2, 0.5)]
    assert fold(log, EMPTY).best == Best(score=0.5, state=StateRef(0, 1), hparams={"lr": 0.1}, step=10)
    better = reported(1, 2, 0.6)
    assert fold([*log, better], EMPTY).best == Best(score=0.6, state=StateRef(1, 2), hparams={"lr": 0.2}, step=20)
    assert fold([*log, better, reported(1, 3, 0.2)], EMPTY).best.state == StateRef(1, 2)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_the_best(score):
    """A score that is not finite never becomes the best, not even as the only one."""
    assert fold([born(0), reported(0, 1, score)], EMPTY).best is None


@pytest.mark.parametrize("role", ["evaluator", "elite"])
def test_only_members_can_be_the_best(role):
    """An auxiliary member's score is not a candidate."""
    assert fold([born(0, role=role), reported(0, 1, 0.9)], EMPTY).best is None


def test_the_best_keeps_the_values_it_was_trained_with():
    """What the member explores later does not change the record of the best."""
    later = decided(0, 2, StateRef(0, 1), hparams={"lr": 0.7})
    assert fold([born(0), reported(0, 1, 0.5), later], EMPTY).best.hparams == {"lr": 0.1}


@pytest.mark.parametrize("lookback", [0, 1, 2, 5])
def test_lookback_bounds_the_history(lookback):
    """The history holds each member as it was at its last `lookback` reports, oldest first; failures are none."""
    log = [born(0), born(1), *(reported(0, r, r / 10) for r in (1, 2)), failed(0, 3), reported(0, 4, 0.4)]
    view = fold([*log, reported(1, 1, 0.5)], replace(EMPTY, lookback=lookback))
    scores = [0.1, 0.2, 0.4]
    expected = {0: scores[-lookback:], 1: [0.5]} if lookback else {}
    assert {id_: [member.score for member in past] for id_, past in view.history.items()} == expected


def test_the_round_is_the_highest_that_anyone_finished():
    """A failed round counts as finished; a late report does not turn the round back."""
    log = [born(0), born(1)]
    assert fold(log, EMPTY).round == 0
    assert fold([*log, reported(0, 1, 0.5), failed(0, 2), reported(1, 1, 0.5)], EMPTY).round == 2


def test_an_ended_run_goes_on_by_deciding():
    """A run that ended says why, until the decision that extends it."""
    log = [born(0), reported(0, 1, 0.5), Ended(round=1, why="done")]
    assert fold(log, EMPTY).ended == "done"
    assert fold([*log, decided(0, 2, StateRef(0, 1))], EMPTY).ended is None


def test_memory_is_the_last_note():
    """A note replaces the memory whole, it is not merged."""
    view = fold([MemoryUpdated(round=1, memory={"a": 1}), MemoryUpdated(round=2, memory={"b": 2})], EMPTY)
    assert view.memory == {"b": 2}


def test_born_with_a_state():
    """Who enters with another's state stands at its step."""
    view = apply(
        EMPTY, [born(0), reported(0, 1, 0.5), born(1, round=2, start=StateRef(0, 1), step=10, role="evaluator")]
    )
    late = view.member(1)
    assert (late.step, late.state, late.round, late.opened) == (10, StateRef(0, 1), 1, 2)
