"""GPBT-PL: how a loser's own values move towards the winner's, with a velocity that is remembered."""

import math

import numpy as np
import pytest

import pbt
from pbt.core.events import Decided, Ended
from pbt.core.population import Member, StateRef, View
from pbt.core.rng import Rng
from pbt.domains import Choice, Float, Int
from pbt.errors import UsageError
from pbt.space import Space
from pbt.strategies.gpbt_pl import PairwiseLearning, number_of_losers
from pbt.testing.invariants import violations
from pbt.testing.problems import NQM
from pbt.testing.strategies import StrategyContract

SPACE = Space(
    {
        "lr": Float(1e-4, 1.0, "log"),
        "layers": Int(1, 100),
        "rule": Choice(("sgd", "adam")),
        "momentum": Float(0.0, 1.0, when=("rule", "sgd")),
        "order": Choice((1, 2, 3, 4, 5), ordered=True),
    }
)
WINNER = {"lr": 0.1, "layers": 80, "rule": "sgd", "momentum": 0.5, "order": 4}
LOSER = {"lr": 0.001, "layers": 20, "rule": "adam", "order": 1}


class TestContract(StrategyContract):
    def make_strategy(self):
        return PairwiseLearning()


class TestContractOfConditions(StrategyContract):
    space = SPACE
    rounds = 10

    def make_strategy(self):
        return PairwiseLearning(quantile=0.5, resample=0.5, interval=3)


def learned(seed=0, memory=None, failed=False, winner=WINNER, loser=LOSER, **settings):
    """The decision for the worst of four, its velocity afterwards, and the proposal."""
    scores = (4.0, 3.0, 2.0, 1.0)
    members = tuple(
        Member(
            id=i,
            hparams=loser if i == 3 else winner,
            step=5,
            state=StateRef(i, 5),
            round=5,
            opened=5,
            **({"status": "failed"} if failed and i == 3 else {"scores": (score,)}),
        )
        for i, score in enumerate(scores)
    )
    view = View(seed=seed, space=SPACE, round=5, members=members, memory={"velocities": memory} if memory else {})
    proposal = PairwiseLearning(**settings).decide(view, members)
    return proposal.decisions[3], proposal.memory["velocities"]["3"], proposal


@pytest.mark.parametrize(
    ("population", "expected"),
    list(
        zip(
            (2, 3, 4, 5, 6, 8, 10, 16, 20, 22, 24, 32, 40, 80),
            (1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 6, 8, 10, 20),
            strict=True,
        )
    ),
)
def test_number_of_losers(population, expected):
    """A quarter, counted as Ray Tune counts."""
    assert number_of_losers(0.25, population) == expected


def test_state_of_the_winner_own_values():
    """The state is the winner's, the values are the loser's own, moved; everybody else goes on."""
    decision, _, proposal = learned()
    assert (decision.start, decision.donor, decision.hparams_from, decision.scores) == (StateRef(0, 5), 0, 3, (4.0,))
    assert [other.kind for other in proposal.decisions] == ["continue"] * 3 + ["exploit"]


def test_first_move_is_between():
    """From rest a number moves part of the way to the winner's, measured in its scale, by what becomes its velocity."""
    parts = []
    for seed in range(400):
        decision, velocity, _ = learned(seed, resample=0.0)
        assert 0.001 <= decision.hparams["lr"] <= 0.1
        assert math.log10(decision.hparams["lr"] / 0.001) == pytest.approx(4 * velocity["lr"])
        assert 20 <= decision.hparams["layers"] <= 80
        parts.append(velocity["lr"] / 0.5)
    # r2 is uniform: mean 1/2, variance 1/12, within 4 standard errors.
    assert np.mean(parts) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 400))
    assert np.var(parts) == pytest.approx(1 / 12, abs=0.015)


def test_velocity_goes_on():
    """A velocity is kept by a uniform share, and the pull of the winner is added: their means add up."""
    moves = [learned(seed, {"3": {"lr": 0.2}}, resample=0.0)[1]["lr"] for seed in range(400)]
    assert np.mean(moves) == pytest.approx(0.5 * 0.2 + 0.5 * 0.5, abs=4 * math.sqrt((0.2**2 + 0.5**2) / 12 / 400))
    assert max(moves) <= 0.7


