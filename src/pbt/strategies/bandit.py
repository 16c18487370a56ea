"""TV.EXP3.M, the bandit of PB2-Mix, which plays several arms per round while rewards drift.

Parker-Holder, Nguyen, Desai and Roberts 2021 (arXiv 2106.15883), based on Exp3.M (Uchiya et al. 2010) with the
dependent rounding of Gandhi et al. 2006. Pure functions of numbers; a weight per arm is the only state.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pbt.core.rng import Rng
from pbt.errors import UsageError


class Chances(NamedTuple):
    """How often arms are played."""

    expected: tuple[float, ...]
    """Expected plays of each arm per round: a probability if the batch is smaller than the number of arms."""
    capped: frozenset[int]
    """Arms played in every round; their weights are not updated."""


def exploration(arms: int, batch: int, rounds: int) -> float:
    """The share `g` of plays that is spread evenly over the arms.

    Args:
        arms: Number of arms.
        batch: Number of plays per round.
        rounds: Expected number of rounds.
    """
    if arms <= batch:
        return 0.2
    return min(1.0, math.sqrt(arms * math.log(arms / batch) / ((math.e - 1) * batch * rounds / 10)))


def chances(weights: Sequence[float], batch: int, share: float) -> Chances:
    """How often each arm is played in a round of `batch` plays, of which a `share` is spread evenly."""
    arms = len(weights)
    used, capped = list(weights), frozenset[int]()
    if batch < arms and share < 1:
        limit = (1 / batch - share / arms) / (1 - share)
        if max(weights) >= limit * math.fsum(weights):
            cap = _cap(weights, limit)
            capped = frozenset(k for k, weight in enumerate(weights) if weight >= cap)
            used = [min(weight, cap) for weight in weights]
    total = math.fsum(used)
    return Chances(tuple(batch * ((1 - share) * weight / total + share / arms) for weight in used), capped)


def _cap(weights: Sequence[float], limit: float) -> float:
    """The `a` with `a = limit * (sum of the weights below a + a * number of the others)`."""
    falling = sorted(weights, reverse=True)
    for above in range(1, len(falling)):
        cap = limit * math.fsum(falling[above:]) / (1 - limit * above)
        # The smallest number of capped arms: the next weight is below the cap.
        if falling[above] < cap:
            return cap
    return falling[-1]


def updated(
    weights: Sequence[float], rewards: Mapping[int, float], batch: int, share: float, rounds: int
) -> tuple[float, ...]:
    """The weights after a round.

    Args:
        weights: The weights before the round, positive.
        rewards: The reward of each played arm, 0 to 1.
        batch: Number of plays.
        share: The result of `exploration`.
        rounds: Expected number of rounds; a tenth of its inverse is added to all weights, so that none vanishes.

    Raises:
        UsageError: A reward is outside 0 to 1.
    """
    if not all(0 <= reward <= 1 for reward in rewards.values()):
        raise UsageError(f"bandit: expected rewards from 0 to 1, got {dict(rewards)}")
    expected, capped = chances(weights, batch, share)
    arms = len(weights)
    gift = math.e * math.fsum(weights) / (10 * rounds * arms)
    grown = [
        weight if k in capped else weight * math.exp(batch * share * rewards.get(k, 0.0) / expected[k] / arms)
        for k, weight in enumerate(weights)
    ]
    return tuple(weight + gift for weight in grown)


def dependent_rounding(probabilities: Sequence[float], rng: Rng) -> list[int]:
    """Draw exactly as many arms as the probabilities sum up to, each with its probability.

    Raises:
        UsageError: A probability is outside 0 to 1, or the sum is not a whole number.
    """
    left = list(probabilities)
    count = round(math.fsum(left))
    if not all(-1e-9 <= p <= 1 + 1e-9 for p in left) or abs(math.fsum(left) - count) > 1e-6:
        raise UsageError(f"bandit: expected probabilities with a whole sum, got {left}")
    open_ = [k for k, p in enumerate(left) if 0 < p < 1]
    while len(open_) > 1:
        i, j = open_[:2]
        up, down = min(1 - left[i], left[j]), min(left[i], 1 - left[j])
        if rng.random() * (up + down) < down:
            left[i], left[j] = left[i] + up, left[j] - up
        else:
            left[i], left[j] = left[i] - down, left[j] + down
        open_ = [k for k in open_ if 1e-12 < left[k] < 1 - 1e-12]
    # A remainder left by rounding errors goes to the largest.
    return sorted(sorted(range(len(left)), key=lambda k: -left[k])[:count])


def draw(weights: Sequence[float], batch: int, share: float, rng: Rng) -> int:
    """Draw one arm, with its share of the plays as its probability."""
    expected = chances(weights, batch, share).expected
    return dependent_rounding([p / batch for p in expected], rng)[0]
