"""Statistics of repeated runs. Pure functions of numbers, with every random draw keyed.

A run of a whole population is one sample. The measure is that of Agarwal et al. 2021 (arXiv 2108.13264): the
interquartile mean. Its interval is Student's t with a bootstrap standard error, because the percentile bootstrap
interval of their paper covers too rarely with the few seeds that populations allow. With one task the seeds are the
only stratum; when two plans are compared, a seed is drawn with the results of both, so that common effects of the
seed cancel.
"""

import functools
import math
from bisect import bisect_left
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
SIMULATED = 4_000
"""Number of simulated comparisons from which the power of few seeds is computed."""
FEW = 50
"""The most seeds whose power is simulated; above, the normal approximation is as good."""

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]


def iqm(values: Sequence[float] | Array) -> Any:
    """The interquartile mean along the last axis: the mean without the `int(n / 4)` lowest and highest of n values."""
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def bootstrap(values: Sequence[float] | Array, *key: Key, statistic: Statistic = iqm) -> tuple[float, float]:
    """The interval of a statistic at `LEVEL`; equal keys give equal intervals.

    The statistic plus and minus its bootstrap standard error, corrected by sqrt(n / (n - 1)), times the quantile of
    Student's t with n - 1 degrees of freedom. `docs/comparing.md` has the measured coverage for 3 to 12 values.

    Args:
        values: At least one value. One value determines no interval: its ends are infinite.
        key: The key of the random draws.
        statistic: Computes the statistic of samples along the last axis.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    sample = np.asarray(values, dtype=np.float64)
    size = len(sample)
    if size < 2:
        return -math.inf, math.inf
    rng = np.random.default_rng(seed_of("compare", "bootstrap", *key))
    drawn = statistic(sample[rng.integers(size, size=(REPETITIONS, size))])
    # The standard deviation of equal values may differ from 0 in the last bit.
    error = 0.0 if (sample == sample[0]).all() else float(np.std(drawn, ddof=1)) * math.sqrt(size / (size - 1))
    reach = float(scipy_stats().t.ppf(1 - ALPHA / 2, size - 1)) * error
    middle = float(statistic(sample))
    return middle - reach, middle + reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The results of one plan over its seeds."""

    seeds: int
    iqm: float
    """Interquartile mean."""
    low: float
    """Lower end of the interval of the interquartile mean; infinite for one seed."""
    high: float
    """Upper end of the interval of the interquartile mean; infinite for one seed."""
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
    significant: bool
    """Whether the adjusted p-value is below `ALPHA` and the interquartile mean has the direction of the ranks."""
    detectable: float | None
    """The true difference that these seeds show with probability `POWER` at the measured scatter of the differences;
    None if they are too few to show any."""
    needed: int | None
    """Seeds that would show a difference of the measured size with probability `POWER`; None if more than `TOO_MANY`,
    or if one seed leaves the scatter unknown."""
    needed_for_half: int | None
    """Seeds that would show a difference of half of `detectable`; None without it."""


def paired(ones: Sequence[Mapping[int, float]], reference: Mapping[int, float], *key: Key) -> list[Paired]:
    """Compare plans with a reference, each on the seeds of both (at least one).

    Args:
        ones: For each plan, the results by seed.
        reference: The results of the reference by seed.
        key: The key of the bootstrap's draws.
    """
    common = [tuple(sorted(one.keys() & reference.keys())) for one in ones]
    tested = [
        np.array([one[seed] - reference[seed] for seed in seeds]) for one, seeds in zip(ones, common, strict=True)
    ]
    values = [wilcoxon(differences) for differences in tested]
    return [
        _pair(seeds, differences, (p, after), len(ones), key)
        for seeds, differences, p, after in zip(common, tested, values, holm(values), strict=True)
    ]


