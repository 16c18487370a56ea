"""The order of members with several objectives."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pbt
from pbt.core.events import Decided
from pbt.core.population import Member, by_score
from pbt.core.rng import Rng
from pbt.core.strategy import Plan
from pbt.errors import PopulationLostError, UsageError
from pbt.strategies.multi_objective import front, pareto
from pbt.testing.invariants import violations
from pbt.testing.strategies import StrategyContract

POINTS = st.integers(1, 3).flatmap(
    lambda size: st.lists(st.tuples(*[st.integers(0, 6).map(float)] * size), min_size=1, max_size=14)
)


class TestContract(StrategyContract):
    objectives = 2

    def make_strategy(self):
        return Plan(exploit=pbt.truncation(0.25), rank=pareto())


def members_of(points):
    """One member per point; None: it failed."""
    return [
        Member(id=i, hparams={}, **({"status": "failed"} if point is None else {"scores": tuple(point)}))
        for i, point in enumerate(points)
    ]


def order(points):
    """The ids, best first."""
    return [member.id for member in pareto()(members_of(points))]


def beats(one, other):
    """Whether a point is as good in every objective and better in one."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def test_an_order_by_hand():
    """Two fronts of a picture that can be drawn; the second objective is a thousand times the first."""
    # Scaled, the first front is 0 (1, 0), 1 (.9, .5), 2 (.5, .8) and 3 (0, 1), the second 4 (.4, .4) and 5 (.1, .7).
    # First comes 0, with the best first objective, and farthest from it is 3; 2 is .54 from the nearest of them, 1 is
    # .51. Of the second front 4 is .41 from the nearest, and 5 is .32.
    points = [(10, 0), (9, 5000), (5, 8000), (0, 10000), (4, 4000), (1, 7000)]
    assert order(points) == [0, 3, 2, 1, 4, 5]


def test_scaling_an_objective_changes_nothing():
    """Without normalization the larger unit would decide alone."""
    points = [(1.0, 0.0), (0.9, 0.1), (0.5, 0.5), (0.1, 0.9), (0.0, 1.0), (0.3, 0.3)]
    for factor in (1e-3, 1.0, 64.0, 1e6):
        assert order([(a, factor * b) for a, b in points]) == order(points)


@given(points=POINTS)
def test_one_front_after_another(points):
    """A member comes before all it beats, and the first front is first: those whom nobody beats."""
    places = order(points)
    assert sorted(places) == list(range(len(points)))
    best = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    assert set(places[: len(best)]) == best == {member.id for member in front(members_of(points))}
    for i, one in enumerate(places):
        assert not any(beats(points[later], points[one]) for later in places[i:])
    assert points[places[0]][0] == max(point[0] for point in points)


@given(points=POINTS)
def test_scattered(points):
    """Within a front, whoever comes next is farthest from all before it."""
    places = order(points)
    spans = [(min(column), max(column)) for column in zip(*points, strict=True)]
    scaled = [[(x - a) / (b - a) if b > a else 0.0 for x, (a, b) in zip(p, spans, strict=True)] for p in points]
    levels = {}
    for i in places:
        levels[i] = 1 + max((levels[j] for j in levels if beats(points[j], points[i])), default=-1)
    assert all(levels[one] <= levels[other] for one, other in pairwise(places))
    for k, taken in enumerate(places[1:], 1):

        def apart(i, before=places[:k]):
            return min(math.dist(scaled[i], scaled[j]) for j in before)

        assert all(apart(taken) >= apart(i) for i in places[k:] if levels[i] == levels[taken])


@given(size=st.integers(1, 12), objectives=st.integers(1, 3), seed=st.integers(0, 999), data=st.data())
def test_names_do_not_matter(size, objectives, seed, data):
    """In which order members are given changes nothing, and who has which id nothing where no two tie."""
    rng = Rng("points", seed)
    members = members_of([tuple(rng.random() for _ in range(objectives)) for _ in range(size)])
    shuffled = data.draw(st.permutations(members))
    assert pareto()(shuffled) == pareto()(members)
    renamed = [member._replace(id=place) for place, member in enumerate(shuffled)]
    assert [member.scores for member in pareto()(renamed)] == [member.scores for member in pareto()(members)]


@given(scores=st.lists(st.none() | st.integers(0, 5).map(float), max_size=9))
def test_one_objective_is_the_score(scores):
    """With one objective fronts are scores: the best first, ties by id, failed members last."""
    members = members_of([None if score is None else (score,) for score in scores])
    assert pareto()(members) == by_score(members)


def test_unusable_members_come_last():
    """Failed ones, those without scores, and those with a score that is no number, by id."""
    members = members_of([None, (math.nan, 1.0), (1.0, math.inf), (), (0.0, 0.0), (1.0, 1.0)])
    assert [member.id for member in pareto()(members)] == [5, 4, 0, 1, 2, 3]
    assert [member.id for member in front(members)] == [5]
    assert front([]) == pareto()([]) == []


def test_different_numbers_of_objectives():
    """Members that cannot be compared are refused."""
    with pytest.raises(UsageError, match=r"same number of scores from every member, got \[1, 2\]"):
        pareto()(members_of([(1.0,), (1.0, 2.0)]))


