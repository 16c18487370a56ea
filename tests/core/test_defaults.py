"""The defaults of plans and rules, the bounds of their settings at equality, and records that cannot be changed."""

import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Callable
from typing import Any, Literal

import pytest

import pbt.core
from pbt.core import explore
from pbt.core.ages import WHOLE, _size
from pbt.core.exploit import AtRandom, Stay, Truncation, TTest, at_random, t_test, truncation, welch_p
from pbt.core.explore import Jitter, Perturb, PerturbOrResample, RandomSubset, Resample
from pbt.core.population import Member, StateRef, View, by_score
from pbt.core.rng import Rng
from pbt.core.strategy import Plan
from pbt.core.t_distribution import two_sided_p
from pbt.domains import Choice, Float, Int
from pbt.errors import SpaceError, UsageError
from pbt.space import Space

DEFAULTS: dict[type, dict[str, Any]] = {
    Plan: {
        "exploit": Truncation(),
        "explore": Perturb(),
        "interval": 1,
        "burn_in": 0,
        "mode": "sync",
        "inherit": "both",
        "rank": by_score,
        "lookback": 0,
        "age_gap": 0,
    },
    Truncation: {"fraction": 0.2, "ties": "stay"},
    TTest: {"alpha": 0.05, "one_sided": False, "last": 10},
    AtRandom: {"fraction": 0.2},
    Perturb: {"factors": (0.8, 1.2)},
    Resample: {"probability": 1.0},
    PerturbOrResample: {"factors": (0.8, 1.2), "probability": 0.25},
    Jitter: {"deviation": 0.1},
    RandomSubset: {"rule": Perturb(), "probability": 0.5},
}
DOMAINS = (Float(0.0, 1.0), Int(1, 4), Choice((1, 2)))


@pytest.mark.parametrize("record", DEFAULTS, ids=lambda record: record.__name__)
def test_the_defaults(record: type) -> None:
    """Each setting that is not given is the documented one."""
    made = record()
    assert {field.name: getattr(made, field.name) for field in dataclasses.fields(made)} == DEFAULTS[record]


def test_the_defaults_of_domains() -> None:
    """Domains are linear, without a prior of their own and without a condition; choices are not ordered."""
    assert [(domain.scale, domain.prior, domain.when) for domain in DOMAINS[:2]] == [("linear", None, None)] * 2
    assert (DOMAINS[2].ordered, DOMAINS[2].when) == (False, None)


def test_records_are_frozen() -> None:
    """No record of the core and no domain can be changed: what was decided stays what it was."""
    modules = [importlib.import_module(f"pbt.core.{found.name}") for found in pkgutil.iter_modules(pbt.core.__path__)]
    records = {
        value
        for module in (*modules, *map(importlib.import_module, ("pbt.domains", "pbt.space")))
        for value in vars(module).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__
    }
    assert len(records) > 30
    assert [record.__name__ for record in records if not record.__dataclass_params__.frozen] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plan(interval=1),
        lambda: Plan(burn_in=0, lookback=0),
        lambda: Plan(mode="async", age_gap=1),
        lambda: truncation(0),
        lambda: truncation(0.5),
        lambda: at_random(0.5),
        lambda: t_test(last=2),
        lambda: Resample(0),
        lambda: Resample(1),
        lambda: Float(0.0, 1.0, prior=(0.0, 1.0)),
        lambda: Float(0.0, 1.0, prior=(0.5, 0.5)),
        lambda: Int(1, 2, "log"),
    ],
)
def test_the_bound_itself_is_allowed(make: Callable[[], object]) -> None:
    """The smallest and the largest setting that makes sense is accepted."""
    make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plan(interval=0),
        lambda: Plan(interval=True),
        lambda: Plan(interval=1.5),
        lambda: Plan(burn_in=-1),
        lambda: Plan(lookback=-1),
        lambda: Plan(burn_in=0.5),
        lambda: Plan(mode="sync", age_gap=1),
        lambda: truncation(math.nextafter(0.5, 1)),
        lambda: truncation(math.nextafter(0, -1)),
        lambda: at_random(math.nextafter(0.5, 1)),
        lambda: t_test(last=1),
        lambda: t_test(alpha=0),
        lambda: t_test(alpha=1),
        lambda: Resample(math.nextafter(1, 2)),
        lambda: Resample(math.nextafter(0, -1)),
        lambda: Resample(True),
    ],
)
def test_beyond_the_bound_is_refused(make: Callable[[], object]) -> None:
    """The next setting beyond the bound, and one of another type, is refused."""
    with pytest.raises(UsageError, match=r"got|negative"):
        make()


@pytest.mark.parametrize("given", [10, 9, 10.5, True, None, "11"])
def test_the_next_ready_step_is_later(given: object) -> None:
    """A function of the interval must give a whole number above the step."""
    assert Plan(interval=lambda step: step + 1).next_ready(10) == 11
    with pytest.raises(UsageError, match=r"interval\(10\) to give a later step"):
        Plan(interval=lambda step: given).next_ready(10)


