"""Backtracking: who goes back and to what, on hand-made populations; a breakdown costs one round and no more."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import pbt
from pbt.core.events import Decided, Ended, Reported
from pbt.core.population import Member, StateRef, View
from pbt.core.rng import Rng
from pbt.domains import Choice, Float, Int
from pbt.space import Space
from pbt.strategies.backtracking import Backtracking
from pbt.testing.invariants import violations
from pbt.testing.problems import NQM, TOY_PLAIN
from pbt.testing.strategies import StrategyContract

SPACE = Space({"lr": Float(1e-4, 100.0, "log")})


class TestContract(StrategyContract):
    def make_strategy(self):
        return Backtracking()


class TestContractWithoutTolerance(StrategyContract):
    rounds = 10

    def make_strategy(self):
        return Backtracking(tolerance=0.0, quorum=2, patience=1, exploit=pbt.binary_tournament(), interval=3)


def view_of(scores, elites=(), ranges=(), round_=5, **fields):
    """Members with these scores, None for a failed one; `elites` are given as member: (state, score, restored)."""
    members = [
        Member(
            id=i,
            hparams={"lr": float(i + 1)},
            step=10 * round_,
            state=StateRef(i, round_),
            round=round_,
            opened=round_,
            **({"status": "failed"} if score is None else {"scores": (float(score),)}),
        )
        for i, score in enumerate(scores)
    ]
    remembered = {
        str(id_): {
            "state": list(state),
            "step": 10 * state[1],
            "scores": [float(score)],
            "hparams": {"lr": 50.0 + state[0]},
            "restored": restored,
        }
        for id_, (state, score, restored) in dict(elites).items()
    }
    memory = {"elites": remembered, "ranges": list(ranges)}
    return View(**{"seed": 0, "space": SPACE, "round": round_, "members": tuple(members), "memory": memory} | fields)


STEADY = [10, 11, 12, 13, 14, 15, 16, 17]
"""Eight scores whose interquartile range is 3.5."""


def decide(view, **settings):
    """The decisions by member, and what is remembered."""
    strategy = Backtracking(**{"explore": pbt.keep(), "exploit": pbt.never(), **settings})
    proposal = strategy.decide(view, view.population)
    return {decision.member: decision for decision in proposal.decisions}, proposal.memory


@pytest.mark.parametrize(
    ("elite", "tolerance", "back"),
    [
        (13.5, 1.0, False),
        (13.51, 1.0, True),
        (15.25, 1.5, False),
        (15.26, 1.5, True),
        (17.0, 2.0, False),
        (10.5, 0, True),
    ],
)
def test_how_much_may_be_lost(elite, tolerance, back):
    """Member 0 goes back if its elite is better by more than so many interquartile ranges of the population."""
    decisions, _ = decide(view_of(STEADY, {0: ((0, 2), elite, 0)}), tolerance=tolerance)
    assert (decisions[0].start == StateRef(0, 2)) == back
    assert {decisions[i].start for i in range(1, 8)} == {StateRef(i, 5) for i in range(1, 8)}


def test_going_back_is_whole():
    """State, step, scores and hyperparameters of the elite, which are then explored."""
    view = view_of(STEADY, {0: ((0, 2), 90, 0)})
    decision = decide(view)[0][0]
    assert (decision.start, decision.step, decision.scores) == (StateRef(0, 2), 20, (90.0,))
    assert (decision.hparams, decision.hparams_from, decision.kind) == ({"lr": 50.0}, 0, "exploit")
    explored = decide(view, explore=pbt.perturb((0.5, 2.0)))[0][0]
    assert explored.hparams["lr"] in (25.0, 100.0)


def test_elites_only_rise():
    """What is better than the elite takes its place and is kept; what is worse is not."""
    view = view_of(STEADY, {0: ((0, 2), 12, 2), 1: ((1, 3), 10.5, 2)})
    decisions, memory = decide(view)
    assert decisions[0].start == StateRef(0, 5)
    assert memory["elites"]["0"]["state"] == [0, 2]
    assert memory["elites"]["1"] == {
        "state": [1, 5], "step": 50, "scores": [11.0], "hparams": {"lr": 2.0}, "restored": 0
    }  # fmt: skip
    kept = Backtracking().retain(replace(view, memory=memory))
    assert kept == {StateRef(0, 2), *(StateRef(i, 5) for i in range(8))}


def test_the_copier_takes_the_elite_along():
    """After a copy the lineage is the donor's, its best with it."""
    view = view_of(STEADY, {0: ((0, 2), 10.5, 0), 7: ((7, 3), 18, 2)})
    decisions, memory = decide(view, exploit=pbt.truncation(0.125))
    assert (decisions[0].start, decisions[0].donor) == (StateRef(7, 5), 7)
    assert memory["elites"]["0"] == memory["elites"]["7"] | {"restored": 0}
    assert memory["elites"]["7"]["state"] == [7, 3]


