"""What repeated runs show, and what they do not. Pure: numbers in, numbers out, every draw by key.

A run of a whole population is one sample. The measures are those of Agarwal et al. 2021 (arXiv 2108.13264):
interquartile mean, with a percentile bootstrap interval. With one task the seeds are the only stratum; where two plans
are compared a seed is drawn with the results of both, so that what they share cancels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from pbt.core.rng import Key, seed_of
from pbt.errors import MissingExtraError

LEVEL = 0.95
ALPHA = 1 - LEVEL
POWER = 0.8
"""The chance of showing a difference that is there, on which the number of seeds that is needed is based."""
REPETITIONS = 10_000
"""Of the bootstrap."""
TOO_MANY = 2_000
"""Seeds beyond which nobody would run a comparison to show a difference."""

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]


def iqm(values: Sequence[float] | Array) -> Any:
    """The interquartile mean, along the last axis: of what is left when a quarter is dropped at either end.

    Of n values the `int(n / 4)` lowest and as many highest are dropped.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def bootstrap(values: Sequence[float] | Array, *key: Key, statistic: Statistic = iqm) -> tuple[float, float]:
    """The percentile interval of a statistic at `LEVEL`; the same key gives the same interval.

    Args:
        values: At least one.
        key: Names the draws.
        statistic: Of samples along the last axis.
    """
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed_of("compare", "bootstrap", *key))
    drawn = sample[rng.integers(len(sample), size=(REPETITIONS, len(sample)))]
    low, high = np.quantile(statistic(drawn), [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one plan reached."""

    seeds: int
    iqm: float
    low: float
    high: float
    """The interval of the interquartile mean."""
    median: float
    mean: float
    deviation: float
    """Sample standard deviation; 0 for one seed."""


def summary(values: Sequence[float], *key: Key) -> Summary:
    """What one plan reached, over its seeds (at least one)."""
    low, high = bootstrap(values, *key)
    return Summary(
        seeds=len(values),
        iqm=float(iqm(values)),
        low=low,
        high=high,
        median=float(np.median(values)),
        mean=float(np.mean(values)),
        deviation=float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """One plan minus another, seed by seed."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    iqm: float
    low: float
    high: float
    """The interval of the interquartile mean of the differences."""
    median: float
    p: float
    """Of Wilcoxon's signed-rank test, two-sided."""
    adjusted: float
    """The same, after Holm, for all comparisons that were made."""
    needed: int | None
    """Seeds that would show a difference of this size with a chance of `POWER`; None: more than anybody would run."""

    @property
    def real(self) -> bool:
        """Whether the difference is shown: the interval leaves out 0, and the adjusted p-value is below `ALPHA`."""
        return not self.low <= 0 <= self.high and self.adjusted < ALPHA


def paired(ones: Sequence[Mapping[int, float]], reference: Mapping[int, float], *key: Key) -> list[Paired]:
    """Each of some plans minus a reference, on the seeds that both have (at least one).

    Args:
        ones: By plan, the result of each seed.
        reference: The result of each seed.
        key: Names the draws of the bootstrap.
    """
    found = []
    for one in ones:
        seeds = tuple(sorted(one.keys() & reference.keys()))
        differences = np.array([one[seed] - reference[seed] for seed in seeds])
        found.append((seeds, differences, bootstrap(differences, *key), wilcoxon(differences)))
    adjusted = holm([p for *_, p in found])
    return [
        Paired(
            seeds=seeds,
            differences=tuple(map(float, differences)),
            iqm=float(iqm(differences)),
            low=low,
            high=high,
            median=float(np.median(differences)),
            p=p,
            adjusted=after,
            needed=seeds_needed(differences, len(ones)),
        )
        for (seeds, differences, (low, high), p), after in zip(found, adjusted, strict=True)
    ]


def wilcoxon(differences: Sequence[float] | Array) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test (1945); differences of 0 are left out, 1.0 if all are.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    some = np.asarray(differences, dtype=np.float64)
    some = some[some != 0]
    return float(scipy_stats().wilcoxon(some).pvalue) if len(some) else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of one false alarm among all of them is kept (Holm 1979)."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted


def least_seeds(comparisons: int = 1) -> int:
    """The fewest seeds with which Wilcoxon's test can fall below `ALPHA` at all, after Holm for so many comparisons."""
    return next(n for n in range(1, 100) if comparisons * 2.0 ** (1 - n) < ALPHA)


def seeds_needed(differences: Sequence[float] | Array, comparisons: int = 1) -> int | None:
    """How many seeds would show a difference of this size and spread, with a chance of `POWER`.

    By the normal approximation for paired differences, over the relative efficiency 3/pi of Wilcoxon's test; a plan
    for another experiment with fresh seeds, not a promise.

    Args:
        differences: What was seen.
        comparisons: How many are made, which the level is shared out over.

    Returns:
        None where it would take more than `TOO_MANY`.
    """
    some = np.asarray(differences, dtype=np.float64)
    least = least_seeds(comparisons)
    spread = float(np.std(some, ddof=1)) if len(some) > 1 else math.inf
    size = abs(float(np.mean(some)))
    if spread == 0 and size > 0:
        return least
    if size == 0 or not math.isfinite(spread):
        return None
    normal = NormalDist()
    reach = normal.inv_cdf(1 - ALPHA / comparisons / 2) + normal.inv_cdf(POWER)
    needed = max(least, math.ceil((reach * spread / size) ** 2 * math.pi / 3))
    return needed if needed <= TOO_MANY else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Friedman:
    """Whether more than two plans differ at all, and by how much their mean ranks must."""

    seeds: int
    p: float
    ranks: tuple[float, ...]
    """Mean rank by plan, 1 the best."""
    critical: float
    """Mean ranks that differ by more than this differ at `LEVEL` (Nemenyi 1963)."""


def friedman(table: Sequence[Sequence[float]]) -> Friedman:
    """Friedman's test (1937) on a row per seed and a column per plan, higher is better; at least 3 plans, 2 seeds.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    stats = scipy_stats()
    rows = np.asarray(table, dtype=np.float64)
    seeds, plans = rows.shape
    ranks = stats.rankdata(-rows, axis=1)
    # Where all plans tie on every seed there is nothing to test, and the statistic divides by 0.
    same = bool((rows == rows[:, :1]).all())
    spread = float(stats.studentized_range.ppf(LEVEL, plans, math.inf)) / math.sqrt(2)
    return Friedman(
        seeds=seeds,
        p=1.0 if same else float(stats.friedmanchisquare(*rows.T).pvalue),
        ranks=tuple(map(float, ranks.mean(axis=0))),
        critical=spread * math.sqrt(plans * (plans + 1) / (6 * seeds)),
    )


def scipy_stats() -> Any:
    """The tests of scipy.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError("comparing plans", "compare") from error
    return stats
