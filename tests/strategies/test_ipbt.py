"""IPBT: when the interval doubles, what a restart hands over, and which candidates are kept."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest

import pbt
from pbt.core.events import Born, Decided, Ended, Retired
from pbt.core.population import Member, StateRef, View
from pbt.core.rng import Rng
from pbt.domains import Choice, Float, Int
from pbt.errors import UsageError
from pbt.space import Space
from pbt.strategies import surrogate
from pbt.strategies.ipbt import IPBT
from pbt.strategies.pb2 import MODELED
from pbt.strategies.registry import named, named_again
from pbt.strategies.stagnation import WINDOW, rises, smoothed, too_slow
from pbt.testing.invariants import violations
from pbt.testing.strategies import StrategyContract

SPACE = Space({"lr": Float(1e-4, 1.0, "log"), "rule": Choice(("a", "b"))})
SCORES = [8, 7, 6, 5, 4, 3, 2, 1]


@pytest.fixture
def short_searches(monkeypatch):
    """The laws hold however well is searched."""
    monkeypatch.setattr(surrogate, "KERNEL_STEPS", 3)
    monkeypatch.setattr(surrogate, "POINT_STEPS", 3)


class Contract(StrategyContract):
    def test_awkward_populations(self):
        """Equal scores and one survivor are handled; a population without a quarter is refused."""
        assert list(self._run(lambda _: 0.5))
        assert list(self._run(lambda member: 0.5 if member.id == 0 else None))
        with pytest.raises(UsageError, match=r"IPBT: expected a population of at least 3.*, got 2"):
            list(self._run(lambda _: 0.5, population=2))


@pytest.mark.usefixtures("short_searches")
class TestContractOfRestarts(Contract):
    rounds = 14  # random scores stagnate: two restarts

    def make_strategy(self):
        return IPBT()

    def test_it_restarts(self):
        """The runs of the contract contain restarts."""
        moments = list(self._run(lambda _: 0.5))
        assert {moment.view.memory["number"] for moment in moments} >= {0, 1}
        assert any(moment.proposal.starts for moment in moments)


class TestContractWithoutTime(Contract):
    space = Space({"layers": Int(1, 8), "rule": Choice(("a", "b")), "momentum": Float(0, 1, when=("rule", "a"))})

    def make_strategy(self):
        return IPBT(horizon=1, interval=3, explore=pbt.perturb((0.5, 2.0)))


def memory_of(**changes):
    """The memory after the first selection among the candidates of eight members."""
    plain = {
        "number": 0,
        "population": 8,
        "interval": 1,
        "since": 9,
        "trial": False,
        "founders": {str(i): i for i in range(8)},
        "places": {str(i): [i / 8] for i in range(8)},
        "series": [1.0, 2.0, 3.0],
        "stalls": 0,
        "rows": [],
    }
    return json.loads(json.dumps(plain | changes))


def view_of(scores=SCORES, round_=10, seed=0, **memory):
    """Members with these scores (None: failed), each with an own value."""
    members = tuple(
        Member(
            id=i,
            hparams={"lr": 10.0 ** (-i / 4), "rule": "a"},
            step=10 * round_,
            state=StateRef(i, round_),
            round=round_,
            opened=round_,
            **({"status": "failed"} if score is None else {"scores": (float(score),)}),
        )
        for i, score in enumerate(scores)
    )
    return View(seed=seed, space=SPACE, round=round_, members=members, memory=memory_of(**memory))


def decided(view, **settings):
    proposal = IPBT(**settings).decide(view, view.members)
    return {decision.member: decision for decision in proposal.decisions}, proposal


@pytest.mark.parametrize(
    "series",
    [
        list(range(40)),
        [-(0.9**k) for k in range(30)],
        [k**0.5 for k in range(60)],
        [1e200 * math.log(k + 1) for k in range(60)],
    ],
)
def test_a_rise_never_stalls(series):
    """A series that rises has no point at which it does not."""
    assert all(rises(smoothed(series[:n])) for n in range(1, len(series) + 1))


def test_a_constant_stalls_at_every_point():
    """Equal scores do not rise, and are not divided by their deviation of zero."""
    assert smoothed([0.3] * 5) == [0.0] * 5
    assert rises(smoothed([0.3]))
    assert not any(rises(smoothed([0.3] * n)) for n in range(2, 6))


def test_noise_is_smoothed():
    """A peak that is noise is not followed, a rise in noise is."""
    noise = [Rng("noise", k).normal() for k in range(60)]
    points = smoothed([0.05 * k + noise[k] for k in range(60)])
    assert max(abs(b - a) for a, b in pairwise(points)) < 0.3
    assert points[-1] - points[0] > 1


def test_a_step_and_then_nothing_is_too_slow():
    """Fifteen equal points after a step are less than a deviation; fifteen that rise are more; fewer are never."""
    assert too_slow(smoothed([0.0] + [1.0] * WINDOW))
    assert not too_slow(smoothed([float(k) for k in range(WINDOW)]))
    assert not too_slow([0.0] * (WINDOW - 1))


def test_between_two_evolutions_members_continue():
    """In the rounds between two evolutions nothing is copied, but who failed is replaced."""
    decisions, proposal = decided(view_of([8, 7, 6, None, 4, 3, 2, 1], interval=2))
    assert {decisions[i].kind for i in range(8) if i != 3} == {"continue"}
    assert (decisions[3].kind, decisions[3].donor in {0, 1, 2, 4}) == ("replace", True)
    assert proposal.memory["founders"]["3"] == decisions[3].donor
    assert proposal.memory["series"] == [1.0, 2.0, 3.0]


def test_an_evolution_replaces_a_quarter():
    """The two worst of eight copy one of the two best, and descend from the donor's candidate."""
    decisions, proposal = decided(view_of())
    assert {decisions[i].kind for i in range(6)} == {"continue"}
    for loser in (6, 7):
        assert (decisions[loser].kind, decisions[loser].donor in {0, 1}) == ("exploit", True)
        assert proposal.memory["founders"][str(loser)] == decisions[loser].donor
    assert (proposal.memory["since"], proposal.memory["series"]) == (10, [1.0, 2.0, 3.0, 8.0])
    assert {decision.kind for decision in decided(view_of([5] * 8))[0].values()} == {"continue"}


