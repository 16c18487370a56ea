"""PB2: what counts as an observation, who is pending, and that it follows an optimum that drifts."""

import math

import numpy as np
import pytest

import pbt
from pbt.core.events import Decided, Ended, MemoryUpdated
from pbt.core.population import Member, StateRef, View
from pbt.core.rng import Rng
from pbt.domains import Choice, Float, Int
from pbt.errors import UsageError
from pbt.space import Space
from pbt.strategies import pb2, surrogate
from pbt.strategies.pb2 import MODELED, PB2
from pbt.testing.invariants import violations
from pbt.testing.problems import NQM
from pbt.testing.strategies import StrategyContract

SPACE = Space({"lr": Float(1e-4, 1.0, "log")})
MIXED = {
    "lr": Float(1e-3, 1.0, "log"),
    "layers": Int(1, 8),
    "rule": Choice(("sgd", "adam")),
    "momentum": Float(0.0, 0.9, when=("rule", "sgd")),
    "order": Choice((1, 2, 3), ordered=True),
}


@pytest.fixture
def short_searches(monkeypatch):
    """The laws hold however well is searched."""
    monkeypatch.setattr(surrogate, "KERNEL_STEPS", 3)
    monkeypatch.setattr(surrogate, "POINT_STEPS", 3)


@pytest.mark.usefixtures("short_searches")
class TestContract(StrategyContract):
    def make_strategy(self):
        return PB2()


@pytest.mark.usefixtures("short_searches")
class TestContractOfOtherSettings(StrategyContract):
    space = Space(MIXED)
    rounds = 4

    def make_strategy(self):
        return PB2(quantile=0.5, acquisition="std", time="rounds", eps_cap=0.9, rows=20, interval=3)


def mixed(hparams, state, steps, ctx):
    """A member gains more the nearer lr is to 0.1, and nothing from the rest; a few rounds fail."""
    total = 0.0 if state is None else state["total"]
    if Rng("fails", ctx.member, ctx.round).random() < 0.05:
        return {"total": total}, math.nan
    total += steps * (1 - abs(math.log10(hparams["lr"]) + 1) / 3)
    return {"total": total}, total


def without_end(run):
    return [event for event in run.events if not isinstance(event, Ended)]


def view_of(scores, hparams, memory=None, round_=5, space=SPACE, inherited=()):
    """Members with these scores (None: failed) and values."""
    members = tuple(
        Member(
            id=i,
            hparams=values,
            step=round_,
            state=StateRef(i, round_),
            round=round_,
            opened=round_,
            inherited=i in inherited,
            **({"status": "failed"} if score is None else {"scores": (float(score),)}),
        )
        for i, (score, values) in enumerate(zip(scores, hparams, strict=True))
    )
    return View(seed=1, space=space, round=round_, members=members, memory=memory or {})


def decided(view, strategy=None):
    proposal = (strategy or PB2()).decide(view, view.members)
    return {decision.member: decision for decision in proposal.decisions}, proposal


def rates(*values):
    return [{"lr": value} for value in values]


def test_first_round_has_nothing_to_compare():
    """At the first ready point a copy keeps the donor's values, and the next scores to compare with are noted."""
    view = view_of([4, 3, 2, 1], rates(0.1, 0.2, 0.3, 0.4), round_=1)
    decisions, proposal = decided(view)
    assert decisions[3].hparams == {"lr": 0.1}
    assert (decisions[3].donor, decisions[3].start, decisions[3].kind) == (0, StateRef(0, 1), "exploit")
    assert [decisions[i].kind for i in range(3)] == ["continue"] * 3
    # The copy's next round begins with the donor's score.
    assert proposal.memory == {"rows": [], "opened": {"0": [2, 4.0], "1": [2, 3.0], "2": [2, 2.0], "3": [2, 4.0]}}


def test_rows():
    """A row is round, score before, gain and values; none of what failed, was inherited or had no score before."""
    opened = {"0": [5, 3.0], "1": [5, 7.0], "2": [5, 1.0], "3": [4, 1.0], "4": [5, -1e308], "5": [5, 2.0]}
    old = [[4, 0.5, 0.25, [0.01]]]
    view = view_of(
        [4, 3, 2, 1, 1e308, None], rates(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), {"rows": old, "opened": opened}, inherited=[2]
    )
    _, proposal = decided(view)
    assert proposal.memory["rows"] == [*old, [5, 3.0, 1.0, [0.1]], [5, 7.0, -4.0, [0.2]]]


def test_rows_are_bounded():
    """The oldest go first."""
    old = [[1, 0.0, float(i), [0.01]] for i in range(5)]
    opened = {str(i): [5, 0.0] for i in range(4)}
    _, proposal = decided(view_of([4, 3, 2, 1], rates(*[0.1] * 4), {"rows": old, "opened": opened}), PB2(rows=6))
    assert [row[2] for row in proposal.memory["rows"]] == [3, 4, 4, 3, 2, 1]


