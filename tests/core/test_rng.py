"""Randomness by key."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pbt.core.population import View
from pbt.core.rng import Rng, seed_of
from pbt.space import Space

KEYS = st.lists(
    st.integers() | st.text(st.characters(codec="utf-8", exclude_characters="\x1f")), min_size=1, max_size=4
).map(tuple)

GOLDEN_SEEDS = [3696793467068528757, 905411603548900938, 1311547975539230396]
GOLDEN_RANDOM = [0.2515704843800318, 0.6422969457171466, 0.17625018342929788]
GOLDEN_BELOW = [0, 7, 706, 776819349235]
GOLDEN_SAMPLE = [5, 4, 1, 7, 2, 9, 6, 3, 0, 8]
GOLDEN_NORMAL = 0.6957602904319777


@given(KEYS, KEYS)
def test_keys_differ_exactly_where_seeds_do(a, b):
    """Equal keys give equal seeds, different keys different ones."""
    assert (seed_of(*a) == seed_of(*b)) == (a == b)


def test_a_part_counts_with_its_type_and_its_place():
    """The number 1 and the text "1", an order and its reverse, a part and two halves of it are different keys."""
    seeds = {seed_of(*key) for key in [(1,), ("1",), (1, 2), (2, 1), ("12",), ("1", "2"), ("ab",), ("a", "b"), ()]}
    assert len(seeds) == 9


@given(KEYS)
def test_a_seed_fits_a_signed_word(key):
    """Every seed is in 0 .. 2**63 - 1, so that any library takes it."""
    assert 0 <= seed_of(*key) < 2**63


def test_golden_values():
    """These bits never change: an old run replays under a new version."""
    assert [seed_of(0), seed_of(7, "dropout", 3), seed_of("ü")] == GOLDEN_SEEDS
    rng = Rng(7, "golden")
    assert [rng.random() for _ in range(3)] == GOLDEN_RANDOM
    assert [Rng(7, "below").below(n) for n in (1, 10, 1000, 2**40)] == GOLDEN_BELOW
    assert Rng(7, "sample").sample(range(10), 10) == GOLDEN_SAMPLE
    assert Rng(7, "normal").normal() == pytest.approx(GOLDEN_NORMAL, rel=1e-14)


def test_draws_do_not_depend_on_who_draws_first():
    """Generators share nothing: interleaving them, or using the global one, changes no draw."""
    alone = {key: [Rng(0, key).random() for _ in range(1)] + [Rng(0, key).below(9)] for key in "abc"}
    rngs = {key: (Rng(0, key), Rng(0, key)) for key in "cab"}
    random.seed(1)
    mixed = {key: [first.random()] for key, (first, _) in rngs.items()}
    random.random()
    for key in "bca":
        mixed[key].append(rngs[key][1].below(9))
    assert mixed == alone


def test_a_generator_leaves_the_global_one_alone():
    """Drawing from a key does not move the generator of the `random` module."""
    random.seed(5)
    expected = random.random()
    random.seed(5)
    Rng(1, "x").sample(range(20), 20)
    Rng(2).normal()
    assert random.random() == expected


def test_a_child_is_the_longer_key():
    """A child draws what its whole key draws, whatever its parent drew before."""
    parent = Rng(3, "decide")
    parent.random()
    assert parent.child("explore", 4).random() == Rng(3, "decide", "explore", 4).random()
    assert parent.child("explore").random() != Rng(3, "decide").random()


def test_a_view_draws_by_its_seed_and_purpose_alone():
    """The generator of a view knows the seed and the key, not the members or the round."""
    a = View(seed=1, space=Space({}))
    b = View(seed=1, space=Space({}), round=9, memory={"x": 1})
    assert a.rng("birth", 2).random() == b.rng("birth", 2).random() == Rng(1, "birth", 2).random()
    assert View(seed=2, space=Space({})).rng("birth", 2).random() != a.rng("birth", 2).random()


def test_first_draws_of_neighboring_keys_are_uniform():
    """The first number of a key is uniform over keys that differ by one: members do not draw alike."""
    draws = [Rng(0, "decide", member, 1).random() for member in range(4000)]
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert abs(stats.pearsonr(draws[:-1], draws[1:])[0]) < 0.06


def test_below_is_uniform_and_inside():
    """Every integer in 0 .. n-1 comes equally often, and no other."""
    rng = Rng(0, "below")
    counts = Counter(rng.below(7) for _ in range(14_000))
    assert set(counts) == set(range(7))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@given(st.integers(0, 2**32), st.integers(1, 12), st.data())
def test_sample_draws_without_replacement(seed, size, data):
    """A sample has k different options, and is the start of every longer one."""
    k = data.draw(st.integers(0, size))
    options = [f"option {i}" for i in range(size)]
    sample = Rng(seed).sample(options, k)
    assert len(set(sample)) == len(sample) == k
    assert set(sample) <= set(options)
    assert Rng(seed).sample(options, size)[:k] == sample
    assert options == [f"option {i}" for i in range(size)]


def test_every_order_is_equally_likely():
    """A full sample is a fair shuffle."""
    rng = Rng(0, "shuffle")
    counts = Counter(tuple(rng.sample("abcd", 4)) for _ in range(12_000))
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_choice_is_uniform():
    """Each option is equally likely."""
    rng = Rng(0, "choice")
    counts = Counter(rng.choice("xyz") for _ in range(6000))
    assert stats.chisquare([counts[option] for option in "xyz"]).pvalue > 1e-3


def test_normal_is_standard_normal():
    """The draws have the standard normal distribution."""
    rng = Rng(0, "normal")
    assert stats.kstest([rng.normal() for _ in range(4000)], "norm").pvalue > 1e-3


def test_normal_survives_a_zero(monkeypatch):
    """A uniform draw of exactly zero gives a finite normal one."""
    monkeypatch.setattr(Rng, "random", lambda self: 0.0)
    assert -9 < Rng(0).normal() < -8
