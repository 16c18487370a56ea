"""The search space: what a hyperparameter may be, and how it moves."""

import json
import math
from collections import Counter
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pbt.core.rng import Rng
from pbt.domains import Choice, Float, Int
from pbt.errors import SpaceError
from pbt.space import Space
from pbt.values import typed

RNG = Rng(0, "unused")
FACTORS = st.floats(0.01, 100) | st.sampled_from((0.5, 0.8, 1.2, 1.25, 2.0))
SHARES = st.floats(-2, 2) | st.sampled_from((-1000.0, 0.0, 1000.0))
NUMBERS = {
    "linear": st.floats(-1e6, 1e6),
    "log": st.floats(1e-9, 1e9),
    "one_minus_log": st.floats(-1e3, 1 - 1e-9),
}


def _range(numbers):
    return st.lists(numbers, min_size=2, max_size=2, unique=True).map(sorted)


@st.composite
def floats(draw):
    scale = draw(st.sampled_from(sorted(NUMBERS)))
    low, high = draw(_range(NUMBERS[scale]))
    prior = draw(st.none() | st.tuples(st.floats(low, high), st.floats(low, high)).map(sorted).map(tuple))
    return Float(low, high, scale, prior)


@st.composite
def ints(draw):
    scale = draw(st.sampled_from(("linear", "log")))
    low, high = draw(_range(st.integers(1 if scale == "log" else -300, 10**6)))
    prior = draw(st.none() | st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted).map(tuple))
    return Int(low, high, scale, prior)


def choices():
    plain = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | st.text(max_size=3)
    values = plain | st.lists(plain, max_size=3).map(tuple)
    options = st.lists(values, min_size=1, max_size=5, unique_by=typed)
    return st.builds(Choice, options.map(tuple), st.booleans())


DOMAINS = floats() | ints() | choices()
MOVES = st.tuples(st.just("perturb"), FACTORS) | st.tuples(st.just("shift"), SHARES) | st.just(("sample", None))


def moved(domain, value, move, rng):
    name, size = move
    return domain.sample(rng) if name == "sample" else getattr(domain, name)(value, size, rng)


class TestEveryDomain:
    @given(DOMAINS, st.integers(0, 2**32), st.lists(MOVES, max_size=8))
    def test_no_chain_of_moves_leaves_the_domain(self, domain, seed, moves):
        """Whatever moves follow each other, a value stays inside its domain and keeps its type."""
        rng = Rng(seed)
        value = domain.sample(rng)
        for move in [("sample", None), *moves]:
            value = moved(domain, value, move, rng)
            assert domain.contains(value)
            assert domain.clip(value) == value
            assert domain.kind == "choice" or type(value).__name__ == domain.kind

    @given(DOMAINS, st.integers(0, 2**32), st.data())
    def test_a_draw_comes_from_the_prior(self, domain, seed, data):
        """First values lie in the prior, also where it is narrower than the bounds."""
        value = domain.sample(Rng(seed))
        if domain.kind != "choice" and domain.prior:
            assert domain.prior[0] <= value <= domain.prior[1]
        assert value == domain.sample(Rng(seed))

    @given(DOMAINS)
    def test_a_domain_is_frozen_and_says_what_it_is(self, domain):
        """A domain cannot be changed, and describes itself in one line that names its kind."""
        with pytest.raises(FrozenInstanceError):
            domain.when = None
        assert domain.kind in domain.describe()

    @given(st.sampled_from((Float(0, 10), Float(1, 10, "log"), Float(-10, 0, "one_minus_log"))))
    def test_float_bounds_written_as_whole_numbers_give_floats(self, domain):
        """A move that ends on a bound is a float, also where the bound was written without a point."""
        for value in (domain.clip(-99), domain.clip(99), domain.shift(domain.clip(5.0), 9, RNG)):
            assert type(value) is float


