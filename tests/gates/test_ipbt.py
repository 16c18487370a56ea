"""IPBT, which is given no interval, against fixed ones: what it reaches, and the gate that it misses."""

from functools import cache

import numpy as np
import pytest

from benchmarks.intervals import PROBLEMS, at_end, behind

pytestmark = [pytest.mark.gate, pytest.mark.xdist_group("ipbt")]

BEST = {"nqm": 20, "toy-plain": 10, "toy-deceptive": 100}
"""The best of five fixed intervals; the table is in docs/benchmarks-problems.md."""
BEATEN = {"nqm": 10, "toy-plain": 50}
"""An interval that IPBT beats clearly."""


@cache
def scores(name, interval):
    """The results of 20 seeds."""
    return np.array([at_end(PROBLEMS[name], seed, interval)[0] for seed in range(20)])


def test_better_than_the_worst_interval():
    """On ToyPlain one run is above what the longest interval reaches; its candidates cost some steps more."""
    problem = PROBLEMS["toy-plain"] | {"population": 8}
    score, cost = at_end(problem, 0, None)
    assert score > at_end(problem, 0, 250)[0]
    assert 1.0 < cost < 1.2


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", BEATEN)
def test_better_than_a_bad_interval(name):
    """IPBT is better than a bad interval, by more than two standard errors."""
    mean, error = behind(scores(name, BEATEN[name]), scores(name, None))
    assert mean < -2 * error


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.xfail(reason="the gate is missed on all three problems", strict=True)
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_gate(name):
    """IPBT is worse than the best of five intervals by at most one standard error."""
    mean, error = behind(scores(name, BEST[name]), scores(name, None))
    assert mean <= error