def climb(hparams, state, steps, ctx):
    """Two objectives that ask for opposite values of h: a run has to hold both ends and what lies between."""
    x = (0.0 if state is None else state["x"]) + 0.05 * steps * (hparams["h"] - 0.5)
    return {"x": x}, {"scores": [1 - (x - 1) ** 2, 1 - (x + 1) ** 2]}


def spread(rank, **where):
    """The run, and the positions of its members at the end."""
    plan = Plan(exploit=pbt.truncation(0.25), explore=pbt.jitter(0.2), interval=2, rank=rank)
    options = {"plan": plan, "population": 16, "rounds": 25, "seed": 1}
    run = pbt.run(climb, {"h": pbt.Float(0.0, 1.0)}, **options | where)
    return run, [run.load_state(member.state)["x"] for member in run.view.population]


def test_both_objectives_are_pursued(tmp_path):
    """By the first score alone everybody ends at its top; by this order members are found near both tops."""
    run, positions = spread(pareto(), run_dir=tmp_path / "run")
    assert min(positions) < -0.5
    assert max(positions) > 0.5
    _, greedy = spread(by_score)
    assert min(greedy) > -0.5
    assert violations(tmp_path / "run") == []
    trade_offs = front(run.view.population)
    assert all(a.scores[0] >= b.scores[0] and a.scores[1] <= b.scores[1] for a, b in pairwise(trade_offs))


def test_the_first_is_never_overwritten():
    """Whoever ranks first goes on from its own state with its own values."""
    run, _ = spread(pareto())
    for round_ in range(1, 25):
        ranked = pareto()([_reported(run, id_, round_) for id_ in range(16)])
        decision = run.tree.decisions[ranked[0].id, round_ + 1]
        assert (decision.kind, decision.donor) == ("continue", None)


def test_resumed_as_in_one_go(tmp_path):
    """Three rounds, then the rest, log what all of them at once log."""
    spread(pareto(), rounds=3, run_dir=tmp_path / "run")
    resumed, _ = spread(pareto(), run_dir=tmp_path / "run", resume=True)
    whole, _ = spread(pareto())
    assert [e for e in resumed.events if isinstance(e, Decided)] == [e for e in whole.events if isinstance(e, Decided)]


def _reported(run, id_, round_):
    """A member as it was ranked."""
    return Member(id=id_, hparams={}, scores=run.tree.reports[id_, round_].scores)


def both(sign):
    """A task whose two scores depend on two hyperparameters against each other; the second one with this sign."""

    def train(hparams, state, steps, ctx):
        a, b = (state or {"at": (0.0, 0.0)})["at"]
        a, b = a + hparams["x"] + hparams["y"], b - hparams["x"] * hparams["y"] - 0.1 * hparams["y"]
        return {"at": (a, b)}, {"scores": [a, sign * b]}

    return train


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("objective", [["maximize", "minimize"], ["minimize", "maximize"], "minimize"], ids=str)
def test_each_objective_has_its_sign(objective, mode, tmp_path):
    """A minimized score makes the decisions of its negative, maximized; tables have the task's own."""
    space = {"x": pbt.Float(0.1, 1), "y": pbt.Float(0.1, 1)}
    plan = Plan(exploit=pbt.truncation(0.4), rank=pareto(), interval=2, mode=mode)
    equal = [objective] * 2 if isinstance(objective, str) else objective
    sign = 1 if equal[0] == equal[1] else -1
    settings = {"plan": plan, "population": 8, "seed": 5, "rounds": 6}
    alike = pbt.run(both(-1), space, objective=equal[0], **settings)
    pbt.run(both(-sign), space, objective=objective, run_dir=tmp_path / "run", **settings | {"rounds": 3})
    found = pbt.run(
        both(-sign), space, objective=objective, run_dir=tmp_path / "run", resume=True, **settings | {"rounds": 6}
    )
    assert violations(tmp_path / "run") == []
    if mode == "sync":
        assert found.history()["donor"] == alike.history()["donor"]
        assert found.history()["x"] == alike.history()["x"]
        assert any(donor is not None for donor in found.history()["donor"])
        assert found.history()["score_2"] == [sign * score for score in alike.history()["score_2"]]
    assert found.history()["score"][0] == pytest.approx(found.history()["x"][0] + found.history()["y"][0])
    assert front(found.view.population)[0].scores[0] == pytest.approx(
        found.view.sign * found.tree.newest[front(found.view.population)[0].id].score
    )
    assert found.meta["objective"] == objective


def test_scores_that_are_no_list_of_the_objectives():
    """A task that returns another number of scores than there are objectives loses its rounds, with both numbers."""
    with pytest.raises(PopulationLostError, match=r"returned 2 scores, objective has one for each of 3.*'scores'"):
        pbt.run(both(1), {"x": pbt.Float(0, 1), "y": pbt.Float(0, 1)}, objective=["maximize"] * 3, rounds=1)
    for wrong in ([], ["maximize", "best"], "best", [1]):
        with pytest.raises(UsageError, match="'maximize' or 'minimize', or a list of one for each score, got"):
            pbt.run(both(1), {}, objective=wrong)
