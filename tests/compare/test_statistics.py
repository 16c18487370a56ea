"""What repeated runs show: against constants, against scipy, and against simulations whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pbt.compare import statistics
from pbt.compare.statistics import (
    bootstrap,
    detectable,
    friedman,
    holm,
    iqm,
    least_seeds,
    paired,
    seeds_needed,
    summary,
    wilcoxon,
)
from tests.helpers.sampled import sampled

values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def by_seed(numbers):
    """Results as a comparison has them."""
    return dict(enumerate(map(float, numbers)))


@given(values)
def test_iqm_is_the_trimmed_mean(numbers):
    """A quarter is dropped at either end, rounded down."""
    assert iqm(numbers) == pytest.approx(stats.trim_mean(numbers, 0.25), rel=1e-9, abs=1e-6)


@given(values, st.randoms())
def test_iqm_knows_no_order_and_lies_inside(numbers, random):
    """The order of the runs does not matter, and the mean of the middle is between the lowest and the highest."""
    turned = random.sample(numbers, len(numbers))
    assert iqm(turned) == pytest.approx(iqm(numbers), rel=1e-12, abs=1e-9)
    assert min(numbers) - 1e-6 <= iqm(numbers) <= max(numbers) + 1e-6


def test_iqm_of_rows():
    """Samples lie along the last axis."""
    assert iqm([[0, 1, 2, 99], [5, 5, 5, 5]]).tolist() == [1.5, 5.0]


def test_the_interval_is_the_same_for_the_same_key():
    """The bootstrap draws by key; another key gives another interval of nearly the same width."""
    sample = np.random.default_rng(1).normal(size=20)
    first, other = bootstrap(sample, "a"), bootstrap(sample, "b")
    assert first == bootstrap(sample, "a") != other
    assert first == pytest.approx(other, abs=0.05)


IQM = {"normal": 0.0, "exponential": 0.738, "lognormal": 1.073, "ties": 0.195}
"""The interquartile mean of each distribution of `drawn_from`."""


def drawn_from(shape, rng, size):
    """Samples of this distribution; `ties` is a normal one on a grid of half a standard deviation."""
    if shape == "ties":
        return np.round(rng.normal(0.2, 1.0, size) * 2) / 2
    return {"normal": rng.normal, "exponential": rng.exponential, "lognormal": rng.lognormal}[shape](size=size)


def coverage(shape, seeds, trials):
    """The share of intervals with the true interquartile mean inside."""
    samples = drawn_from(shape, np.random.default_rng(2), (trials, seeds))
    intervals = [bootstrap(row, "coverage", i) for i, row in enumerate(samples)]
    return np.mean([low <= IQM[shape] <= high for low, high in intervals])


@pytest.mark.parametrize("seeds", [3, 6])
def test_the_interval_covers_what_it_should(monkeypatch, seeds):
    """About 95 % of the intervals of a few seeds contain the truth; of the percentile bootstrap's, 75 and 90 % do."""
    monkeypatch.setattr(statistics, "REPETITIONS", 1000)
    assert 0.93 <= coverage("normal", seeds, 400) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("shape", IQM)
def test_the_coverage_for_each_number_of_seeds(monkeypatch, shape):
    """The table of docs/comparing.md, to two standard errors: normal, skewed and tied results, 3 to 12 seeds."""
    monkeypatch.setattr(statistics, "REPETITIONS", 1000)
    least = {seeds: coverage(shape, seeds, 1000) for seeds in range(3, 13)}
    assert least[3] >= 0.90
    assert min(least[seeds] for seeds in range(4, 13)) >= 0.935
    assert max(least.values()) <= 0.995


def test_one_run_has_no_interval():
    """One seed does not tell how far its value is from the truth."""
    one = summary([2.5], "k")
    assert (one.iqm, one.low, one.high, one.median, one.deviation) == (2.5, -math.inf, math.inf, 2.5, 0.0)


def test_equal_values_have_an_interval_without_width():
    """Whatever their last bits are."""
    assert bootstrap([0.1] * 7, "k") == (iqm([0.1] * 7),) * 2


@pytest.mark.parametrize(
    ("differences", "expected"),
    [([1, 2, 3, 4, 5, 6.5], 0.03125), ([0, 0, 0], 1.0), ([0, 1, 2, 3, 4, 5, 6.5], 0.03125), ([-3.0], 1.0)],
)
def test_wilcoxon(differences, expected):
    """Six differences of one sign give 2 / 2^6; zeros are left out; nothing but zeros shows nothing."""
    assert wilcoxon(differences) == pytest.approx(expected)


def test_holm():
    """The example of three p-values: the lowest times three, and none below one before it."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("comparisons", "least"), [(1, 6), (3, 7), (5, 8), (7, 9)])
def test_fewest_seeds(comparisons, least):
    """With one seed fewer not even differences of one sign could be shown, with so many they are."""
    for seeds, real in ((least - 1, False), (least, True)):
        ones = [by_seed(np.arange(seeds) + 1 + i) for i in range(comparisons)]
        assert all(pair.significant is real for pair in paired(ones, by_seed(np.zeros(seeds)), "least"))
    assert least_seeds(comparisons) == least


def test_seeds_needed_gives_the_power():
    """As many seeds as were named show a difference of that size in about 80 % of simulated comparisons."""
    seen = np.array([-0.5, 1.5] * 20) * np.sqrt(39 / 40)
    seen = 0.5 + (seen - seen.mean())
    needed = seeds_needed(seen)
    assert needed is not None
    rng = np.random.default_rng(3)
    shown = np.mean([wilcoxon(rng.normal(0.5, 1.0, needed)) < 0.05 for _ in range(600)])
    assert shown == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(("seeds", "comparisons"), [(6, 1), (8, 3), (12, 1)])
def test_detectable_has_the_power(seeds, comparisons):
    """scipy's test finds the named difference in about 80 % of simulated comparisons with few seeds, too."""
    sample = np.random.default_rng(6).normal(detectable(seeds, comparisons), 1.0, (1500, seeds))
    shown = stats.wilcoxon(sample, axis=1).pvalue < 0.05 / comparisons
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