def drifted(rounds=40, each=4, space=SPACE):
    """Rows in which the best lr has moved from 1e-3.6 up to 1e-0.4."""
    rows = []
    for k in range(rounds * each):
        share = Rng("drifted", k).random()
        best = 0.1 + 0.8 * (k // each) / (rounds - 1)
        rows.append([k // each + 1, 0.5, 1 - (share - best) ** 2, [10 ** (-4 + 4 * share)]])
    return rows


def best_now(**settings):
    """Where in its range PB2 sends a copy after the drift."""
    memory = {"rows": drifted(), "opened": {}}
    view = view_of([0.6, 0.5, 0.5, 0.4], rates(*[0.01] * 4), memory, round_=40)
    decisions, _ = decided(view, PB2(**settings))
    assert decisions[3].draws == {"lr": MODELED}
    return (math.log10(decisions[3].hparams["lr"]) + 4) / 4


@pytest.mark.parametrize("settings", [{}, {"acquisition": "std"}, {"time": "rounds"}, {"eps_cap": 0.95}])
def test_drifting_optimum(settings):
    """What was best long ago is forgotten: the copy goes to where the best is now, 0.9 of the range."""
    assert best_now(**settings) == pytest.approx(0.9, abs=0.12)


@pytest.mark.parametrize("time", ["run", "rounds"])
def test_drifting_optimum_needs_forgetting(time):
    """With eps 0 all rounds count the same, and the copy goes elsewhere."""
    assert abs(best_now(eps_cap=0.0, time=time) - 0.9) > 0.2


def test_pending(monkeypatch):
    """A copy sees as pending everybody who goes on, and what was decided for the copies before it."""
    asked = []

    def watched(kernel, seen, values, pending, *rest):
        asked.append(pending)
        return surrogate.propose(kernel, seen, values, pending, *rest)

    monkeypatch.setattr(pb2, "propose", watched)
    values = rates(*(10 ** (-k / 2) for k in range(8)))
    view = view_of([8, 7, 6, 5, 4, 3, 2, 1], values, {"rows": drifted(), "opened": {}}, round_=40)
    decisions, _ = decided(view)
    assert [len(pending.times) for pending in asked] == [6, 7]
    # The place is the score before, of all that was seen and is now, and the share of the range.
    low, high = 0.5, 8.0
    assert asked[0].places == [pytest.approx([(8 - k - low) / (high - low), 1 - k / 8]) for k in range(6)]
    first = decisions[6]
    share = (math.log10(first.hparams["lr"]) + 4) / 4
    assert asked[1].places[6] == pytest.approx([(first.scores[0] - low) / (high - low), share])
    assert asked[1].times == [1.0] * 7


def test_a_failed_member_is_replaced_and_explores():
    """A failed member gets a donor's state and a proposal; with nobody healthy it leaves."""
    memory = {"rows": drifted(), "opened": {"3": [40, 0.1]}}
    decisions, proposal = decided(view_of([0.6, 0.5, 0.4, None], rates(*[0.01] * 4), memory, round_=40))
    assert decisions[3].kind == "replace"
    assert decisions[3].draws == {"lr": MODELED}
    assert len(proposal.memory["rows"]) == len(memory["rows"])
    _, lost = decided(view_of([None] * 4, rates(*[0.01] * 4)))
    assert [retired.member for retired in lost.retirements] == [0, 1, 2, 3]


def test_choices_are_perturbed():
    """An ordered choice goes to a neighbor, an unordered one is drawn anew, and what they bring along gets a value."""
    space = Space(MIXED)
    values = {"lr": 0.1, "layers": 3, "rule": "adam", "order": 2}
    met = set()
    for round_ in range(2, 22):
        decisions, _ = decided(view_of([4, 3, 2, 1], [values] * 4, round_=round_, space=space))
        assert space.contains(decisions[3].hparams)
        assert decisions[3].hparams["order"] in (1, 3)
        assert (decisions[3].hparams["lr"], decisions[3].hparams["layers"]) == (0.1, 3)
        met.add(decisions[3].hparams["rule"])
    assert met == {"sgd", "adam"}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"quantile": 0.6}, "0.5"),
        ({"acquisition": "ucb"}, "acquisition"),
        ({"time": "steps"}, "time"),
        ({"eps_cap": 1.0}, "eps_cap"),
        ({"rows": 1}, "rows"),
        ({"rows": 1001}, "rows"),
        ({"interval": 0}, "interval"),
    ],
)
def test_what_is_refused(settings, word):
    """A setting out of its range is named."""
    with pytest.raises(UsageError, match=word):
        PB2(**settings)


def test_on_disk_and_resumed(tmp_path):
    """A run in pieces logs what one in one go logs, and breaks no law."""
    options = {"task": mixed, "space": MIXED, "plan": PB2(interval=2), "population": 6, "seed": 4}
    pbt.run(**options, rounds=3, run_dir=tmp_path / "run")
    pieces = pbt.run(**options, rounds=6, run_dir=tmp_path / "run", resume=True)
    once = pbt.run(**options, rounds=6)
    assert violations(tmp_path / "run") == []
    assert without_end(pieces) == without_end(once)
    assert any(MODELED in e.decision.draws.values() for e in once.events if isinstance(e, Decided))
    assert [e for e in once.events if isinstance(e, MemoryUpdated)][-1].memory["rows"]


@pytest.mark.gate
@pytest.mark.slow
def test_noisy_quadratic():
    """On the noisy quadratic model eight members beat the best constant learning rate, 0.026402, on average."""
    runs = (pbt.run(**NQM | {"plan": PB2(interval=20), "population": 8}, seed=seed) for seed in range(4))
    assert np.mean([min(-member.score for member in run.view.population) for run in runs]) < 0.0264
