"""TV.EXP3.M: its algebra by hand, and the marginals of dependent rounding; not how well it plays."""

import math

import pytest

from pbt.core.rng import Rng
from pbt.errors import UsageError
from pbt.strategies.bandit import chances, dependent_rounding, draw, exploration, updated


@pytest.mark.parametrize(
    ("arms", "batch", "rounds", "expected"),
    [(8, 4, 50, 0.401694), (8, 4, 100, 0.284041), (4, 4, 50, 0.2), (3, 8, 50, 0.2)],
)
def test_exploration_constants(arms, batch, rounds, expected):
    """The share of exploration has the constants of the reference."""
    assert exploration(arms, batch, rounds) == pytest.approx(expected, abs=1e-6)


def test_exploration_is_a_share():
    """Very few rounds are all exploration, and no more."""
    assert exploration(100, 1, 1) == 1
    assert chances([1.0, 2.0], 1, 1.0).expected == (0.5, 0.5)


@pytest.mark.parametrize("weights", [[1.0] * 6, [1, 2, 3, 4, 5, 6], [100, 1, 1, 1, 1, 1], [90, 90, 1, 2, 1, 1]])
@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_chances(weights, batch):
    """A batch in all; nothing above 1; what would be above is exactly 1 and capped; all keep their part of the rest."""
    expected, capped = chances(weights, batch, 0.1)
    assert sum(expected) == pytest.approx(batch)
    assert max(expected) <= 1 + 1e-12
    assert all(expected[k] == pytest.approx(1) for k in capped)
    free = [k for k in range(6) if k not in capped]
    assert all(batch * 0.1 / 6 < expected[k] < 1 for k in free)
    used = [(expected[k] / batch - 0.1 / 6) / weights[k] for k in free]
    assert used == pytest.approx([used[0]] * len(used))


def test_cap_by_hand():
    """Two of four are capped: with c = (1/3 - .1/4)/.9 the rest is 2, and a = 2c / (1 - 2c)."""
    c = (1 / 3 - 0.1 / 4) / 0.9
    a = 2 * c / (1 - 2 * c)
    expected, capped = chances([50.0, 40.0, 1.0, 1.0], 3, 0.1)
    assert capped == {0, 1}
    assert expected[2] == pytest.approx(3 * (0.9 / (2 + 2 * a) + 0.1 / 4))


def test_more_plays_than_arms():
    """Expected plays may then be above 1, and nobody is capped."""
    expected, capped = chances([3.0, 1.0], 4, 0.2)
    assert not capped
    assert expected == pytest.approx((4 * (0.8 * 0.75 + 0.1), 4 * (0.8 * 0.25 + 0.1)))


def test_update_by_hand():
    """A played arm grows by its reward over its chance; all get the same gift; an arm that was not played only that."""
    after = updated([1.0, 2.0, 1.0], {0: 0.6}, 1, 0.3, 50)
    p = 0.7 * 0.25 + 0.1
    gift = math.e * 4 / (10 * 50 * 3)
    assert after == pytest.approx([math.exp(0.3 * (0.6 / p) / 3) + gift, 2 + gift, 1 + gift])


def test_capped_arms_do_not_learn():
    """An arm that is played for sure gets the gift alone."""
    before = [100.0, 1.0, 1.0, 1.0]
    after = updated(before, {0: 1.0, 1: 1.0}, 2, 0.1, 50)
    assert chances(before, 2, 0.1).capped == {0}
    assert after[0] - before[0] == pytest.approx(after[2] - before[2])
    assert after[1] > after[2]


@pytest.mark.parametrize("reward", [-0.1, 1.1, math.nan])
def test_rewards_are_shares(reward):
    """A reward that was not scaled is refused."""
    with pytest.raises(UsageError, match="0 to 1"):
        updated([1.0, 1.0], {0: reward}, 1, 0.2, 50)


@pytest.mark.parametrize("p", [(0.2, 0.5, 0.3), (0.9, 0.6, 0.3, 0.2), (1.0, 0.0, 0.75, 0.25), (0.1,) * 10])
def test_dependent_rounding(p):
    """Exactly the sum is drawn, each with its own probability (4 standard errors)."""
    draws = 8000
    counts = [0] * len(p)
    for i in range(draws):
        drawn = dependent_rounding(p, Rng("rounding", i))
        assert len(set(drawn)) == len(drawn) == round(sum(p))
        for k in drawn:
            counts[k] += 1
    for count, q in zip(counts, p, strict=True):
        assert abs(count / draws - q) <= 4 * math.sqrt(q * (1 - q) / draws)


@pytest.mark.parametrize("p", [(0.5, 0.2), (1.5, 0.5), (-0.5, 0.5)])
def test_what_cannot_be_rounded(p):
    """No whole sum, or no probabilities."""
    with pytest.raises(UsageError, match="whole sum"):
        dependent_rounding(p, Rng("refused"))


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_one_draw(batch):
    """A single draw has the proportions of the expected plays."""
    weights = [1.0, 2.0, 5.0]
    expected = [p / batch for p in chances(weights, batch, 0.2).expected]
    drawn = [draw(weights, batch, 0.2, Rng("one", i)) for i in range(8000)]
    for k, p in enumerate(expected):
        assert abs(drawn.count(k) / 8000 - p) <= 4 * math.sqrt(p * (1 - p) / 8000)
