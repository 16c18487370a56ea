"""How hyperparameters change."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pbt.core.explore import (
    RESAMPLED,
    follow,
    jitter,
    keep,
    perturb,
    perturb_or_resample,
    random_subset,
    resample,
)
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.schedule import Schedule, Segment
from pbt.domains import Choice, Float, Int
from pbt.errors import UsageError
from pbt.space import Space

SPACE = Space(
    {
        "lr": Float(1e-6, 1.0, "log"),
        "gamma": Float(0.0, 0.999, "one_minus_log"),
        "decay": Float(0.0, 1.0),
        "batch": Int(1, 1024, "log"),
        "width": Choice((16, 32, 64), ordered=True),
        "optimizer": Choice(("sgd", "adam")),
        "momentum": Float(0.0, 0.99, when=("optimizer", "sgd")),
    }
)
HPARAMS = {
    "lr": 1e-3,
    "gamma": 0.9,
    "decay": 0.5,
    "batch": 32,
    "width": 32,
    "optimizer": "sgd",
    "momentum": 0.5,
}
SCHEDULE = Schedule((Segment(start=0, stop=10, hparams=HPARAMS),))
CHANGING = (
    perturb(),
    resample(0.5),
    perturb_or_resample(),
    jitter(),
    jitter(50.0),
    random_subset(),
    random_subset(resample()),
)
ALL = (*CHANGING, keep(), follow(SCHEDULE))


def explored(rule, hparams=HPARAMS, seed=0, space=SPACE, step=0):
    view = View(seed=0, space=space)
    return rule(hparams, Member(id=0, hparams=hparams, step=step), view, Rng(seed, "explore"))


@pytest.mark.parametrize("rule", ALL, ids=repr)
@given(st.integers(0, 2**32))
def test_no_rule_leaves_the_space(rule, seed):
    """Whatever a rule draws, ten times in a row, the values are complete and inside, and none is changed in place."""
    hparams, before = HPARAMS, dict(HPARAMS)
    for i in range(10):
        hparams, draws = explored(rule, hparams, seed + i)
        assert SPACE.contains(hparams)
        assert set(draws) <= set(SPACE)
    assert before == HPARAMS
    assert explored(rule, seed=seed) == explored(rule, seed=seed)


@pytest.mark.parametrize("rule", ALL, ids=repr)
@given(st.integers(0, 2**32))
def test_what_changed_was_drawn(rule, seed):
    """A value that was there before and is different now has a draw that says how."""
    hparams, draws = explored(rule, seed=seed)
    assert {name for name in HPARAMS if name in hparams and hparams[name] != HPARAMS[name]} <= set(draws)


class TestPerturb:
    @given(st.integers(0, 2**32))
    def test_each_value_is_multiplied_by_its_draw(self, seed):
        """The recorded factor is the one that the value was moved by, by the geometry of its domain."""
        hparams, draws = explored(perturb(), seed=seed)
        assert list(draws) == list(HPARAMS)
        for name in ("lr", "gamma", "decay", "batch", "width"):
            assert draws[name] in (0.8, 1.2)
            assert hparams[name] == SPACE[name].perturb(HPARAMS[name], draws[name], Rng(0))
            assert hparams[name] != HPARAMS[name]

    def test_factors_are_equally_likely_and_drawn_for_each_name_alone(self):
        """Four pairs of factors for two names come equally often."""
        counts = dict.fromkeys([(a, b) for a in (0.5, 2.0) for b in (0.5, 2.0)], 0)
        for seed in range(4000):
            _, draws = explored(perturb((0.5, 2.0)), seed=seed)
            counts[draws["lr"], draws["decay"]] += 1
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3

    @pytest.mark.parametrize(
        ("factors", "drift", "deviation"), [((0.8, 1.2), -0.020411, 0.202733), ((0.8, 1.25), 0.0, 0.223144)]
    )
    def test_drift(self, factors, drift, deviation):
        """In the logarithm the paper's factors drift by -0.020411 a perturbation, a reciprocal pair does not drift."""
        steps = {
            factor: math.log(explored(perturb((factor,)))[0]["lr"]) - math.log(HPARAMS["lr"]) for factor in factors
        }
        assert sum(steps.values()) / 2 == pytest.approx(drift, abs=1e-6)
        # And so it does along a real walk, to within four standard errors of the mean.
        space, walks, length = Space({"lr": Float(1e-300, 1e300, "log")}), 200, 50
        ends = []
        for seed in range(walks):
            hparams = {"lr": 1.0}
            for i in range(length):
                hparams, _ = explored(perturb(factors), hparams, seed=length * seed + i, space=space)
            ends.append(math.log(hparams["lr"]) / length)
        assert sum(ends) / walks == pytest.approx(drift, abs=4 * deviation / math.sqrt(walks * length))


class TestResample:
    def test_the_share_of_new_draws(self):
        """Each value is drawn anew with the probability, else stays to the last bit; the draws say which."""
        redrawn = dict.fromkeys(HPARAMS, 0)
        for seed in range(2000):
            hparams, draws = explored(resample(0.25), seed=seed)
            assert set(draws.values()) <= {RESAMPLED}
            for name in draws:
                redrawn[name] += 1
            assert all(hparams[name] == HPARAMS[name] for name in hparams if name not in draws)
        assert all(stats.binomtest(count, 2000, 0.25).pvalue > 1e-4 for count in redrawn.values())

    def test_all_or_nothing(self):
        """Probability 1 draws everything anew, probability 0 nothing."""
        hparams, draws = explored(resample())
        assert set(draws) == set(HPARAMS)
        assert hparams["lr"] != HPARAMS["lr"]
        assert explored(resample(0.0)) == (HPARAMS, {})


