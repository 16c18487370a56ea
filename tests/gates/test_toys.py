"""Gates T1 to T3: being greedy is right on ToyPlain and wrong on ToyDeceptive, so PBT must win and must fail."""

from functools import cache

import numpy as np
import pytest

import pbt
from pbt.testing.problems import TOY_DECEPTIVE, TOY_PLAIN, blocks

pytestmark = [pytest.mark.gate, pytest.mark.xdist_group("toys")]

by_seeds = pytest.mark.parametrize("seeds", [6, pytest.param(20, marks=pytest.mark.slow)])
DECAY = blocks("h", [(1000 - 20 * i) / 1000 for i in range(50)], 20)
FIXED = {
    "h=1": (blocks("h", [1.0], 1000), 1.18522, 0.95462),
    "h=1e-4": (blocks("h", [1e-4], 1000), 1.19973, 0.82697),
    "linear decay": (DECAY, 1.19793, 1.19791),
}
"""A schedule, and what it reaches on ToyPlain and on ToyDeceptive."""


def best_at_end(problem, **options):
    """The best score in the population at the end."""
    return max(member.score for member in pbt.run(**problem | options).view.population)


@cache
def deceived(seeds):
    """The mean of PBT on ToyDeceptive."""
    return np.mean([best_at_end(TOY_DECEPTIVE, seed=seed) for seed in range(seeds)])


@pytest.mark.parametrize("setting", FIXED)
def test_t1_fixed_schedules(setting):
    """T1: a population of one that follows a schedule reaches its exact score."""
    schedule, *expected = FIXED[setting]
    plan = pbt.Plan(exploit=pbt.never(), explore=pbt.follow(schedule), interval=20)
    options = {"plan": plan, "population": 1, "initial": [schedule.at(0)]}
    scores = [best_at_end(problem, **options) for problem in (TOY_PLAIN, TOY_DECEPTIVE)]
    assert scores == pytest.approx(expected, abs=1e-5)


@by_seeds
def test_t2_greed_is_right(seeds):
    """T2: on ToyPlain PBT finds that the smallest h is best, at every seed."""
    assert min(best_at_end(TOY_PLAIN, seed=seed) for seed in range(seeds)) >= 1.1994


@pytest.mark.slow
@by_seeds
def test_t3_greed_is_wrong(seeds):
    """T3: on ToyDeceptive PBT follows the immediate gain into debt."""
    assert 0.88 <= deceived(seeds) <= 0.95


@by_seeds
def test_t3_below_no_evolution(seeds):
    """T3: on ToyDeceptive PBT ends below a population that never evolves."""
    plan = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=1000)
    never = np.mean([best_at_end(TOY_DECEPTIVE, seed=seed, plan=plan, rounds=1) for seed in range(seeds)])
    assert deceived(seeds) < never


def test_the_debt_is_stored(tmp_path):
    """The debt is part of the state: a run whose states are files logs what the same run in memory logs."""
    options = {"population": 8, "rounds": 5}
    in_memory, on_disk = (pbt.run(**TOY_DECEPTIVE | options | where) for where in ({}, {"run_dir": tmp_path / "run"}))
    assert on_disk.events == in_memory.events
    assert set(on_disk.load_state()) == {"t", "debt"}