def test_detectable_needs_enough_seeds():
    """Below the fewest seeds of a test nothing is detectable; the simulation meets the approximation."""
    assert detectable(5) == math.inf
    assert detectable(50) == pytest.approx(detectable(51), rel=0.05)
    (few,) = paired([by_seed([1.0, 2.0, 3.0])], by_seed(np.zeros(3)), "k")
    assert (few.detectable, few.needed_for_half) == (None, None)
    (some,) = paired([by_seed([1.0, -2.0, 3.0, 1.0, -1.0, 2.0])], by_seed(np.zeros(6)), "k")
    assert some.detectable == pytest.approx(detectable(6) * np.std(some.differences, ddof=1))


def test_a_majority_of_equal_results_is_no_direction():
    """Wilcoxon's test leaves out zeros; where the middle half of the differences is 0, nothing is called better."""
    (pair,) = paired([by_seed([0.0] * 20 + [1.0] * 6)], by_seed(np.zeros(26)), "k")
    assert pair.adjusted < 0.05
    assert (pair.iqm, pair.significant) == (0.0, False)


def test_detectable_is_the_inverse_of_seeds_needed():
    """As many seeds as a difference needs detect that difference, and one seed fewer does not; more plans need more."""
    for size, comparisons in ((0.5, 1), (0.5, 4), (1.0, 2)):
        spread = np.array([-1.0, 1.0] * 20) * np.sqrt(39 / 40)
        needed = seeds_needed(size + spread, comparisons)
        assert needed is not None
        assert detectable(needed, comparisons) <= size < detectable(needed - 1, comparisons)
    assert detectable(20, 4) > detectable(20)


def test_seeds_needed_has_ends():
    """A difference without spread needs the fewest that a test takes; one of 0, or alone, no number of seeds."""
    assert seeds_needed([1.0] * 10) == 6
    assert seeds_needed([1.0] * 10, comparisons=5) == 8
    assert seeds_needed([0.0] * 10) is None
    assert seeds_needed([1.0]) is None
    assert seeds_needed([1.0, -1.0001] * 5) is None


def test_a_true_difference_is_significant():
    """Ten seeds, a shift of three standard deviations: shown, with its size and sign."""
    rng = np.random.default_rng(4)
    base = rng.normal(size=10)
    (pair,) = paired([by_seed(base - 3 + 0.5 * rng.normal(size=10))], by_seed(base), "there")
    assert pair.significant
    assert pair.low <= pair.iqm <= pair.high < 0
    assert pair.iqm == pytest.approx(-3, abs=0.5)


def false_positives(shape, seeds, others, trials):
    """The share of comparisons of equal plans in which some difference is significant."""
    rng = np.random.default_rng(5)
    alarms = 0
    for trial in range(trials):
        found = [by_seed(row) for row in drawn_from(shape, rng, (others + 1, seeds))]
        alarms += any(pair.significant for pair in paired(found[1:], found[0], trial))
    return alarms / trials


@pytest.mark.parametrize("others", sampled([1, 4], (1,)))
def test_equal_plans_rarely_differ_significantly(monkeypatch, others):
    """Of comparisons of a plan with itself at most about 5 % are significant, with four plans as with one."""
    monkeypatch.setattr(statistics, "REPETITIONS", 10)
    assert false_positives("normal", 10, others, 200) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("shape", IQM)
@pytest.mark.parametrize(("others", "seeds"), [(1, 6), (1, 10), (4, 8), (4, 12)])
def test_the_level_for_each_distribution(monkeypatch, shape, others, seeds):
    """The level is 5 % for all plans together, to two standard errors."""
    monkeypatch.setattr(statistics, "REPETITIONS", 10)
    # With ties, scipy computes each p-value from permutations, which takes long.
    trials = 300 if shape == "ties" else 1000
    assert false_positives(shape, seeds, others, trials) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)


def test_only_common_seeds_are_paired():
    """A seed that one plan lacks is left out of the difference."""
    (pair,) = paired([{1: 2.0, 2: 5.0, 9: 1.0}], {2: 1.0, 1: 1.0, 3: 7.0}, "k")
    assert pair.seeds == (1, 2)
    assert pair.differences == (1.0, 4.0)


def test_equal_plans_differ_by_nothing():
    """The same results on each seed are no difference, and no error."""
    same = by_seed(range(10))
    (pair,) = paired([same], same, "k")
    assert (pair.iqm, pair.low, pair.high, pair.p, pair.significant, pair.needed) == (0, 0, 0, 1.0, False, None)


def test_friedman():
    """Mean ranks count the best as 1; four plans on 14 seeds have the critical difference of Demšar's (2006) table."""
    rows = np.tile([4.0, 3.0, 2.0, 1.0], (14, 1)) + 0.01 * np.arange(14)[:, None]
    found = friedman(rows)
    assert found.ranks == (1, 2, 3, 4)
    assert found.p < 0.001
    assert found.critical == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert friedman(np.ones((5, 3))).p == 1.0