class TestFloat:
    @pytest.mark.parametrize(
        ("domain", "value", "factor", "expected"),
        [
            (Float(0, 1), 0.5, 1.2, 0.6),
            (Float(0, 1), 0.5, 0.8, 0.4),
            (Float(0, 1), 0.9, 1.2, 1.0),  # clipped
            (Float(0.1, 1), 0.11, 0.8, 0.1),  # clipped
            (Float(-1, 1), -0.5, 1.2, -0.6),  # a factor above one moves away from zero
            (Float(1e-5, 1, "log"), 1e-3, 2.0, 2e-3),
            (Float(0, 0.999, "one_minus_log"), 0.9, 0.5, 0.95),  # the distance from one is halved
            (Float(0, 0.999, "one_minus_log"), 0.99, 2.0, 0.98),
            (Float(0, 0.999, "one_minus_log"), 0.0, 0.5, 0.5),  # zero is nothing special here
        ],
    )
    def test_perturb_multiplies(self, domain, value, factor, expected):
        """A value times a factor, clipped; under `one_minus_log` the distance from one times the factor."""
        assert domain.perturb(value, factor, RNG) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize(
        ("domain", "value", "by", "expected"),
        [
            (Float(0, 10), 5.0, 0.1, 6.0),
            (Float(0, 10), 0.0, 0.1, 1.0),
            (Float(1e-4, 1, "log"), 1e-2, 0.25, 1e-1),
            (Float(1e-4, 1, "log"), 1e-2, -0.25, 1e-3),
            (Float(0, 0.99, "one_minus_log"), 0.9, 0.5, 0.99),  # from 0.1 to 0.01 is half of 1 to 0.01
            (Float(0, 0.99, "one_minus_log"), 0.9, -0.5, 0.0),
            (Float(0, 1), 0.2, -5.0, 0.0),
            (Float(1e-6, 1, "log"), 0.5, 1e6, 1.0),  # the exponential of such a target would overflow
            (Float(-9, 0.5, "one_minus_log"), 0.1, -1e6, -9.0),
        ],
    )
    def test_shift_moves_by_a_share_of_the_scale(self, domain, value, by, expected):
        """A shift is the same share of the range wherever it starts, measured in the scale; bounds stop it."""
        assert domain.shift(value, by, RNG) == pytest.approx(expected, abs=1e-12)

    @given(_range(NUMBERS["linear"]), FACTORS)
    def test_zero_is_no_trap(self, bounds, factor):
        """At zero a value moves by a share of the range, and only a bound at zero stops it."""
        low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
        up = max(0.0, min(high, (factor - 1) * (high - low)))
        down = min(0.0, max(low, (factor - 1) * (high - low)))
        assert Float(low, high).perturb(0.0, factor, RNG) == (up if factor > 1 else down)
        assert Float(-1, 2).perturb(0.0, 1.2, RNG) == pytest.approx(0.6)
        assert Float(-1, 2).perturb(0.0, 0.8, RNG) == pytest.approx(-0.6)

    @pytest.mark.parametrize(
        ("domain", "scale"),
        [
            (Float(-2, 5), float),
            (Float(1e-5, 1, "log"), math.log),
            (Float(0, 0.9999, "one_minus_log"), lambda value: -math.log(1 - value)),
            (Float(1e-5, 1, "log", prior=(1e-3, 1e-2)), math.log),
        ],
    )
    def test_draws_are_uniform_in_the_scale(self, domain, scale):
        """Ten equal stretches of the scale get equally many first values."""
        low, high = (scale(end) for end in domain.prior or (domain.low, domain.high))
        rng = Rng(0, "uniform")
        counts = Counter(int(10 * (scale(domain.sample(rng)) - low) / (high - low)) for _ in range(5000))
        assert set(counts) == set(range(10))
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3

    def test_moves_may_leave_the_prior(self):
        """The prior is for first values alone; moves know the bounds only."""
        domain = Float(0, 1, prior=(0.4, 0.5))
        assert domain.perturb(0.5, 1.5, RNG) == 0.75
        assert domain.shift(0.4, -0.3, RNG) == pytest.approx(0.1)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, True, "0.5", None])
    def test_contains_refuses(self, value):
        """What is no number inside the bounds is not contained; a boolean is no number."""
        assert not Float(0, 1).contains(value)
        assert Float(0, 1).contains(1)


