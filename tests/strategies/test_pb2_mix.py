"""PB2-Mix: equal to PB2 where there are no choices; what its bandit learns from; which rows count."""

import math

import pytest

import pbt
from pbt.core.events import Decided, Ended, MemoryUpdated
from pbt.core.population import Member, StateRef, View
from pbt.domains import Choice, Float, Int
from pbt.errors import UsageError
from pbt.space import Space
from pbt.strategies import surrogate
from pbt.strategies.bandit import exploration, updated
from pbt.strategies.gains import GainRow
from pbt.strategies.pb2 import MODELED, PB2
from pbt.strategies.pb2_mix import PLAYED, PB2Mix
from pbt.testing.invariants import violations
from pbt.testing.problems import NQM
from pbt.testing.strategies import StrategyContract

KINDS = ("mix", "mult", "rand")
SPACE = Space({"lr": Float(1e-3, 1.0, "log"), "rule": Choice(("a", "b", "c"))})
MIXED = {
    "lr": Float(1e-3, 1.0, "log"),
    "layers": Int(1, 8),
    "rule": Choice(("a", "b", "c")),
    "momentum": Float(0.0, 0.9, when=("rule", "a")),
    "nesterov": Choice((True, False), when=("rule", "a")),
}


@pytest.fixture
def short_searches(monkeypatch):
    """The laws hold however well is searched."""
    monkeypatch.setattr(surrogate, "KERNEL_STEPS", 3)
    monkeypatch.setattr(surrogate, "POINT_STEPS", 3)


@pytest.mark.usefixtures("short_searches")
class TestContractMix(StrategyContract):
    rounds = 4
    space = Space(MIXED)

    def make_strategy(self):
        return PB2Mix()


@pytest.mark.usefixtures("short_searches")
class TestContractMult(StrategyContract):
    rounds = 4

    def make_strategy(self):
        return PB2Mix(categories="mult")


@pytest.mark.usefixtures("short_searches")
class TestContractRand(StrategyContract):
    rounds = 4

    def make_strategy(self):
        return PB2Mix(categories="rand")


def view_of(scores, rules, memory=None, round_=5):
    """Members with these scores (None: failed) and rules."""
    members = tuple(
        Member(
            id=i,
            hparams={"lr": 0.1, "rule": rule},
            step=round_,
            state=StateRef(i, round_),
            round=round_,
            opened=round_,
            **({"status": "failed"} if score is None else {"scores": (float(score),)}),
        )
        for i, (score, rule) in enumerate(zip(scores, rules, strict=True))
    )
    return View(seed=1, space=SPACE, round=round_, members=members, memory=memory or {})


def options(hparams, state, steps, ctx):
    """Option b gains most, and needs another lr than the others."""
    total = 0.0 if state is None else state["total"]
    best = -1 if hparams["rule"] == "b" else -2
    total += steps * ({"a": 0.2, "b": 1.0, "c": 0.0}[hparams["rule"]] - 0.3 * abs(math.log10(hparams["lr"]) - best))
    return {"total": total}, total


def decisions(run):
    return [event.decision for event in run.events if isinstance(event, Decided)]


@pytest.mark.parametrize("categories", KINDS)
def test_without_choices_it_is_pb2(categories):
    """In a space of numbers alone all three log what PB2 logs."""
    settings = {"population": 6, "rounds": 5, "seed": 2}
    mix, plain = (
        pbt.run(**NQM | settings | {"plan": plan})
        for plan in (PB2Mix(categories=categories, interval=20), PB2(interval=20))
    )
    assert mix.events == plain.events
    assert any(MODELED in decision.draws.values() for decision in decisions(plain))


def wave(gains, rules, memory=None):
    """Members that gained so much from 0 with these rules; the proposal of the mix."""
    opened = {str(i): [5, 0.0] for i in range(len(gains))}
    view = view_of(gains, rules, {"rows": [], "opened": opened} | (memory or {}))
    return PB2Mix(horizon=50).decide(view, view.members)


def test_rewards():
    """A reward is the mean gain of an option between the least and the highest; weights sum to their number."""
    share = exploration(3, 4, 50)
    expected = updated([1.0, 1.0, 1.0], {0: 0.875, 1: 0.25}, 4, share, 50)
    found = wave([5, 4, 3, 1], ["a", "a", "b", "b"]).memory["weights"]["rule"]
    assert found == pytest.approx([3 * weight / sum(expected) for weight in expected])


@pytest.mark.parametrize("gains", [[2, 2, 2, 2], [None, None, None, 1]])
def test_no_difference_teaches_nothing(gains):
    """Equal gains, or a single one, leave the weights as they were."""
    weights = {"weights": {"rule": [0.5, 1.5, 1.0]}}
    assert wave(gains, ["a", "b", "c", "a"], weights).memory["weights"] == weights["weights"]


def test_mult_counts_the_same_choices():
    """Only rows with the choices in question count under mult, all of them otherwise."""
    rows = [GainRow(1, 0.0, 1.0, (0.1, rule)) for rule in "abcab"]
    for categories, count in zip(KINDS, (5, 2, 5), strict=True):
        assert len(PB2Mix(categories=categories).relevant(rows, rows[0], SPACE)) == count
    assert [PB2Mix(categories=categories).compared(SPACE) for categories in KINDS] == [["rule"], (), ()]


def test_rand_redraws_half():
    """About half of all copies draw the choice anew (4 standard errors), and nothing is learned."""
    redrawn = 0
    for round_ in range(2, 402):
        view = view_of([4, 3, 2, 1], "aaaa", round_=round_)
        proposal = PB2Mix(categories="rand").decide(view, view.members)
        redrawn += "rule" in proposal.decisions[-1].draws
        assert "weights" not in proposal.memory
    assert abs(redrawn / 400 - 0.5) < 0.1


@pytest.mark.long
@pytest.mark.parametrize("categories", ["mix", "mult"])
def test_the_best_option_wins(categories):
    """After twenty rounds the option that gains most has the largest weight."""
    plan = PB2Mix(categories=categories, horizon=20)
    run = pbt.run(options, SPACE, plan=plan, population=6, rounds=20, seed=1)
    weights = [event.memory["weights"]["rule"] for event in run.events if isinstance(event, MemoryUpdated)][-1]
    assert max(range(3), key=weights.__getitem__) == 1
    assert run.best.hparams["rule"] == "b"
    assert PLAYED in {draw for decision in decisions(run) for draw in decision.draws.values()}


def test_on_disk_and_resumed(tmp_path):
    """A run in pieces logs what one in one go logs, and breaks no law."""
    arguments = {"task": options, "space": MIXED, "plan": PB2Mix(interval=2), "population": 6, "seed": 4}
    pbt.run(**arguments, rounds=3, run_dir=tmp_path / "run")
    pieces = pbt.run(**arguments, rounds=6, run_dir=tmp_path / "run", resume=True)
    assert violations(tmp_path / "run") == []
    told = [[e for e in run.events if not isinstance(e, Ended)] for run in (pieces, pbt.run(**arguments, rounds=6))]
    assert told[0] == told[1]


@pytest.mark.parametrize(("settings", "word"), [({"categories": "best"}, "categories"), ({"horizon": 0}, "horizon")])
def test_what_is_refused(settings, word):
    """A setting out of its range is named."""
    with pytest.raises(UsageError, match=word):
        PB2Mix(**settings)
