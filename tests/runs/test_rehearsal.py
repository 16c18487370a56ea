"""Rules are checked before the first step."""

import logging
from typing import Any

import pytest

import pbt
from pbt.core.exploit import Never, Truncation
from pbt.core.explore import Keep, Perturb
from pbt.errors import SpaceError, UsageError
from pbt.strategies import Backtracking, MultipleFrequencies, augmentation_step, guarded, pareto, since_copy

SPACE = {"lr": pbt.Float(1e-4, 1.0, "log"), "width": pbt.Int(1, 9)}


def trained(rounds: list[int], **asked: Any) -> None:
    """Run a plan and count the rounds that were trained before it was refused."""

    def train(hparams, state, steps, ctx):
        rounds.append(ctx.member)
        return {"n": 0}, float(ctx.member)

    plan = asked["plan"] if "plan" in asked else pbt.Plan(**asked)
    pbt.run(train, SPACE, plan=plan, population=6, rounds=4)


@pytest.mark.parametrize(
    ("plan", "exploit", "explore"),
    [
        (pbt.Plan(exploit=pbt.truncation, explore=pbt.perturb), Truncation(), Perturb()),
        (pbt.Plan(exploit=pbt.never, explore=pbt.keep), pbt.never(), pbt.keep()),
        (pbt.Plan(exploit=Never, explore=Keep), pbt.never(), pbt.keep()),
        (Backtracking(exploit=pbt.truncation, explore=pbt.keep), Truncation(), pbt.keep()),
    ],
)
def test_a_rule_that_is_not_called_is_called(plan: Any, exploit: Any, explore: Any) -> None:
    """A rule passed without parentheses is the rule with its defaults, in every plan."""
    assert (plan.exploit, plan.explore) == (exploit, explore)


def test_rules_inside_rules_are_called_too() -> None:
    """What takes another rule takes it without parentheses as well."""
    assert pbt.random_subset(pbt.keep).rule == pbt.keep()
    assert guarded(pbt.truncation).rule == since_copy(pbt.truncation, 5).rule == pbt.truncation()
    assert augmentation_step(rule=pbt.jitter).rule == pbt.jitter()
    assert MultipleFrequencies(explore=pbt.perturb).explore == pbt.perturb()
    assert pbt.Plan(rank=pareto).rank == pareto()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"exploit": since_copy}, "exploit=SinceCopy"),
        ({"explore": pbt.follow}, "explore=Follow"),
        ({"explore": None}, "explore"),
        ({"exploit": "truncation"}, "exploit"),
        ({"explore": {"lr": pbt.perturb()}}, "one function sets every hyperparameter"),
        ({"interval": 2.5}, "interval"),
        ({"interval": "1 epoch"}, "interval"),
        ({"interval": True}, "interval"),
        ({"burn_in": 2.5}, "burn_in"),
        ({"interval": lambda step: step + 2.5}, r"interval\(0\)"),
        ({"interval": lambda step: step + 1 if step < 3 else step}, r"interval\(3\)"),
        ({"rank": lambda members: [1]}, "rank"),
        ({"rank": dict.fromkeys}, "rank"),
        ({"exploit": lambda member, view: None}, "exploit"),
        ({"exploit": lambda member, view, rng: None}, "Copy"),
        ({"exploit": lambda member, view, rng: pbt.Copy(donor=99)}, "99"),
        ({"explore": lambda hparams: hparams}, "explore"),
        ({"explore": lambda hparams, member, view, rng: hparams}, "hparams, draws"),
        ({"explore": lambda hparams, member, view, rng: ({**hparams, "lr": 7.0}, {})}, "leaves the search space"),
        ({"explore": lambda hparams, member, view, rng: ({"lr": 0.1}, {})}, "width"),
        ({"plan": MultipleFrequencies(frequencies=(1,), explore=lambda hparams: hparams)}, "explore"),
    ],
)
def test_a_wrong_rule_is_refused_before_the_first_step(asked: dict[str, Any], said: str) -> None:
    """A rule that cannot be called, returns something else or leaves the space is a one-line error before training."""
    rounds: list[int] = []
    with pytest.raises(UsageError, match=said) as caught:
        trained(rounds, **{"burn_in": 3} | asked)
    assert rounds == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: pbt.perturb(1.2),
        lambda: pbt.perturb(("a",)),
        lambda: pbt.perturb_or_resample(0.8),
        lambda: pbt.truncation("0.2"),
        lambda: pbt.jitter("a"),
        lambda: pbt.resample("1"),
        lambda: pbt.t_test(alpha=None),
        lambda: guarded(relative="a"),
        lambda: pbt.follow({"lr": 1.0}),
        lambda: Backtracking(interval=2.5),
    ],
)
def test_an_argument_of_another_type_is_a_usage_error(make: Any) -> None:
    """A rule refuses an argument of another type as it refuses a value outside its range."""
    with pytest.raises(UsageError, match="expected"):
        make()