class TestInt:
    @given(ints(), st.data(), FACTORS)
    def test_perturb_moves_at_least_one(self, domain, data, factor):
        """A factor other than one really moves an int, in its direction, unless the bound there stops it."""
        value = data.draw(st.integers(domain.low, domain.high))
        after = domain.perturb(value, factor, RNG)
        away_from_zero = 1 if value >= 0 else -1
        direction = away_from_zero * ((factor > 1) - (factor < 1))
        stopped = value == (domain.high if direction > 0 else domain.low)
        if direction == 0 or stopped:
            assert after == value
        else:
            assert direction * (after - value) >= 1

    @given(ints(), st.data(), SHARES)
    def test_shift_moves_at_least_one(self, domain, data, by):
        """A shift other than zero really moves an int, unless the bound there stops it."""
        value = data.draw(st.integers(domain.low, domain.high))
        after = domain.shift(value, by, RNG)
        if by == 0 or value == (domain.high if by > 0 else domain.low):
            assert after == value
        else:
            assert math.copysign(1, by) * (after - value) >= 1

    @pytest.mark.parametrize(
        ("domain", "value", "factor", "expected"),
        [
            (Int(0, 100), 10, 1.2, 12),
            (Int(0, 100), 10, 0.8, 8),
            (Int(0, 100), 1, 1.2, 2),  # rounding alone would leave it at 1
            (Int(0, 100), 1, 0.8, 0),
            (Int(0, 100), 2, 1.2, 3),
            (Int(0, 100), 0, 1.2, 1),  # zero is no trap
            (Int(0, 100), 0, 0.8, 0),  # the bound stops it
            (Int(-5, 100), 0, 0.8, -1),
            (Int(-5, 100), -1, 1.2, -2),  # away from zero
            (Int(-5, 100), -1, 0.8, 0),
            (Int(0, 100), 99, 1.2, 100),
            (Int(0, 100), 7, 1.0, 7),
            (Int(1, 512, "log"), 64, 2.0, 128),
        ],
    )
    def test_perturb_multiplies_and_rounds(self, domain, value, factor, expected):
        """A value times a factor, rounded, at least one away, clipped."""
        assert domain.perturb(value, factor, RNG) == expected

    def test_shift_follows_the_scale(self):
        """A shift is a share of the range, in the logarithm where the scale says so."""
        assert Int(0, 100).shift(10, 0.2, RNG) == 30
        assert Int(1, 256, "log").shift(4, 0.25, RNG) == 16
        assert Int(1, 256, "log").shift(4, 1e6, RNG) == 256

    def test_linear_draws_are_equally_likely(self):
        """Each whole number of the prior comes equally often, its ends included."""
        rng = Rng(0, "int")
        counts = Counter(Int(0, 100, prior=(3, 8)).sample(rng) for _ in range(6000))
        assert set(counts) == set(range(3, 9))
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3

    def test_log_draws_follow_the_logarithm(self):
        """Under `log` a number n has the share of the stretch from n - 1/2 to n + 1/2, the ends included."""
        rng = Rng(0, "int")
        counts = Counter(Int(1, 6, "log").sample(rng) for _ in range(8000))
        shares = [math.log((n + 0.5) / (n - 0.5)) / math.log(6.5 / 0.5) for n in range(1, 7)]
        assert stats.chisquare([counts[n] for n in range(1, 7)], [8000 * share for share in shares]).pvalue > 1e-3

    @pytest.mark.parametrize("value", [1.0, True, 11, -1, "1", None, math.nan])
    def test_contains_refuses(self, value):
        """Only a whole number inside the bounds is contained; 1.0 and True are none."""
        assert not Int(0, 10).contains(value)

    def test_clip_rounds_and_clips(self):
        """The nearest whole number inside the bounds."""
        assert [Int(0, 10).clip(value) for value in (-3, 2.7, 10.4, 99)] == [0, 3, 10, 10]


