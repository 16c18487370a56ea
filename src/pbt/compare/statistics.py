"""Statistics of repeated runs. Pure functions of numbers, with every random draw keyed.

A run of a whole population is one sample. The measures are those of Agarwal et al. 2021 (arXiv 2108.13264):
interquartile mean, with a percentile bootstrap interval. With one task the seeds are the only stratum; when two plans
are compared, a seed is drawn with the results of both, so that common effects of the seed cancel.
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
"""The probability of detecting a true difference, for which `seeds_needed` and `detectable` are computed."""
REPETITIONS = 10_000
"""Number of bootstrap samples."""
TOO_MANY = 2_000
"""The most seeds that `seeds_needed` returns."""

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]


def iqm(values: Sequence[float] | Array) -> Any:
    """The interquartile mean along the last axis: the mean without the `int(n / 4)` lowest and highest of n values."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def bootstrap(values: Sequence[float] | Array, *key: Key, statistic: Statistic = iqm) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic at `LEVEL`; equal keys give equal intervals.

    Args:
        values: At least one value.
        key: The key of the random draws.
        statistic: Computes the statistic of samples along the last axis.
    """
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed_of("compare", "bootstrap", *key))
    drawn = sample[rng.integers(len(sample), size=(REPETITIONS, len(sample)))]
    low, high = np.quantile(statistic(drawn), [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The results of one plan over its seeds."""

    seeds: int
    iqm: float
    """Interquartile mean."""
    low: float
    """Lower end of the interval of the interquartile mean."""
    high: float
    """Upper end of the interval of the interquartile mean."""
    median: float
    mean: float
    deviation: float
    """Sample standard deviation; 0 for one seed."""


def summary(values: Sequence[float], *key: Key) -> Summary:
    """Summarize the results of one plan over at least one seed."""
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
    """The difference between a plan and the reference, seed by seed."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    iqm: float
    """Interquartile mean of the differences."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""
    median: float
    p: float
    """Two-sided p-value of Wilcoxon's signed-rank test."""
    adjusted: float
    """The p-value after Holm's correction for all comparisons."""
    needed: int | None
    """Seeds that would show a difference of this size with probability `POWER`; None if more than `TOO_MANY`."""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0 and the adjusted p-value is below `ALPHA`."""
        return not self.low <= 0 <= self.high and self.adjusted < ALPHA


def paired(ones: Sequence[Mapping[int, float]], reference: Mapping[int, float], *key: Key) -> list[Paired]:
    """Compare plans with a reference, each on the seeds of both (at least one).

    Args:
        ones: For each plan, the results by seed.
        reference: The results of the reference by seed.
        key: The key of the bootstrap's draws.
    """
    tested = []
    for one in ones:
        seeds = tuple(sorted(one.keys() & reference.keys()))
        differences = np.array([one[seed] - reference[seed] for seed in seeds])
        tested.append((seeds, differences, bootstrap(differences, *key), wilcoxon(differences)))
    adjusted = holm([p for *_, p in tested])
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
        for (seeds, differences, (low, high), p), after in zip(tested, adjusted, strict=True)
    ]


def wilcoxon(differences: Sequence[float] | Array) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test (1945), without differences of 0; 1.0 if all are 0.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    some = np.asarray(differences, dtype=np.float64)
    some = some[some != 0]
    return float(scipy_stats().wilcoxon(some).pvalue) if len(some) else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's method (1979), which bounds the probability of any false positive."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = highest
    return adjusted


def least_seeds(comparisons: int = 1) -> int:
    """The fewest seeds for which Wilcoxon's p-value can be below `ALPHA`, after Holm's correction."""
    return next(n for n in range(1, 100) if comparisons * 2.0 ** (1 - n) < ALPHA)


def seeds_needed(differences: Sequence[float] | Array, comparisons: int = 1) -> int | None:
    """The number of seeds that would show a difference of this size and spread with probability `POWER`.

    An estimate for a new experiment with fresh seeds: the normal approximation for paired differences, divided by the
    relative efficiency 3/pi of Wilcoxon's test.

    Args:
        differences: The measured differences.
        comparisons: Number of comparisons among which the level is divided.

    Returns:
        The number; None if it exceeds `TOO_MANY`.
    """
    some = np.asarray(differences, dtype=np.float64)
    least = least_seeds(comparisons)
    spread = float(np.std(some, ddof=1)) if len(some) > 1 else math.inf
    size = abs(float(np.mean(some)))
    if spread == 0 and size > 0:
        return least
    if size == 0 or not math.isfinite(spread):
        return None
    needed = max(least, math.ceil((_reach(comparisons) * spread / size) ** 2 * math.pi / 3))
    return needed if needed <= TOO_MANY else None


def detectable(seeds: int, comparisons: int = 1) -> float:
    """The smallest difference that this many seeds show with probability `POWER`: the inverse of `seeds_needed`.

    Args:
        seeds: Number of seeds, at least 1.
        comparisons: Number of comparisons among which the level is divided.

    Returns:
        The difference in standard deviations of the differences between seeds.
    """
    return _reach(comparisons) * math.sqrt(math.pi / 3 / seeds)


def _reach(comparisons: int) -> float:
    """The distance from 0, in standard errors, of a mean that the test detects with probability `POWER`."""
    normal = NormalDist()
    return normal.inv_cdf(1 - ALPHA / comparisons / 2) + normal.inv_cdf(POWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Friedman:
    """The result of Friedman's test of more than two plans, with the critical difference of mean ranks."""

    seeds: int
    p: float
    ranks: tuple[float, ...]
    """Mean rank per plan; 1 is the best."""
    critical: float
    """Mean ranks farther apart than this differ at `LEVEL` (Nemenyi 1963)."""


def friedman(table: Sequence[Sequence[float]]) -> Friedman:
    """Friedman's test (1937) of at least 3 plans (columns) on at least 2 seeds (rows); higher values are better.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    stats = scipy_stats()
    rows = np.asarray(table, dtype=np.float64)
    seeds, plans = rows.shape
    ranks = stats.rankdata(-rows, axis=1)
    # If all plans tie on every seed, the statistic would divide by 0.
    same = bool((rows == rows[:, :1]).all())
    spread = float(stats.studentized_range.ppf(LEVEL, plans, math.inf)) / math.sqrt(2)
    return Friedman(
        seeds=seeds,
        p=1.0 if same else float(stats.friedmanchisquare(*rows.T).pvalue),
        ranks=tuple(map(float, ranks.mean(axis=0))),
        critical=spread * math.sqrt(plans * (plans + 1) / (6 * seeds)),
    )


def scipy_stats() -> Any:
    """The module `scipy.stats`.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError("comparing plans", "compare") from error
    return stats
