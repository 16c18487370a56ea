"""Gates N1 to N4: the noisy quadratic model, where the loss of every schedule is exact."""

import math
from functools import cache

import numpy as np
import pytest

import pbt
from pbt.testing.problems import NQM, NQM_CURVATURE, NQM_INITIAL_LOSS, NQM_SPACE, blocks, nqm_loss
from tests.helpers.sampled import sampled

pytestmark = [pytest.mark.gate, pytest.mark.xdist_group("nqm")]

by_seeds = pytest.mark.parametrize("seeds", [10, pytest.param(40, marks=pytest.mark.slow)])
"""A quarter of the seeds by default, with half of the precision of a mean."""
CONSTANT = {
    0.0125: 0.525261, 0.05: 0.116779, 0.1: 0.037795, 0.15691: 0.026402, 0.3: 0.041161, 0.5: 0.071171, 1.0: 0.164217,
}  # fmt: skip
LINEAR = [max(0.46 * (1 - k / 50), 1e-4) for k in range(50)]
COSINE = [max(0.24 * (1 + math.cos(math.pi * k / 50)), 1e-4) for k in range(50)]
EXPLORE = NQM["plan"].explore

VARIANTS = {
    "hparams only": {"inherit": "hparams"},
    "full": {},
    "weights only": {"inherit": "state"},
    "explore only": {"exploit": pbt.at_random(0.2)},
    "exploit only": {"explore": pbt.keep()},
}
"""The plans of gate N4, the one with the lowest loss first."""


def nqm(**options):
    """A run under the plan of the benchmark, or another."""
    plan = {"exploit": pbt.truncation(0.2), "explore": EXPLORE, "interval": 20}
    changed = {name: options.pop(name) for name in ("exploit", "explore", "inherit") if name in options}
    return pbt.run(**NQM | {"plan": pbt.Plan(**plan | changed)} | options)


def follow(schedule, rounds=50):
    """The loss of a population of one that trains by a schedule."""
    run = nqm(exploit=pbt.never(), explore=pbt.follow(schedule), initial=[schedule.at(0)], population=1, rounds=rounds)
    return loss_at_end(run)


def loss_at_end(run):
    """The lowest loss in the population at the end."""
    return min(-member.score for member in run.view.population)


@cache
def loss_of(variant, seed):
    return loss_at_end(nqm(seed=seed, **VARIANTS[variant]))


def losses(variant, seeds):
    """What a variant reaches, by seed."""
    return np.array([loss_of(variant, seed) for seed in range(seeds)])


def greedy():
    """The schedule whose every block has the rate, of 2001 over the bounds, that is best at its end."""
    rates = np.geomspace(NQM_SPACE["lr"].low, NQM_SPACE["lr"].high, 2001)[:, None]
    # Twenty steps at once: v -> a v + b, summed as a geometric series.
    shrink = (1 - rates * NQM_CURVATURE) ** 2
    noise = 0.1 * rates**2 * NQM_CURVATURE * sum(shrink**k for k in range(20))
    moments, chosen = np.ones_like(NQM_CURVATURE), []
    for _ in range(50):
        after = shrink**20 * moments + noise
        best = int(np.argmin((NQM_CURVATURE * after).sum(axis=1)))
        moments = after[best]
        chosen.append(float(np.clip(rates[best, 0], NQM_SPACE["lr"].low, NQM_SPACE["lr"].high)))
    return chosen


def test_n1_initial_loss():
    """N1: the loss before training is half the sum of the curvatures."""
    assert pytest.approx(2.59369, abs=1e-5) == NQM_INITIAL_LOSS


def test_n1_constant_rates():
    """N1: a population that never evolves reaches the exact loss of each member's constant rate."""
    initial = [{"lr": lr} for lr in CONSTANT]
    run = nqm(exploit=pbt.never(), explore=pbt.keep(), population=len(CONSTANT), initial=initial)
    assert [-member.score for member in run.view.members] == pytest.approx(list(CONSTANT.values()), abs=1e-6)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param(LINEAR, 0.009726, id="linear"),
        pytest.param(COSINE, 0.009619, id="cosine"),
        pytest.param(greedy(), 0.040476, id="greedy"),
    ],
)
def test_n1_schedules(rates, expected):
    """N1: a population of one that follows a schedule reaches its exact loss, and so does the reference."""
    schedule = blocks("lr", rates, 20)
    assert follow(schedule) == pytest.approx(expected, abs=1e-6)
    assert nqm_loss(schedule) == pytest.approx(expected, abs=1e-6)


@pytest.mark.long
@by_seeds
def test_n2_population_of_twenty(seeds):
    """N2: PBT finds schedules that beat the best constant rate twofold."""
    assert losses("full", seeds).mean() == pytest.approx(0.0126, abs=0.0016 if seeds == 40 else 0.0032)


@pytest.mark.parametrize("variant", sampled(VARIANTS, ("full", "explore only")))
def test_n3_replay(variant):
    """N3: the schedule of the winner's ancestry, followed by a population of one, gives the winner's loss."""
    for seed in range(3):
        run = nqm(seed=seed, **VARIANTS[variant])
        assert follow(run.best_schedule, run.best.round) == pytest.approx(-run.best.score, abs=1e-12, rel=0)
        assert nqm_loss(run.best_schedule) == pytest.approx(-run.best.score, abs=1e-12, rel=0)


@pytest.mark.slow
@by_seeds
@pytest.mark.parametrize(("better", "worse"), list(zip(list(VARIANTS), list(VARIANTS)[1:], strict=False)))
def test_n4_ordering(better, worse, seeds):
    """N4: on common seeds, what is inherited and whether both halves are there orders the variants."""
    assert (losses(better, seeds) < losses(worse, seeds)).mean() >= 27 / 40


def test_the_store_changes_nothing(tmp_path):
    """A run in a directory logs what the same run in memory logs."""
    options = {"population": 5, "rounds": 6, "seed": 1}
    assert nqm(**options, run_dir=tmp_path / "run").events == nqm(**options).events


@pytest.mark.slow
def test_the_executor_changes_nothing():
    """Worker processes, in whatever order they finish, give the log of the inline executor, bits of states included."""
    options = {"population": 5, "rounds": 6, "seed": 2}
    assert nqm(**options, placement=pbt.Placement(executor="processes", workers=2)).events == nqm(**options).events