class TestChoice:
    @pytest.mark.parametrize(
        ("value", "factor", "expected"),
        [(16, 1.2, 32), (16, 5.0, 32), (32, 0.8, 16), (64, 1.2, 64), (16, 0.8, 16), (32, 1.0, 32)],
    )
    def test_ordered_moves_go_to_a_neighbor(self, value, factor, expected):
        """Whatever the size of a move, an ordered choice goes one place in its direction, and stops at the ends."""
        domain = Choice((16, 32, 64), ordered=True)
        assert domain.perturb(value, factor, RNG) == expected
        assert domain.shift(value, factor - 1, RNG) == expected

    def test_neighbors_are_told_apart_by_type(self):
        """Options that are equal but of different types, as 1 and True, have places of their own."""
        domain = Choice((1, True, 1.0, "1"), ordered=True)
        assert repr([domain.shift(option, 1, RNG) for option in domain.options]) == "[True, 1.0, '1', '1']"

    @pytest.mark.parametrize("move", ["sample", "perturb", "shift"])
    def test_unordered_moves_are_new_uniform_draws(self, move):
        """Every move of an unordered choice gives any option equally often, the old one included."""
        domain, rng = Choice(("a", "b", "c", "d")), Rng(0, "choice")
        counts = Counter(moved(domain, "a", (move, 1.2), rng) for _ in range(6000))
        assert set(counts) == set("abcd")
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3

    def test_contains_by_type(self):
        """An option is contained as its own type only."""
        assert Choice((1, None, "x")).contains(None)
        assert not Choice((1, None, "x")).contains(True)
        assert not Choice((1, None, "x")).contains(1.0)
        assert not Choice((1, None, "x")).contains("y")

    def test_clip_has_no_nearest_option(self):
        """A value that is no option is an error that names the options and the value."""
        with pytest.raises(SpaceError, match=r"expected one of \['a', 'b'\], got 'c'"):
            Choice(("a", "b")).clip("c")


class TestBadDomains:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Float(1, 1), "expected finite bounds with low < high, got low=1, high=1"),
            (lambda: Float(0, math.inf), "expected finite bounds with low < high, got low=0, high=inf"),
            (lambda: Float(math.nan, 1), "expected finite bounds with low < high, got low=nan, high=1"),
            (lambda: Float(0, 1, "log"), r"scale 'log' needs bounds inside \(0.0, inf\), got 0 .. 1"),
            (lambda: Float(0, 1, "one_minus_log"), r"needs bounds inside \(-inf, 1.0\), got 0 .. 1"),
            (lambda: Float(0, 1, "cubic"), "expected scale 'linear', 'log' or 'one_minus_log', got 'cubic'"),
            (lambda: Float(0, 1, prior=(0.5, 2)), r"expected a prior \(a, b\) with 0 <= a <= b <= 1, got \(0.5, 2\)"),
            (lambda: Float(0, 1, prior=(0.6, 0.5)), r"with 0 <= a <= b <= 1, got \(0.6, 0.5\)"),
            (lambda: Int(0, 1.5), r"Int: expected whole numbers, got \(0, 1.5\); use Float"),
            (lambda: Int(False, 5), r"Int: expected whole numbers, got \(False, 5\)"),
            (lambda: Int(0, 5, prior=(1, 2.0)), r"Int: expected whole numbers, got \(0, 5, 1, 2.0\)"),
            (lambda: Int(0, 5, "one_minus_log"), "Int: expected scale 'linear' or 'log', got 'one_minus_log'"),
            (lambda: Int(0, 5, "log"), r"scale 'log' needs bounds inside \(0.0, inf\), got 0 .. 5"),
            (lambda: Int(7, 5), "expected finite bounds with low < high, got low=7, high=5"),
            (lambda: Choice(()), r"expected one or more distinct options, got \[\]"),
            (lambda: Choice(("a", "b", "a")), r"expected one or more distinct options, got \['a', 'b', 'a'\]"),
            (lambda: Choice(([[1]], [2])), r"expected strings, .* tuples of these as options, got \(\(1,\),\)"),
            (lambda: Choice((1.0, math.nan)), "expected strings, numbers, .* as options, got nan"),
        ],
    )
    def test_the_error_names_what_was_expected_and_found(self, make, message):
        """A domain that makes no sense is refused at once, with what was expected and what was found."""
        with pytest.raises(SpaceError, match=message):
            make()


