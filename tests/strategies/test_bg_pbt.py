"""BG-PBT: the size of its trust region, what lies in one, and what it finds there."""

import math

import pytest

import pbt
from pbt.core.events import Decided, Ended, MemoryUpdated
from pbt.core.population import Member, StateRef, View
from pbt.domains import Choice, Float
from pbt.space import Space
from pbt.strategies import surrogate
from pbt.strategies.bg_pbt import BGPBT, normal_scores
from pbt.strategies.pb2 import MODELED
from pbt.strategies.surrogate import Points
from pbt.strategies.trust_region import Region, search
from pbt.testing.invariants import violations
from pbt.testing.strategies import StrategyContract
from tests.strategies.test_pb2 import MIXED, mixed


@pytest.fixture
def short_searches(monkeypatch):
    """The laws hold however well is searched."""
    monkeypatch.setattr(surrogate, "KERNEL_STEPS", 3)
    monkeypatch.setattr("pbt.strategies.trust_region.POINT_STEPS", 3)


@pytest.mark.usefixtures("short_searches")
class TestContract(StrategyContract):
    space = Space(MIXED)
    rounds = 4

    def make_strategy(self):
        return BGPBT(interval=2)


def after(region, *outcomes):
    for success in outcomes:
        region = region.after(success)
    return region


def test_region_grows_after_three_successes():
    """By 1.5, up to the whole range; a failure between them starts the count again."""
    assert after(Region(), True, True, False, True, True).numbers == 0.4
    assert after(Region(), *[True] * 3) == Region(numbers=pytest.approx(0.6))
    assert after(Region(), *[True] * 9).numbers == 1.0


def test_region_shrinks_after_ten_failures():
    """By 1.5, down to 0.15 of the numbers; where it would shrink below that, it starts again."""
    once = after(Region(), *[False] * 10)
    assert (once.numbers, once.choices) == pytest.approx((0.4 / 1.5, 1 / 1.5))
    assert after(once, *[False] * 20).numbers == 0.15
    assert after(once, *[False] * 30) == Region(restarts=1)


def test_extent_of_a_region():
    """An interval is cut at the ends of the range; at least one choice may change, and no more than there are."""
    assert Region().interval(0.1) == pytest.approx((0.0, 0.3))
    assert Region().interval(0.5) == pytest.approx((0.3, 0.7))
    assert [Region(choices=0.1).radius(count) for count in (0, 1, 5, 20)] == [0, 1, 1, 2]
    assert Region().radius(4) == 4


def test_normal_scores():
    """Quantiles at the ranks, of which equal values have the greatest."""
    assert normal_scores([5.0, -1e308, 5.0]) == pytest.approx([0.67449, -0.67449, 0.67449], abs=1e-5)


@pytest.mark.parametrize(("radius", "expected"), [(1, [2, 0]), (2, [2, 1])])
def test_search_moves_numbers_and_choices(radius, expected):
    """The best numbers depend on a choice, and only as many choices change as the radius allows."""

    def worth(times, places, kinds):
        best = 0.3 + 0.1 * kinds[:, 0]
        return -((places[:, 1] - best) ** 2) + kinds[:, 0] + 0.1 * (kinds[:, 1] == 1)

    here = Points([1.0], [[0.5, 0.4]], [[0, 0]])
    found, kinds = search(worth, here, {1: (0.2, 0.6)}, [3, 4], radius, [[0.5], [0.9]])
    assert kinds == expected
    assert found[1] == pytest.approx(0.5, abs=1e-3)
    # A choice without options, which is not active, stays.
    assert search(worth, here, {1: (0.2, 0.6)}, [0, 4], 2, [[0.5]])[1] == [0, 1]


SPACE = Space({"lr": Float(0.0, 1.0), "rule": Choice(("a", "b", "c"))})


def view_of(memory, hparams, scores=(4.0, 3.0, 2.0, 1.0)):
    members = tuple(
        Member(id=i, hparams=values, step=5, state=StateRef(i, 5), round=5, opened=5, scores=(score,))
        for i, (score, values) in enumerate(zip(scores, hparams, strict=True))
    )
    return View(seed=1, space=SPACE, round=5, members=members, memory=memory)


@pytest.mark.parametrize(("best", "success"), [(3, True), (0, False)])
def test_success(best, success):
    """A round is a success if a member with proposed values gained most; rounds without a proposal do not count."""
    values = [{"lr": 0.1 * i, "rule": "a"} for i in range(4)]
    opened = {str(i): [5, score - (3.0 if i == best else 1.0)] for i, score in enumerate((4.0, 3.0, 2.0, 1.0))}
    for proposed in ([3], []):
        view = view_of({"rows": [], "opened": opened, "proposed": proposed}, values)
        region = BGPBT().decide(view, view.members).memory["region"]
        assert (region["successes"], region["failures"]) == ((int(success), int(not success)) if proposed else (0, 0))


def test_proposal_lies_in_the_region():
    """The copy is at most half a side from its donor in every number, and its values are recorded as modeled."""
    rows = [[1 + k // 4, 0.5, -abs(k / 40 - 0.9), [k / 40, "abc"[k % 3]]] for k in range(40)]
    view = view_of({"rows": rows, "opened": {}}, [{"lr": 0.3, "rule": "a"}] * 4)
    proposal = BGPBT().decide(view, view.members)
    copy = proposal.decisions[-1]
    assert 0.3 < copy.hparams["lr"] <= 0.5 + 1e-9
    assert copy.draws == {"lr": MODELED, "rule": MODELED}
    assert proposal.memory["proposed"] == [3]


def test_run_in_pieces(tmp_path):
    """A run in pieces logs what one without a break logs, and breaks no law."""
    options = {"task": mixed, "space": MIXED, "plan": BGPBT(interval=2), "population": 6, "seed": 4}
    pbt.run(**options, rounds=3, run_dir=tmp_path / "run")
    pieces = pbt.run(**options, rounds=6, run_dir=tmp_path / "run", resume=True)
    once = pbt.run(**options, rounds=6)
    assert violations(tmp_path / "run") == []
    logs = [[event for event in run.events if not isinstance(event, Ended)] for run in (pieces, once)]
    assert logs[0] == logs[1]
    assert any(MODELED in event.decision.draws.values() for event in once.events if isinstance(event, Decided))
    assert [event for event in once.events if isinstance(event, MemoryUpdated)][-1].memory["region"]
    assert all(math.isfinite(member.score) for member in once.view.ranking)