def _pair(
    seeds: tuple[int, ...], differences: Array, ps: tuple[float, float], comparisons: int, key: Sequence[Key]
) -> Paired:
    low, high = bootstrap(differences, *key)
    middle = float(iqm(differences))
    size = detectable(len(seeds), comparisons)
    shown = None if math.isinf(size) else size * float(np.std(differences, ddof=1))
    return Paired(
        seeds=seeds,
        differences=tuple(map(float, differences)),
        iqm=middle,
        low=low,
        high=high,
        median=float(np.median(differences)),
        p=ps[0],
        adjusted=ps[1],
        significant=ps[1] < ALPHA and bool(middle * _signed_ranks(differences) > 0),
        detectable=shown,
        needed=seeds_needed(differences, comparisons),
        needed_for_half=None if shown is None else _seeds_for(size / 2, comparisons),
    )


def wilcoxon(differences: Sequence[float] | Array) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test (1945), without differences of 0; 1.0 if all are 0.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    some = np.asarray(differences, dtype=np.float64)
    some = some[some != 0]
    return float(scipy_stats().wilcoxon(some).pvalue) if len(some) else 1.0


def _signed_ranks(differences: Array) -> float:
    """The sum of the signed ranks of Wilcoxon's test: above 0 where it finds an increase."""
    some = differences[differences != 0]
    return float(np.sum(np.sign(some) * scipy_stats().rankdata(np.abs(some))))


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
    """The number of seeds that would show a difference of this size and scatter with probability `POWER`.

    An estimate for a new experiment with fresh seeds, for normally distributed differences.

    Args:
        differences: The measured differences.
        comparisons: Number of comparisons among which the level is divided.

    Returns:
        The number; None if it exceeds `TOO_MANY`, if all differences are 0, or with one difference.
    """
    some = np.asarray(differences, dtype=np.float64)
    if len(some) < 2:
        return None
    spread, size = float(np.std(some, ddof=1)), abs(float(np.mean(some)))
    if spread == 0 or size == 0:
        return least_seeds(comparisons) if size > 0 else None
    return _seeds_for(size / spread, comparisons)


def _seeds_for(size: float, comparisons: int) -> int | None:
    """The least number of seeds that show a difference of this many standard deviations; None above `TOO_MANY`."""
    few = range(least_seeds(comparisons), FEW + 1)
    index = bisect_left(few, True, key=lambda seeds: detectable(seeds, comparisons) <= size)
    if index < len(few):
        return few[index]
    needed = max(FEW + 1, math.ceil((_reach(comparisons) / size) ** 2 * math.pi / 3))
    return needed if needed <= TOO_MANY else None


@functools.lru_cache(maxsize=1024)
def detectable(seeds: int, comparisons: int = 1) -> float:
    """The smallest true difference that this many seeds show with probability `POWER`: the inverse of `seeds_needed`.

    Up to `FEW` seeds the power of Wilcoxon's exact test is simulated. For more it is the normal approximation for
    paired differences, divided by the relative efficiency 3/pi of the test.

    Args:
        seeds: Number of seeds, at least 1.
        comparisons: Number of comparisons among which the level is divided.

    Returns:
        The difference in standard deviations of normally distributed differences; infinite below `least_seeds`.
    """
    if seeds < least_seeds(comparisons):
        return math.inf
    if seeds > FEW:
        return _reach(comparisons) * math.sqrt(math.pi / 3 / seeds)
    rng = np.random.default_rng(seed_of("compare", "power", seeds))
    sample = rng.normal(size=(SIMULATED, seeds))
    one, other = np.triu_indices(seeds)
    # The sum of the positive ranks is the number of pairs whose mean is above 0 (Tukey 1949). A shift of the sample
    # moves all pairs alike, so that one of their order statistics is the shift from which the test rejects.
    pairs = (sample[:, one] + sample[:, other]) / 2
    last = _largest_rejected(seeds, ALPHA / comparisons)
    return float(np.quantile(-np.partition(pairs, last, axis=1)[:, last], POWER))


def _largest_rejected(seeds: int, level: float) -> int:
    """The largest sum of the ranks of one sign at which Wilcoxon's two-sided test rejects at a level."""
    counts = np.zeros(seeds * (seeds + 1) // 2 + 1)
    counts[0] = 1.0
    for rank in range(1, seeds + 1):
        counts[rank:] += counts[:-rank].copy()
    rejected = 2 * np.cumsum(counts) / 2.0**seeds < level
    return int(rejected.sum()) - 1


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
