"""A rule that answers for a whole wave takes the decisions of one that is asked member by member."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbt.core.exploit import BinaryTournament, Stay, Truncation, for_all
from pbt.core.population import Member, StateRef, by_score
from pbt.core.strategy import Plan, hand_over, stay
from pbt.errors import UsageError
from tests.core.test_fold import EMPTY

STATUSES = st.sampled_from(("live", "live", "live", "failed"))


@st.composite
def views(draw):
    """A population after a round, with ties, failed members, and members of different steps."""
    members = []
    for id_ in range(draw(st.integers(1, 12))):
        status = draw(STATUSES)
        scores = () if status == "failed" else (float(draw(st.integers(0, 5))),)
        step = draw(st.integers(1, 3))
        hparams = {"lr": draw(st.floats(1e-3, 0.9))}
        members.append(Member(id_, hparams, step, scores, (), StateRef(id_, 1), 1, 1, status=status))
    return replace(EMPTY, seed=draw(st.integers(0, 99)), round=1, members=tuple(members))


@settings(max_examples=150)
@given(
    view=views(),
    fraction=st.sampled_from((0.0, 0.2, 0.5)),
    ties=st.sampled_from(("stay", "copy")),
    inherit=st.sampled_from(("both", "state", "hparams")),
    burn_in=st.integers(0, 3),
)
def test_a_whole_wave_is_decided_as_its_members_are(view, fraction, ties, inherit, burn_in):
    """The same donors, draws, values and reasons, to the bit."""
    rule = Truncation(fraction, ties=ties)

    def alone(member, view, rng):
        return rule(member, view, rng)

    assert for_all(rule) is rule
    assert for_all(alone) is None
    wave, single = (Plan(exploit=exploit, inherit=inherit, burn_in=burn_in) for exploit in (rule, alone))
    together, apart = (plan.decide(view, view.members) for plan in (wave, single))
    assert repr(together) == repr(apart)
    # In any part of the wave, too: each member's draws are its own.
    for member in view.members:
        (one,) = [*wave.decide(view, [member]).decisions, *wave.decide(view, [member]).retirements]
        assert one in [*together.decisions, *together.retirements]


@dataclass(frozen=True, slots=True)
class Reluctant(Truncation):
    """A rule of a user: it never copies."""

    def __call__(self, member, view, rng):
        return Stay(why="no")


def test_a_rule_with_a_call_of_its_own_is_asked_member_by_member():
    """What it inherits does not answer in its place."""
    members = tuple(Member(i, {"lr": 0.1}, 1, (float(i),), (), StateRef(i, 1), 1, 1) for i in range(6))
    view = replace(EMPTY, members=members)
    assert for_all(Reluctant(0.5)) is None
    assert for_all(BinaryTournament()) is None
    assert {d.why for d in Plan(exploit=Reluctant(0.5)).decide(view, members).decisions} == {"no"}
    assert {d.kind for d in Plan(exploit=Truncation(0.5)).decide(view, members).decisions} == {"continue", "exploit"}


class Confused:
    """A rule that answers for the whole wave, but not with choices."""

    def __call__(self, member, view, rng):
        return Stay()

    def choose_all(self, members, view, rng_of):
        return ["copy"] * len(members)


def test_what_a_rule_answers_for_a_wave_is_checked():
    """As the answer for one member."""
    members = tuple(Member(i, {"lr": 0.1}, 1, (float(i),), (), StateRef(i, 1), 1, 1) for i in range(3))
    with pytest.raises(UsageError, match="expected exploit to return Copy, Mutate or Stay, got 'copy'"):
        Plan(exploit=Confused()).decide(replace(EMPTY, members=members), members)


@given(view=views(), compared=st.none() | st.integers(0, 3))
def test_a_member_that_stays_gets_the_decision_of_a_hand_over_to_itself(view, compared):
    """The short way makes the same record."""
    for member in view.members:
        assert stay(member, "why", compared) == hand_over(member, member.hparams, why="why", compared=compared)


@given(view=views(), data=st.data())
def test_members_are_ranked_by_score_and_then_by_id_in_any_order(view, data):
    """Failed members come last; the order in which they are given does not matter."""
    given_ = data.draw(st.permutations(view.members))
    expected = sorted(view.members, key=lambda member: (not member.healthy, -member.score, member.id))
    assert by_score(given_) == by_score(view.members) == expected
