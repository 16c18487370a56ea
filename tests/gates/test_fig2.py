"""Gates F1 to F7: the two-worker example of the PBT paper, which tells one reading of "copy" from another."""

from functools import cache

import numpy as np
import pytest

import pbt
from pbt.testing.problems import FIG2, Fig2

pytestmark = [pytest.mark.gate, pytest.mark.xdist_group("fig2")]

by_seeds = pytest.mark.parametrize("seeds", [100, pytest.param(400, marks=pytest.mark.slow)])
"""A quarter of the seeds by default, with half of the precision of a mean."""
GRID = pytest.approx(0.38975, abs=1e-4)
"""What neither worker can leave alone."""


def q(seed=0, *, lr=0.01, exploit=FIG2["plan"].exploit, explore=FIG2["plan"].explore, inherit="both", **options):
    """The higher Q of the two workers at the end."""
    plan = pbt.Plan(exploit=exploit, explore=explore, inherit=inherit, interval=4)
    run = pbt.run(**FIG2 | {"task": Fig2(lr=lr), "plan": plan, "seed": seed} | options)
    return max(member.score for member in run.view.population)


@cache
def full(seeds):
    """Weights and hyperparameters copied."""
    return [q(seed) for seed in range(seeds)]


def near(mean, seeds, tolerance):
    """The mean, within what 400 seeds tell it by."""
    return pytest.approx(mean, abs=tolerance * (400 / seeds) ** 0.5)


def multiply(hparams, member, view, rng):
    """The factors of the paper, and no way out of zero."""
    draws = {name: rng.choice((0.8, 1.2)) for name in hparams}
    return view.space.clip({name: value * draws[name] for name, value in hparams.items()}), draws


def test_f1_grid():
    """F1: without evolution each worker shrinks one coordinate and keeps the other."""
    assert q(exploit=pbt.never(), explore=pbt.keep()) == GRID


@pytest.mark.parametrize("kept", ["memory", "directory", pytest.param("processes", marks=pytest.mark.slow)])
def test_f2_exploit_only(kept, tmp_path):
    """F2: copied weights under the copier's own h train both coordinates, wherever it runs and is kept."""
    options = {"memory": {}, "directory": {"run_dir": tmp_path / "run"}, "processes": {"placement": "processes"}}[kept]
    assert q(explore=pbt.keep(), inherit="state", **options) == pytest.approx(1.17151, abs=1e-4)


def test_f3_ties_do_not_copy():
    """F3: both start alike and stay alike, so where only the strictly better is copied, nothing ever is."""
    assert q(exploit=pbt.truncation(0.5), explore=pbt.keep(), inherit="state") == GRID


@pytest.mark.parametrize("seed", range(5))
def test_f4_factors_never_leave_zero(seed):
    """F4: a plain product keeps an h of zero at zero, so the second coordinate is never trained."""
    assert q(seed, explore=multiply) == GRID


@pytest.mark.long
@by_seeds
def test_f5_full(seeds):
    """F5: with weights and hyperparameters copied, and h shifted, nearly every seed reaches the top."""
    scores = full(seeds)
    assert np.mean(scores) == near(1.1957, seeds, 0.0015)
    assert np.mean(np.array(scores) > 1.18) >= 0.97


@pytest.mark.slow
@by_seeds
def test_f6_weights_only(seeds):
    """F6: with weights alone copied, and twice the step size, every seed reaches the top."""
    scores = [q(seed, lr=0.02, inherit="state") for seed in range(seeds)]
    assert np.mean(scores) == near(1.1992, seeds, 0.0005)
    assert np.percentile(scores, 1) > 1.185


@pytest.mark.slow
@by_seeds
def test_f7_explore_only(seeds):
    """F7: shifting h without copying anybody is clearly worse."""
    scores = [q(seed, exploit=pbt.never()) for seed in range(seeds)]
    assert np.mean(scores) == near(1.120, seeds, 0.017)
    assert np.mean(full(seeds)) - np.mean(scores) > 0.05