class Lowest(Rng):
    """Every draw is the lowest that there is."""

    def random(self) -> float:
        return 0.0


@pytest.mark.parametrize("rule", [Resample(0.0), RandomSubset(Perturb(), 0.0), PerturbOrResample((0.5, 2.0), 0.0)])
def test_probability_zero_is_never(rule: explore.Explore) -> None:
    """With probability 0 nothing is chosen, not even by the lowest draw."""
    view = View(seed=0, space=Space({"lr": Float(0.0, 1.0)}))
    _, draws = rule({"lr": 0.5}, Member(id=0, hparams={"lr": 0.5}), view, Lowest(0))
    assert explore.RESAMPLED not in draws.values()
    assert not draws or isinstance(rule, PerturbOrResample)


@pytest.mark.parametrize(
    "answer",
    [[{"lr": 0.5}, {}], ({"lr": 0.5},), ({"lr": 0.5}, {}, {}), ({"lr": 0.5}, None), (0.5, {}), {"lr": 0.5}, None],
)
def test_an_explore_rule_returns_two_mappings(answer: object) -> None:
    """Whatever else a rule returns is refused, by the name of the rule."""

    def mine(*_: object) -> Any:
        return answer

    view = View(seed=0, space=Space({"lr": Float(0.0, 1.0)}))
    with pytest.raises(UsageError, match=r"mine: expected an explore rule to return \(hparams, draws\)"):
        explore.explored(mine, {"lr": 0.5}, Member(id=0, hparams={"lr": 0.5}), view, Rng(0))


def test_a_p_value_at_alpha_is_not_significant() -> None:
    """A p-value equal to alpha does not copy; the next larger alpha does. One-sided, half of it counts."""
    low, high = (0.1, 0.4, 0.2, 0.35), (0.3, 0.5, 0.45, 0.6)
    members = tuple(
        Member(id=i, hparams={}, scores=(series[-1],), series=series, state=StateRef(i, 1), round=1)
        for i, series in enumerate((low, high))
    )
    view = View(seed=0, space=Space({}), members=members)
    p = welch_p(high, low)
    for alpha, one_sided in ((p, False), (p / 2, True)):
        at, above = (TTest(a, one_sided=one_sided) for a in (alpha, math.nextafter(alpha, 1)))
        assert isinstance(at(members[0], view, Rng(0)), Stay)
        assert not isinstance(above(members[0], view, Rng(0)), Stay)


def test_the_ends_of_the_t_distribution() -> None:
    """No difference has the p-value 1, an infinite one 0."""
    assert two_sided_p(0.0, 5.0) == 1.0
    assert two_sided_p(math.inf, 5.0) == 0.0


@pytest.mark.parametrize(("gap", "near"), [(4, {0}), (5, {0, 1}), (10, {0, 1, 2}), (11, {0, 1, 2, 3})])
def test_an_age_gap_includes_its_bound(gap: int, near: set[int]) -> None:
    """A rule sees the member itself and those at most so many steps older or younger."""
    seen: list[set[int]] = []

    def watching(member: Member, view: View, rng: Rng) -> Stay:
        seen.append({other.id for other in view.population})
        return Stay()

    members = tuple(
        Member(id=i, hparams={}, step=step, scores=(0.5,), state=StateRef(i, 1), round=1)
        for i, step in enumerate((20, 25, 10, 31))
    )
    mode: Literal["async"] = "async"
    Plan(exploit=watching, mode=mode, age_gap=gap).decide(View(seed=0, space=Space({}), members=members), members[:1])
    assert seen == [near]


def test_the_sizes_of_cohorts() -> None:
    """Two thirds of the population, rounded up, and the rest take turns; a small population is one cohort."""
    assert [_size(30, before) for before in range(4)] == [20, 10, 20, 10]
    assert [_size(31, before) for before in range(2)] == [21, 10]
    assert [_size(WHOLE, before) for before in range(3)] == [WHOLE] * 3
    assert _size(WHOLE + 1, 0) < WHOLE + 1


def test_a_choice_by_position() -> None:
    """Order and condition can be given by position; options that are not one tuple are refused as they were written."""
    choice = Choice(("a", "b"), True, ("rule", "x"))
    assert (choice.options, choice.ordered, choice.when) == (("a", "b"), True, ("rule", "x"))
    assert Choice(("a", "b"), True).when is None
    with pytest.raises(SpaceError, match=r"as Choice\(\('a', 'b'\)\), got Choice\('a', 'b'\)"):
        Choice("a", "b")  # type: ignore[arg-type]
    with pytest.raises(SpaceError, match=r"as Choice\(\('a',\)\), got Choice\('a'\)"):
        Choice("a")