def test_rules_are_rehearsed_as_the_run_will_call_them() -> None:
    """A rule that reads a place of the ranking, the series, the history or its first ready step is not refused."""

    def exploit(member, view, rng):
        assert member.step >= 4
        assert len(member.series) > 1
        assert view.history[member.id]
        return pbt.Copy(donor=view.ranking[5].id)

    rounds: list[int] = []

    def train(hparams, state, steps, ctx):
        rounds.append(ctx.member)
        return {"n": 0}, {"score": float(ctx.member), "series": [1.0, 2.0]}

    plan = pbt.Plan(exploit=exploit, burn_in=3, interval=2, lookback=1)
    pbt.run(train, SPACE, plan=plan, population=6, rounds=4)
    assert len(rounds) == 24


@pytest.mark.parametrize("make", [lambda: pbt.Choice("a", "b"), lambda: pbt.Choice("a", "b", "c", "d")])
def test_options_one_by_one_are_refused(make: Any) -> None:
    """Options that are no tuple are refused with the spelling that is meant."""
    with pytest.raises(SpaceError, match=r"as Choice\(\('a', 'b'"):
        make()


@pytest.mark.parametrize("options", ["abc", {"a", "b"}, 3, {"a": 1}])
def test_options_that_are_no_tuple_are_refused(options: Any) -> None:
    """A text is not split into letters, and a set has no order to keep."""
    with pytest.raises(SpaceError, match="expected"):
        pbt.Choice(options)
    assert pbt.Choice(["a", "b"], True, None) == pbt.Choice(("a", "b"), ordered=True)


def level(caplog: pytest.LogCaptureFixture, scores: Any = lambda member: 0.0, **plan: Any) -> list[str]:
    def train(hparams, state, steps, ctx):
        return {"n": 0}, scores(ctx.member)

    with caplog.at_level(logging.WARNING, logger="pbt"):
        pbt.run(train, SPACE, plan=pbt.Plan(**plan), population=10, rounds=5)
    return [record.getMessage() for record in caplog.records if "nothing evolves" in record.getMessage()]


def test_a_level_population_is_named_once(caplog) -> None:
    """Members that all score alike under a rule that copies no equal are reported once, with the remedy."""
    (said,) = level(caplog)
    assert "ties='copy'" in said
    assert "jitter" in said
    caplog.clear()
    assert level(caplog, exploit=guarded(pbt.binary_tournament()))


def test_other_populations_are_not_called_level(caplog) -> None:
    """Nothing is said where scores differ, where ties are copied, or where nobody copies."""
    assert level(caplog, scores=lambda member: float(member == 3)) == []
    assert level(caplog, exploit=pbt.truncation(ties="copy")) == []
    assert level(caplog, exploit=pbt.never()) == []


def test_a_burn_in_beyond_the_run_is_said(caplog) -> None:
    """A plan that cannot evolve before the run ends is warned about, with the latest burn-in that can."""
    with caplog.at_level(logging.WARNING, logger="pbt"):
        trained([], burn_in=40, interval=10)
        assert "burn_in of at most 30" in caplog.text
        caplog.clear()
        trained([], burn_in=30, interval=10)
    assert "burn_in" not in caplog.text