class TestPerturbOrResample:
    def test_each_value_one_or_the_other(self):
        """Every value is either drawn anew, in one of four cases, or multiplied by its factor."""
        redrawn = 0
        for seed in range(2000):
            hparams, draws = explored(perturb_or_resample((0.5, 2.0), 0.25), seed=seed)
            assert set(draws) == set(HPARAMS)
            if draws["decay"] == RESAMPLED:
                redrawn += 1
                assert hparams["decay"] not in (0.25, 1.0)
            else:
                assert hparams["decay"] == 0.5 * draws["decay"]
        assert stats.binomtest(redrawn, 2000, 0.25).pvalue > 1e-3

    def test_its_ends(self):
        """Without new draws it is `perturb`'s moves, with nothing else it is `resample`."""
        _, draws = explored(perturb_or_resample(probability=0.0))
        assert set(draws.values()) <= {0.8, 1.2}
        _, draws = explored(perturb_or_resample(probability=1.0))
        assert set(draws.values()) == {RESAMPLED}


class TestJitter:
    @given(st.integers(0, 2**32))
    def test_each_value_is_shifted_by_its_draw(self, seed):
        """The recorded shift is the one that the value was moved by, as a share of its range in its scale."""
        hparams, draws = explored(jitter(0.01), seed=seed)
        assert set(draws) == set(HPARAMS)
        assert hparams["decay"] == pytest.approx(0.5 + draws["decay"])
        assert hparams["lr"] == pytest.approx(HPARAMS["lr"] * 1e6 ** draws["lr"])

    def test_shifts_are_normal(self):
        """Shifts have mean zero and the deviation asked for."""
        shifts = [explored(jitter(0.05), seed=seed)[1]["decay"] / 0.05 for seed in range(1500)]
        assert stats.kstest(shifts, "norm").pvalue > 1e-3

    def test_it_leaves_zero_and_breaks_ties(self):
        """A value at zero gets away from it, and two members that start alike part."""
        space = Space({"decay": Float(0.0, 1.0)})
        ends = {explored(jitter(), {"decay": 0.0}, seed=seed, space=space)[0]["decay"] for seed in range(20)}
        assert len(ends) > 5


class TestRandomSubset:
    def test_the_others_keep_their_values(self):
        """Only names in the subset change, and only their draws are recorded; each name is in it by itself."""
        counts = {}
        space = Space({name: domain for name, domain in SPACE.items() if domain.when is None})
        values = {name: HPARAMS[name] for name in space}
        for seed in range(4000):
            hparams, draws = explored(random_subset(perturb((0.5, 2.0)), 0.5), values, seed, space)
            assert all(hparams[name] == HPARAMS[name] for name in hparams if name not in draws)
            assert "decay" not in draws or hparams["decay"] == 0.5 * draws["decay"]
            pattern = ("lr" in draws, "decay" in draws)
            counts[pattern] = counts.get(pattern, 0) + 1
        assert len(counts) == 4
        assert stats.chisquare(list(counts.values())).pvalue > 1e-3

    def test_its_ends(self):
        """Probability 0 changes nothing, probability 1 changes all that the rule changes."""
        assert explored(random_subset(perturb(), 0.0)) == (HPARAMS, {})
        assert set(explored(random_subset(perturb(), 1.0))[1]) == set(HPARAMS)


class TestConditions:
    @pytest.mark.parametrize("rule", CHANGING, ids=repr)
    def test_a_name_comes_and_goes_with_its_condition(self, rule):
        """Where a move switches the optimizer, the momentum leaves or is drawn; both happen."""
        adam = {name: value for name, value in HPARAMS.items() if name != "momentum"} | {"optimizer": "adam"}
        left = [explored(rule, HPARAMS, seed)[0] for seed in range(60)]
        came = [explored(rule, adam, seed)[0] for seed in range(60)]
        for hparams in (*left, *came):
            assert ("momentum" in hparams) == (hparams["optimizer"] == "sgd")
        assert any("momentum" not in hparams for hparams in left)
        assert any("momentum" in hparams for hparams in came)


class TestFixed:
    def test_keep_changes_nothing(self):
        """The same values, and no draws."""
        assert explored(keep()) == (HPARAMS, {})

    @pytest.mark.parametrize(("step", "lr"), [(0, 0.1), (9, 0.1), (10, 0.2), (24, 0.2), (25, 0.3), (99, 0.3)])
    def test_follow_gives_the_values_at_the_step(self, step, lr):
        """The schedule's values from the member's step on, whatever the values were; behind the end the last ones."""
        edges = ((0, 10, 0.1), (10, 25, 0.2), (25, 40, 0.3))
        schedule = Schedule(tuple(Segment(start=a, stop=b, hparams={"lr": value}) for a, b, value in edges))
        assert explored(follow(schedule), {"lr": 0.9}, step=step) == ({"lr": lr}, {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: perturb(()), r"perturb: expected one or more positive factors, got \(\)"),
        (lambda: perturb((0.8, 0.0)), r"positive factors, got \(0.8, 0.0\)"),
        (lambda: perturb((math.nan,)), r"positive factors, got \(nan,\)"),
        (lambda: resample(1.5), "resample: expected a probability from 0 to 1, got 1.5"),
        (lambda: perturb_or_resample(probability=-0.1), "perturb_or_resample: expected a probability .*, got -0.1"),
        (lambda: perturb_or_resample(factors=()), "positive factors"),
        (lambda: random_subset(probability=math.nan), "random_subset: expected a probability .*, got nan"),
        (lambda: jitter(0.0), "jitter: expected a positive deviation, got 0.0"),
        (lambda: jitter(math.nan), "got nan"),
    ],
)
def test_settings_out_of_range(make, message):
    """A rule that makes no sense is refused, with what was expected and what was found."""
    with pytest.raises(UsageError, match=message):
        make()