def test_equal_values_keep_drifting():
    """Without a difference there is only what is left of the velocity; a bound stops the value."""
    decision, velocity, _ = learned(0, {"3": {"lr": 0.4}}, loser={**WINNER, "lr": 0.1}, resample=0.0)
    assert 0 < velocity["lr"] < 0.4
    decision, _, _ = learned(0, {"3": {"lr": 50.0}}, resample=0.0)
    assert decision.hparams["lr"] == 1.0


def test_drawn_anew():
    """A value that is drawn anew takes the winner's velocity along; each name with its own probability."""
    velocities = {"0": {"lr": 0.3}, "3": {"lr": -0.1}}
    decision, velocity, _ = learned(0, velocities, resample=1.0)
    assert velocity["lr"] == 0.3
    assert set(decision.draws.values()) == {"resample"}
    drawn = sum(learned(seed)[0].draws["lr"] == "resample" for seed in range(800))
    assert abs(drawn / 800 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 800)


def test_choices_go_to_the_winners_neighbor():
    """An ordered choice is next to the winner's option, wherever the loser's was; an unordered one is drawn."""
    found = [learned(seed, resample=0.0)[0].hparams for seed in range(100)]
    assert {hparams["order"] for hparams in found} == {3, 5}
    assert {hparams["rule"] for hparams in found} == {"sgd", "adam"}
    # What only the winner has is taken over with the choice that it depends on.
    assert all(hparams["momentum"] == 0.5 for hparams in found if hparams["rule"] == "sgd")
    assert all(map(SPACE.contains, found))


def test_a_failed_member_keeps_nothing():
    """Values and velocity of a failed member are forgotten: it goes on as its donor would."""
    decision, velocity, _ = learned(0, {"0": {"lr": 0.1}, "3": {"lr": -9.0}}, failed=True, resample=0.0)
    assert decision.kind == "replace"
    assert decision.hparams_from == decision.donor != 3
    assert velocity["lr"] >= 0
    assert decision.hparams["lr"] >= WINNER["lr"]


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"quantile": 0.6}, "quantile"), ({"resample": 1.1}, "resample"), ({"interval": 0}, "interval")],
)
def test_what_is_refused(settings, word):
    """A setting out of its range is named."""
    with pytest.raises(UsageError, match=word):
        PairwiseLearning(**settings)


def mixed(hparams, state, steps, ctx):
    """A member gains more the nearer lr is to 0.1; a few rounds fail."""
    total = 0.0 if state is None else state["total"]
    if Rng("fails", ctx.member, ctx.round).random() < 0.05:
        return {"total": total}, math.nan
    total += steps * (1 - abs(math.log10(hparams["lr"]) + 1) / 3)
    return {"total": total}, total


def test_on_disk_and_resumed(tmp_path):
    """A run in pieces logs what one in one go logs, and breaks no law."""
    options = {"task": mixed, "space": SPACE, "plan": PairwiseLearning(interval=2), "population": 8, "seed": 4}
    pbt.run(**options, rounds=3, run_dir=tmp_path / "run")
    pieces = pbt.run(**options, rounds=10, run_dir=tmp_path / "run", resume=True)
    assert violations(tmp_path / "run") == []
    once = pbt.run(**options, rounds=10)
    told = [[e for e in run.events if not isinstance(e, Ended)] for run in (pieces, once)]
    assert told[0] == told[1]
    assert {"exploit", "replace"} <= {e.decision.kind for e in once.events if isinstance(e, Decided)}


@pytest.mark.gate
def test_noisy_quadratic():
    """On the noisy quadratic model eight members beat the best constant learning rate, 0.026402, on average."""
    plan = PairwiseLearning(interval=20)
    runs = (pbt.run(**NQM | {"plan": plan, "population": 8}, seed=seed) for seed in range(10))
    assert np.mean([min(-member.score for member in run.view.population) for run in runs]) < 0.0264