TREE = Space(
    {
        "optimizer": Choice(("sgd", "adam")),
        "sgd.momentum": Float(0, 0.99, "one_minus_log", when=("optimizer", "sgd")),
        "sgd.nesterov": Choice((True, False), when=("optimizer", "sgd")),
        "sgd.lookahead": Int(1, 9, when=("sgd.nesterov", True)),
        "adam.beta": Float(0.5, 0.999, when=("optimizer", "adam")),
    }
)
ADAM = {"optimizer": "adam", "adam.beta": 0.9}
SGD = {"optimizer": "sgd", "sgd.momentum": 0.9, "sgd.nesterov": True, "sgd.lookahead": 3}


@st.composite
def spaces(draw):
    """Up to five domains, some of which depend on an option of an earlier choice."""
    domains = {}
    for i in range(draw(st.integers(1, 5))):
        domain = draw(DOMAINS)
        parents = [name for name, other in domains.items() if other.kind == "choice"]
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            condition = (parent, draw(st.sampled_from(domains[parent].options)))
            values = {name: getattr(domain, name) for name in domain.__slots__} | {"when": condition}
            domain = type(domain)(**values)
        domains[f"group.name{i}"] = domain
    return Space(domains)


class TestSpace:
    @given(spaces(), st.integers(0, 2**32), st.lists(MOVES, max_size=4))
    def test_no_chain_of_moves_leaves_the_space(self, space, seed, moves):
        """After any moves of all values, `settle` gives values that the space contains."""
        rng = Rng(seed)
        hparams = space.sample(rng)
        assert space.contains(hparams)
        for move in moves:
            hparams = space.settle({name: moved(space[name], value, move, rng) for name, value in hparams.items()}, rng)
            assert space.contains(hparams)
            assert list(space.check(hparams)) == list(space.active(hparams)) == list(hparams)
            assert space.settle(hparams, rng) == hparams == space.clip(hparams)

    @given(spaces())
    def test_round_trip_through_json(self, space):
        """A space is the same after plain values and after JSON, order and types included."""
        plain = space.to_dict()
        for again in (Space.from_dict(plain), Space.from_dict(json.loads(json.dumps(plain)))):
            assert again == space
            assert repr(again) == repr(space)
            assert list(again) == list(space)

    def test_a_condition_follows_its_name(self):
        """A name exists exactly while its condition holds, also at the end of a chain of conditions."""
        assert list(TREE.active(SGD)) == ["optimizer", "sgd.momentum", "sgd.nesterov", "sgd.lookahead"]
        assert list(TREE.active(SGD | {"sgd.nesterov": False})) == ["optimizer", "sgd.momentum", "sgd.nesterov"]
        assert list(TREE.active(ADAM)) == ["optimizer", "adam.beta"]
        assert list(TREE.active(ADAM | {"sgd.nesterov": True})) == ["optimizer", "adam.beta"]

    def test_settle_draws_what_appears_and_drops_what_vanishes(self):
        """What became active is drawn, what is no longer active leaves, all else stays as it was."""
        settled = TREE.settle(SGD | {"optimizer": "adam"}, Rng(0))
        assert set(settled) == set(ADAM)
        assert TREE["adam.beta"].contains(settled["adam.beta"])
        back = TREE.settle({"optimizer": "sgd", "sgd.nesterov": True, "sgd.momentum": 0.4}, Rng(0))
        assert {name: back[name] for name in ("sgd.nesterov", "sgd.momentum")} == {
            "sgd.nesterov": True,
            "sgd.momentum": 0.4,
        }
        assert TREE.contains(back)

    @pytest.mark.parametrize(
        ("hparams", "message"),
        [
            ({"optimiser": "sgd"}, r"^initial: unknown name 'optimiser'; did you mean 'optimizer'\?"),
            ({"zzz": 1}, "unknown name 'zzz'; known: adam.beta, optimizer, sgd.lookahead"),
            ({"optimizer": "adam"}, r"expected a value for 'adam.beta' \(float 0.5 .. 0.999 \(linear\)\), got none"),
            (ADAM | {"adam.beta": 1.5}, r"'adam.beta' must be float 0.5 .. 0.999 \(linear\), got 1.5"),
            (ADAM | {"adam.beta": math.nan}, "'adam.beta' must be float .*, got nan"),
            (ADAM | {"optimizer": "lion"}, "'optimizer' must be choice of sgd, adam, got 'lion'"),
            (SGD | {"sgd.lookahead": 2.0}, r"'sgd.lookahead' must be int 1 .. 9 \(linear\), got 2.0"),
            (ADAM | {"sgd.momentum": 0.5}, r"\['sgd.momentum'\] are inactive"),
        ],
    )
    def test_check_names_what_is_wrong(self, hparams, message):
        """Values outside the space are refused by name, with what was expected and what was found."""
        assert not TREE.contains(hparams)
        with pytest.raises(SpaceError, match=message):
            TREE.check(hparams, "initial")

    def test_check_gives_the_order_of_the_space(self):
        """Checked values come as a new dict in the order of the space."""
        shuffled = dict(reversed(SGD.items()))
        assert list(TREE.check(shuffled)) == list(SGD)
        assert TREE.check(shuffled) == shuffled
        assert TREE.check(shuffled) is not shuffled

    @pytest.mark.parametrize(
        ("domains", "message"),
        [
            ({"lr": 0.1}, "'lr': expected Float, Int or Choice, got 0.1"),
            ({"l r": Float(0, 1)}, "'l r': expected letters, digits"),
            ({"": Float(0, 1)}, "'': expected letters, digits"),
            ({"a..b": Float(0, 1)}, r"'a\.\.b': expected letters"),
            ({"../lr": Float(0, 1)}, "expected letters"),
            ({"a": Float(0, 1, when=("b", 1)), "b": Int(0, 2)}, "'a' depends on 'b', which must be defined before"),
            ({"b": Int(0, 2), "a": Float(0, 1, when=("b", 3))}, "'a' depends on 'b' = 3, outside its domain"),
        ],
    )
    def test_a_space_that_makes_no_sense_is_refused(self, domains, message):
        """Bad names, bad domains and impossible conditions are errors at once."""
        with pytest.raises(SpaceError, match=message):
            Space(domains)

    def test_clip_and_describe_go_by_name(self):
        """Every value is clipped by its own domain; every name is described in one line."""
        assert TREE.clip(SGD | {"sgd.momentum": 2.0, "sgd.lookahead": 40}) == SGD | {
            "sgd.momentum": 0.99,
            "sgd.lookahead": 9,
        }
        assert TREE.describe()["sgd.lookahead"] == "int 1 .. 9 (linear)"
        assert Choice((1, 2), ordered=True).describe() == "ordered choice of 1, 2"