def test_the_best_candidates_are_kept():
    """Of sixteen candidates the better eight stay; nobody copies in that round."""
    scores = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, None, 12, 13, None, 15, 16]
    both = {str(i): [i / 16] for i in range(16)}
    view = view_of(scores, trial=True, founders={str(i): i for i in range(16)}, places=both, series=[])
    decisions, proposal = decided(view)
    kept = {15, 14, 12, 11, 9, 8, 7, 6}
    assert set(decisions) == kept
    assert {decision.kind for decision in decisions.values()} == {"continue"}
    assert {retired.member for retired in proposal.retirements} == set(range(16)) - kept
    assert set(proposal.memory["places"]) == set(proposal.memory["founders"]) == set(map(str, kept))
    assert (proposal.memory["trial"], proposal.memory["series"]) == (False, [16.0])


def test_too_few_candidates_survive():
    """Failed candidates are kept only where healthy ones lack, and are replaced."""
    scores = [1, 2, 3, 4, 5, 6, *[None] * 10]
    places = {str(i): [i / 16] for i in range(16)}
    decisions, proposal = decided(
        view_of(scores, trial=True, founders={str(i): i for i in range(16)}, places=places, series=[])
    )
    assert len(decisions) == len(proposal.memory["founders"]) == 8
    assert sorted(d.kind for d in decisions.values()) == ["continue"] * 6 + ["replace"] * 2
    # The values of candidates that failed are not learned from.
    assert set(proposal.memory["places"]) <= set(map(str, range(6)))


@pytest.mark.usefixtures("short_searches")
def test_a_restart():
    """The third stall doubles the interval: states of the best quarter, new values for all, twice the candidates."""
    founders = {str(i): 0 if i < 4 else 4 for i in range(8)}
    decisions, proposal = decided(view_of(series=[9.0, 9.0, 9.0], stalls=2, founders=founders))
    assert (proposal.memory["number"], proposal.memory["interval"], proposal.memory["trial"]) == (1, 2, True)
    assert (proposal.memory["since"], proposal.memory["series"], proposal.memory["stalls"]) == (10, [], 0)
    assert [decisions[i].start for i in (0, 1)] == [StateRef(0, 10), StateRef(1, 10)]
    assert {decisions[i].start.member for i in range(2, 8)} <= {0, 1}
    assert {birth.start.member for birth in proposal.starts} == {0, 1}
    assert [birth.member for birth in proposal.starts] == list(range(8, 16))
    assert {(birth.round, birth.step) for birth in proposal.starts} == {(11, 100)}
    values = [d.hparams["lr"] for d in decisions.values()] + [birth.hparams["lr"] for birth in proposal.starts]
    assert not set(values) & {10.0 ** (-i / 4) for i in range(1, 8)}
    # Half are drawn from the priors, half proposed by the process; a choice is always drawn.
    assert [decisions[i].draws["lr"] for i in range(4)] == ["resample", MODELED, "resample", MODELED]
    assert {decision.draws["rule"] for decision in decisions.values()} == {"resample"}
    # Each candidate's descendants give its outcome; those without descendants count as the worst.
    assert proposal.memory["rows"] == [[0, [i / 8], {0: 8.0, 4: 4.0}.get(i, 1.0)] for i in range(8)]
    assert proposal.memory["founders"] == {str(i): i for i in range(16)}