def test_a_donor_that_goes_back_is_copied_as_it_was():
    """When the best themselves have fallen, nobody copies what they fell to."""
    view = view_of(STEADY, {7: ((7, 3), 90, 0)})
    decisions, _ = decide(view, exploit=pbt.truncation(0.125))
    assert decisions[7].start == decisions[0].start == StateRef(7, 3)
    assert decisions[0].hparams == {"lr": 57.0}
    assert (decisions[0].donor, decisions[0].step) == (7, 30)


def test_a_failed_member_goes_back_under_other_values():
    """Its own best weights, the values of a healthy member of the better half, both named."""
    decisions, memory = decide(view_of([None, *STEADY[1:]], {0: ((0, 2), 10.5, 0)}))
    decision = decisions[0]
    assert (decision.start, decision.step, decision.kind) == (StateRef(0, 2), 20, "replace")
    assert decision.donor == decision.hparams_from
    assert decision.donor in (4, 5, 6, 7)
    assert decision.hparams == {"lr": decision.donor + 1.0}
    assert memory["elites"]["0"]["restored"] == 1


def test_a_failed_member_without_a_past():
    """Without an elite, or with one that has failed it too often, it copies a healthy member and its elite."""
    for elites in ({}, {0: ((0, 2), 90, 3)}):
        decisions, memory = decide(view_of([None, *STEADY[1:]], elites))
        assert decisions[0].start == StateRef(decisions[0].donor, 5)
        assert memory["elites"]["0"] == memory["elites"][str(decisions[0].donor)]


def test_patience_comes_to_an_end():
    """A lucky score is gone back to three times; then the lineage starts a new record and the plan decides."""
    view = view_of(STEADY, {0: ((0, 2), 90, 2)})
    decisions, memory = decide(view)
    assert (decisions[0].start, memory["elites"]["0"]["restored"]) == (StateRef(0, 2), 3)
    view = view_of(STEADY, {0: ((0, 2), 90, 3)})
    decisions, memory = decide(view, exploit=pbt.truncation(0.125))
    assert decisions[0].start == StateRef(7, 5)
    decisions, memory = decide(view)
    assert decisions[0].start == StateRef(0, 5)
    assert memory["elites"]["0"]["scores"] == [10.0]


def test_a_breakdown_of_most_does_not_hide_itself():
    """The range is the median of the last rounds: that of a broken population would allow any loss."""
    broken = [-(10.0**i) for i in range(3, 10)] + [17]
    elites = {i: ((i, 4), 12, 0) for i in range(7)}
    decisions, memory = decide(view_of(broken, elites, ranges=[4.0, 3.0, 3.5]))
    assert {decisions[i].start for i in range(7)} == {StateRef(i, 4) for i in range(7)}
    assert memory["ranges"][:3] == [4.0, 3.0, 3.5]
    _, memory = decide(view_of(STEADY, ranges=[1.0, 2.0, 3.0, 4.0, 5.0]))
    assert memory["ranges"] == [2.0, 3.0, 4.0, 5.0, 3.5]


def test_too_few_to_compare():
    """Below the quorum nobody goes back for a low score."""
    decisions, memory = decide(view_of([10, 11, 12, 13], {0: ((0, 2), 90, 0)}))
    assert decisions[0].start == StateRef(0, 5)
    assert memory["ranges"] == []
    decisions, _ = decide(view_of([10, 11, 12, 13], {0: ((0, 2), 90, 0)}), quorum=4)
    assert decisions[0].start == StateRef(0, 2)


@pytest.mark.parametrize(
    "settings", [{"tolerance": -1}, {"tolerance": math.nan}, {"quorum": 1}, {"patience": 0}, {"interval": 0}]
)
def test_settings_are_checked(settings):
    """What makes no sense is refused, with what was expected."""
    with pytest.raises(pbt.PBTError, match=r"Backtracking: expected .*, got"):
        Backtracking(**settings)


def test_only_states_that_are_stood_on():
    """A rule that copies an older state is refused: which old states there are is known here."""
    rule = lambda member, view, rng: pbt.core.exploit.Copy(donor=1, state=StateRef(1, 1))  # noqa: E731
    with pytest.raises(pbt.PBTError, match="copies no earlier states"):
        decide(view_of(STEADY), exploit=rule)


@dataclass(frozen=True)
class Breakdown:
    """A task in which one round begins with every weight times a million."""

    task: Any
    after: int
    members: frozenset[int] = frozenset(range(100))

    def __call__(self, hparams, state, steps, ctx):
        """The task's own round, from a state that broke down if this is the round."""
        if state is not None and ctx.round == self.after + 1 and ctx.member in self.members:
            name = next(iter(state))
            state = {**state, name: state[name] * 1e6}
        return self.task(hparams, state, steps, ctx)


