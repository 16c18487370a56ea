"""What a strategy looks at: members, their order, one frozen moment."""

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbt.core.population import Member, StateRef, by_score

SCORES = st.none() | st.floats() | st.sampled_from((0.0, -0.0, 1.0, 2.0))


def ids(members):
    return [member.id for member in members]


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ([0.1, 0.3, 0.2], [1, 2, 0]),
        ([0.2, 0.2, 0.3, 0.2], [2, 0, 1, 3]),  # ties by id
        ([None, 0.1, None, 0.2], [3, 1, 0, 2]),  # failed last
        ([math.nan, 0.1, -1e300], [1, 2, 0]),  # NaN after the worst number
        ([math.inf, -math.inf, math.nan, None, -5.0], [4, 0, 1, 2, 3]),  # an infinity is no score, of either sign
        ([-0.0, 0.0], [0, 1]),
        ([], []),
    ],
)
def test_order(view_of, scores, order):
    """Best first, ties by id, and whatever failed or has no finite score last."""
    assert ids(by_score(view_of(scores).members)) == order


@given(st.lists(SCORES, max_size=12), st.randoms())
def test_the_order_does_not_depend_on_the_order_given(view_of, scores, random):
    """Members in any order are ranked alike."""
    members = list(view_of(scores).members)
    expected = ids(by_score(members))
    random.shuffle(members)
    assert ids(by_score(members)) == expected


@given(st.lists(SCORES, max_size=12))
def test_only_the_healthy_are_ranked(view_of, scores):
    """The ranking holds exactly the members with a finite score, never increasing; a position is a place in it."""
    view = view_of(scores)
    assert set(ids(view.ranking)) == {i for i, s in enumerate(scores) if s is not None and math.isfinite(s)}
    ranked = [member.score for member in view.ranking]
    assert ranked == sorted(ranked, reverse=True)
    assert [view.ranking[place].id for place in view.position.values()] == list(view.position)
    assert ids(view.population) == list(range(len(scores)))


def test_only_members_of_the_population_count(view_of, member_of):
    """Evaluators, elites and retired members are in the view, but neither in the population nor in the ranking."""
    view = view_of(
        [
            0.1,
            member_of(1, 0.9, role="elite"),
            member_of(2, 0.8, role="evaluator"),
            member_of(3, 0.7, status="retired"),
            None,
        ]
    )
    assert ids(view.members) == [0, 1, 2, 3, 4]
    assert ids(view.population) == [0, 4]
    assert ids(view.ranking) == [0]
    assert view.member(3).status == "retired"
    with pytest.raises(KeyError):
        view.member(9)


def test_a_member_that_is_not_live_has_no_score(member_of):
    """A failed or retired member scores minus infinity, whatever numbers it still carries; so does a new one."""
    assert member_of(0, 0.5).score == 0.5
    assert member_of(0, 0.5, status="retired").score == -math.inf
    assert not member_of(0, 0.5, status="failed").healthy
    assert Member(id=0, hparams={}).score == -math.inf
    assert not Member(id=0, hparams={}).healthy


def test_another_rank_is_another_view(view_of):
    """A rank reorders a copy: the view keeps its own order, and what it had computed is not carried over."""
    view = view_of([0.1, 0.3, None, 0.2])
    assert ids(view.ranking) == [1, 3, 0]
    upside_down = view.ranked_by(lambda members: by_score(members)[::-1])
    assert ids(upside_down.ranking) == [0, 3, 1]
    assert upside_down.position == {0: 0, 3: 1, 1: 2}
    assert ids(view.ranking) == [1, 3, 0]
    assert view.ranked_by(view.rank) is view


def test_it_is_ranked_once_per_view(view_of):
    """However often it is asked for, the order is computed once."""
    calls = []

    def rank(members):
        calls.append(len(members))
        return by_score(members)

    view = view_of([0.1, 0.3, 0.2], rank=rank)
    for _ in range(5):
        assert view.ranking[view.position[1]].id == 1
    assert calls == [3]


def test_records_are_frozen(view_of):
    """Neither a view nor a member can be changed."""
    view = view_of([0.1])
    with pytest.raises(FrozenInstanceError):
        view.round = 2
    with pytest.raises(AttributeError):
        view.members[0].step = 2
    assert StateRef(3, 4) == (3, 4)