class TestGrid:
    GRID = Float(0.1, 0.9, step=0.2)

    @given(st.floats(-1, 2), st.sampled_from((0.8, 1.0, 1.2)), st.floats(-0.5, 0.5))
    def test_every_value_is_a_step(self, value, factor, by):
        """Samples and moves stay on the grid, and a move that is one changes the value."""
        start = self.GRID.clip(value)
        found = [self.GRID.sample(RNG), self.GRID.perturb(start, factor, RNG), self.GRID.shift(start, by, RNG)]
        assert {start, *found} <= {0.1, 0.3, 0.5, 0.7, 0.9}
        if 0.1 < start < 0.9:
            assert (found[1] != start) == (factor != 1)
            assert (found[2] != start) == (by != 0)

    def test_what_is_no_step_is_refused(self):
        assert not self.GRID.contains(0.2)
        assert self.GRID.contains(0.1 + 0.2)
        assert self.GRID.describe() == "float 0.1 .. 0.9 (linear, step 0.2)"
        for step in (0, -0.1, 1.0):
            with pytest.raises(SpaceError, match=r"step above 0 and up to 0\.8"):
                Float(0.1, 0.9, step=step)

    def test_a_space_without_a_grid_is_recorded_as_before(self):
        assert "step" not in Space({"lr": Float(0, 1)}).to_dict()["lr"]
        space = Space({"lr": self.GRID})
        assert Space.from_dict(json.loads(json.dumps(space.to_dict())))["lr"] == self.GRID