@pytest.mark.usefixtures("short_searches")
def test_slow_rises_restart_too():
    """Fifteen evolutions with little gain are followed by a restart, although each rose."""
    series = [0.0, *(7 + 0.001 * k for k in range(WINDOW))]
    assert decided(view_of([7.1] * 8, series=series))[1].memory["number"] == 1


@pytest.mark.parametrize(("horizon", "restarts"), [(13, False), (14, True)])
@pytest.mark.usefixtures("short_searches")
def test_no_restart_without_time_for_two_intervals(horizon, restarts):
    """After round 10 two intervals of two rounds end after round 14."""
    _, proposal = decided(view_of(series=[9.0, 9.0, 9.0], stalls=2), horizon=horizon)
    assert (proposal.memory["number"] == 1) == restarts


def test_the_process_learns_from_outcomes():
    """Proposals are near the values that led to high scores, not near those that led to low ones."""
    rows = [[0, [k / 20], 8 - 30 * (k / 20 - 0.7) ** 2] for k in range(20)]
    scores = [8 - 30 * (i / 8 - 0.7) ** 2 for i in range(8)]
    decisions, proposal = decided(view_of(scores, series=[9.0, 9.0, 9.0], stalls=2, rows=rows, number=1))
    found = [d.hparams["lr"] for d in decisions.values() if d.draws["lr"] == MODELED]
    found += [birth.hparams["lr"] for birth in proposal.starts if birth.member % 2]
    places = sorted((math.log10(lr) + 4) / 4 for lr in found)
    assert len(places) == 8
    assert places[len(places) // 2] == pytest.approx(0.7, abs=0.15)


@pytest.mark.usefixtures("short_searches")
def test_proposals_obey_the_constraint():
    """The process is drawn to values that the constraint refuses; what it proposes is halved towards a sample."""
    rows = [[0, [k / 20], float(k)] for k in range(20)]
    space = Space(SPACE, lambda hparams: hparams["lr"] < 0.01)
    view = replace(view_of(series=[9.0, 9.0, 9.0], stalls=2, rows=rows, number=1), space=space)
    decisions, proposal = decided(view)
    assert MODELED in {decision.draws["lr"] for decision in decisions.values()}
    assert all(space.allows(opening.hparams) for opening in (*decisions.values(), *proposal.starts))


@pytest.mark.parametrize(("settings", "word"), [({"horizon": 0}, "horizon"), ({"interval": 0}, "interval")])
def test_what_is_refused(settings, word):
    """A setting out of its range is named."""
    with pytest.raises(UsageError, match=word):
        IPBT(**settings)


def test_a_small_population_is_refused_before_the_start(tmp_path):
    """The message names the plan and the least population; nothing is made on disk."""
    with pytest.raises(UsageError, match="IPBT: expected a population of at least 3"):
        pbt.run(stagnant, SPACE, plan=IPBT(), population=2, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_rounds_of_the_experiment_are_the_horizon():
    """By name the horizon is the number of rounds, and a resumed run keeps that of its start."""
    like = pbt.Plan(interval=5)
    made = named("ipbt", like, rounds=30)
    assert (made.horizon, made.interval, made.explore) == (30, 5, like.explore)
    assert named_again("ipbt", like, made.describe()) == made
    assert named("own", made, rounds=7) is made


def stagnant(hparams, state, steps, ctx):
    """A member gains until step 8 only; a few rounds fail. The score is to be minimized."""
    total = 0.0 if state is None else state["total"]
    if Rng("fails", ctx.member, ctx.round).random() < 0.04:
        return {"total": total}, math.nan
    if ctx.first_step < 8:
        total -= steps * hparams["lr"]
    return {"total": total}, total


@pytest.mark.usefixtures("short_searches")
def test_on_disk_and_resumed(tmp_path):
    """A run in pieces logs what one in one go logs, through restarts and failures, and breaks no law."""
    options = {"task": stagnant, "space": SPACE, "plan": IPBT(horizon=24), "population": 6, "seed": 4}
    options["objective"] = "minimize"
    for rounds in (1, 7, 24):
        pieces = pbt.run(**options, rounds=rounds, run_dir=tmp_path / "run", resume=rounds > 1)
    assert violations(tmp_path / "run") == []
    once = pbt.run(**options, rounds=24)
    told = [[e for e in run.events if not isinstance(e, Ended)] for run in (pieces, once)]
    assert told[0] == told[1]
    assert len(once.view.population) == 6
    assert once.view.memory["interval"] == 2 ** once.view.memory["number"] > 1
    assert sum(isinstance(e, Born) for e in once.events) == 12 + 6 * once.view.memory["number"]
    assert sum(isinstance(e, Retired) for e in once.events) == 6 + 6 * once.view.memory["number"]
    kinds = {e.decision.kind for e in once.events if isinstance(e, Decided)}
    assert kinds == {"continue", "exploit", "explore", "replace"}