def best_after(run, round_):
    return max(event.scores[0] for event in run.events if isinstance(event, Reported) and event.round == round_)


def pair(problem, after, rounds, seed, plan):
    """The same run undisturbed and disturbed."""
    options = problem | {"plan": plan, "rounds": rounds, "seed": seed}
    return pbt.run(**options), pbt.run(**options | {"task": Breakdown(problem["task"], after)})


@pytest.mark.gate
@pytest.mark.parametrize("after", [3, 10, 18])
@pytest.mark.parametrize("problem", [TOY_PLAIN, NQM], ids=["toy", "nqm"])
@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_breakdown_costs_one_round(problem, after, seeds):
    """Where values stay, a run that broke down ends no worse than an undisturbed one a round earlier."""
    rounds = 20
    for seed in range(seeds):
        calm, hit = pair(problem, after, rounds, seed, Backtracking(interval=20, explore=pbt.keep()))
        assert best_after(hit, after + 1) < -100 * abs(best_after(calm, after))
        assert best_after(hit, after + 2) >= best_after(calm, after + 1)
        assert best_after(hit, rounds) >= best_after(calm, rounds - 1)


@pytest.mark.gate
@pytest.mark.parametrize("seeds", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_a_breakdown_costs_one_round_of_exploring(seeds):
    """With explore the values go other ways afterwards; on the mean of the runs it is one round all the same."""
    lost = []
    for seed in range(seeds):
        calm, hit = pair(TOY_PLAIN, 10, 20, seed, Backtracking(interval=20))
        lost.append(best_after(hit, 20) - best_after(calm, 19))
    assert np.mean(lost) >= 0


def test_plain_pbt_does_not_recover():
    """The same breakdown under truncation alone: everybody is as bad, and whom they copy is no better."""
    _, hit = pair(TOY_PLAIN, 10, 20, 0, pbt.Plan(interval=20))
    assert best_after(hit, 20) < -1e6


def test_who_did_not_break_down_goes_on():
    """Of a population of which a part breaks down, that part goes back, each to its own best."""
    hurt = frozenset(range(0, 22, 3))
    task = Breakdown(TOY_PLAIN["task"], 6, hurt)
    run = pbt.run(**TOY_PLAIN | {"task": task, "plan": Backtracking(interval=20), "rounds": 8})
    opened = [e.decision for e in run.events if isinstance(e, Decided) and e.decision.round == 8]
    back = {decision.member for decision in opened if decision.why.startswith("fell")}
    assert back == hurt
    assert all(decision.start.round < 7 for decision in opened if decision.member in hurt)
    assert all(decision.start.round == 7 for decision in opened if decision.member not in hurt)


def test_calm_waters():
    """Where scores only rise nobody ever goes back, and no state is kept but those that members stand on."""
    run = pbt.run(**TOY_PLAIN | {"plan": Backtracking(interval=20), "rounds": 15})
    assert not [e for e in run.events if isinstance(e, Decided) and e.decision.why.startswith("fell")]


def climb(hparams, state, steps, ctx):
    """A climb that falls deep now and then, and now and then fails."""
    luck = Rng("luck", ctx.member, ctx.round).random()
    if luck < 0.05:
        raise ValueError("no luck")
    height = (state or {"height": 0.0})["height"] + steps * hparams["lr"] * hparams["layers"]
    if luck > 0.9:
        height -= 1000
    return {"height": height}, height


MIXED = {
    "task": climb,
    "space": {
        "lr": Float(1e-3, 1.0, "log"),
        "layers": Int(1, 4),
        "rule": Choice(("a", "b")),
        "momentum": Float(0.0, 0.9, when=("rule", "b")),
    },
    "plan": Backtracking(interval=2),
    "population": 12,
    "rounds": 12,
}


def test_no_law_is_broken(tmp_path):
    """A run with falls, failures, whole numbers, choices and conditional names keeps every law."""
    run = pbt.run(**MIXED, run_dir=tmp_path / "run")
    assert violations(tmp_path / "run") == []
    whys = [event.decision.why for event in run.events if isinstance(event, Decided)]
    assert any(why.startswith("fell") for why in whys)
    assert "failed, returns to its elite" in whys
    assert min(member.score for member in run.view.population if member.healthy) > -1000 * 2


def test_extended_is_the_same_as_long(tmp_path):
    """Five rounds and then seven tell what twelve tell: elites are in the log, and their states are kept."""
    pbt.run(**MIXED | {"rounds": 5}, run_dir=tmp_path / "run")
    extended = pbt.run(**MIXED, run_dir=tmp_path / "run", resume=True)
    logs = [[event for event in run.events if not isinstance(event, Ended)] for run in (extended, pbt.run(**MIXED))]
    assert logs[0] == logs[1]