class TestConstraint:
    SPACE = {"batch": Int(16, 4096, "log"), "part": Int(8, 2048, "log")}  # noqa: RUF012

    def test_samples_satisfy_a_predicate(self):
        space = Space(self.SPACE, lambda h: h["batch"] >= 2 * h["part"])
        drawn = [space.sample(RNG) for _ in range(200)]
        assert all(one["batch"] >= 2 * one["part"] for one in drawn)
        assert space.completed({"part": 1024}, RNG)["batch"] >= 2048

    def test_samples_are_repaired(self):
        space = Space(self.SPACE, lambda h: {**h, "batch": max(h["batch"], 2 * h["part"])})
        assert all(one["batch"] >= 2 * one["part"] for one in (space.sample(RNG) for _ in range(200)))
        assert space.settle({"batch": 20, "part": 100}, RNG) == {"batch": 200, "part": 100}
        assert space.allows({"batch": 200, "part": 100})
        assert not space.allows({"batch": 20, "part": 100})

    def test_a_space_of_a_space_keeps_it(self):
        space = Space(self.SPACE, lambda h: h["part"] > 100)
        assert Space(space).constraint is space.constraint

    @pytest.mark.parametrize(
        ("constraint", "message"),
        [
            (lambda h: False, "refused all of 10,000 samples"),
            (lambda h: h["size"], "failed for .*KeyError: 'size'"),
            (lambda h: "yes", "expected True, False or repaired values, got 'yes'"),
            (lambda h: {**h, "batch": 1}, "'batch' must be int 16 .. 4096"),
            (lambda h: {"batch": 20}, "expected a value for 'part'"),
        ],
    )
    def test_one_that_cannot_hold_is_named(self, constraint, message):
        with pytest.raises(SpaceError, match=f"constraint <lambda>: {message}"):
            Space(self.SPACE, constraint).sample(RNG)


def test_numbers_of_numpy_are_numbers():
    """Bounds, options and given values, which are stored as Python's."""
    domain = Int(np.int64(1), np.int64(4))
    space = Space({"n": domain, "x": Float(np.float32(0), np.float32(1)), "kind": Choice(list(np.arange(3)))})
    checked = space.check({"n": np.int64(3), "x": np.float32(0.5), "kind": np.int64(2)})
    assert checked == {"n": 3, "x": 0.5, "kind": 2}
    assert {type(value) for value in (*checked.values(), domain.low)} == {int, float}


@pytest.mark.parametrize("name", ["weight-decay", "model/lr", "optimizer.lr", "_x", "größe"])
def test_names(name):
    assert list(Space({name: Float(0, 1)})) == [name]
