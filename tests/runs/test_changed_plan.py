"""What a resume compares, and what it does about a difference."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pbt
from pbt.core.describe import describe, difference
from pbt.errors import UsageError
from pbt.store.sqlite import RunStore

SPACE = {"x": pbt.Float(0.001, 1.0, "log")}


def train(hparams, state, steps, ctx):
    return {"n": (state or {"n": 0})["n"] + steps}, float(hparams["x"])


def moved(factor, hparams, member, view, rng, *, shift=0.0):
    return {"x": view.space["x"].clip(hparams["x"] * factor + shift)}, {"x": factor}


def closed_over(factor: Any) -> Callable[..., Any]:
    def explore(hparams, member, view, rng):
        return moved(getattr(factor, "factor", factor), hparams, member, view, rng)

    return explore


def defaulted(factor: float) -> Callable[..., Any]:
    def explore(hparams, member, view, rng, factor=factor):
        return moved(factor, hparams, member, view, rng)

    return explore


class Held:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, hparams, member, view, rng):
        return moved(self.factor, hparams, member, view, rng)

    def method(self, hparams, member, view, rng):
        return moved(self.factor, hparams, member, view, rng)


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, hparams, member, view, rng):
        return moved(self.factor, hparams, member, view, rng)


@dataclass(frozen=True)
class Record:
    factor: float

    def __call__(self, hparams, member, view, rng):
        return moved(self.factor, hparams, member, view, rng)


def compiled(factor: float) -> Callable[..., Any]:
    """A function without source."""
    names: dict[str, Any] = {"moved": moved}
    exec(f"def explore(hparams, member, view, rng): return moved({factor}, hparams, member, view, rng)", names)
    function: Callable[..., Any] = names["explore"]
    return function


RULES: list[Callable[[float], Any]] = [
    closed_over,
    lambda factor: closed_over([factor, 1.0][0]),
    lambda factor: closed_over(SimpleNamespace(factor=factor)),
    lambda factor: closed_over(Record(factor)),
    defaulted,
    Held,
    lambda factor: Held(factor).method,
    Slotted,
    Record,
    compiled,
    lambda factor: partial(moved, factor),
    lambda factor: partial(moved, 0.5, shift=factor / 100),
    lambda factor: pbt.random_subset(closed_over(factor)),
    lambda factor: (
        (lambda hparams, member, view, rng: (dict(hparams), {}))
        if factor == 0.5
        else (lambda hparams, member, view, rng: ({"x": 0.5}, {}))
    ),
]


def begun(path: Path, **asked: Any) -> pbt.Run:
    plan = {"exploit": pbt.truncation(0.5)} | asked.pop("plan", {})
    return pbt.run(train, SPACE, run_dir=path, **{"plan": pbt.Plan(**plan), "population": 4, "rounds": 3} | asked)


@pytest.mark.parametrize("make", RULES)
def test_a_rule_is_what_it_computes(make: Callable[[float], Any]) -> None:
    """Equal rules made twice have one description; other settings, closures, attributes, arguments or code another."""
    assert describe(make(0.5)) == describe(make(0.5))
    assert difference(describe(make(0.5)), describe(make(0.5)), "rule") is None
    assert difference(describe(make(0.5)), describe(make(2.0)), "rule") is not None
    assert "0x" not in repr(describe(make(0.5)))


def test_a_function_that_closes_over_itself_is_described() -> None:
    """Circles and large objects end in the name of what they are."""
    held: dict[str, Any] = {}

    def rule(step):
        return held["rule"](step) if step else step

    held["rule"] = rule
    wide = closed_over([[list(range(50)) for _ in range(50)] for _ in range(50)])
    assert describe(rule) == describe(rule)
    assert len(repr(describe(wide))) < 200_000


@pytest.mark.parametrize("make", [RULES[0], RULES[5], RULES[13]])
def test_another_rule_is_refused_by_its_one_field(tmp_path: Path, make: Callable[[float], Any]) -> None:
    """A resume under another rule is refused; the message names the field alone, on one line."""
    begun(tmp_path / "run", plan={"explore": make(0.5)})
    with pytest.raises(UsageError, match=r"plan\.explore") as caught:
        begun(tmp_path / "run", plan={"explore": make(2.0)}, rounds=5, resume=True)
    assert "exploit" not in str(caught.value)
    assert "--changed-plan" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert begun(tmp_path / "run", plan={"explore": make(0.5)}, rounds=5, resume=True).meta["rounds"] == 5


def test_another_setting_is_named_with_both_values(tmp_path: Path) -> None:
    """The difference of a setting is told as the value before and the value of now."""
    begun(tmp_path / "run", plan={"interval": lambda step: step + 1})
    with pytest.raises(UsageError, match=r"plan\.interval"):
        begun(tmp_path / "run", plan={"interval": lambda step: step + 100}, resume=True)
    begun(tmp_path / "other")
    with pytest.raises(UsageError, match=r"plan\.exploit\.fraction = 0\.5.* 0\.25"):
        begun(tmp_path / "other", plan={"exploit": pbt.truncation(0.25)}, resume=True)


def test_a_changed_plan_can_be_accepted(tmp_path: Path, caplog) -> None:
    """`changed_plan=True` resumes under the other plan; a warning, the journal and the record say which field it is."""
    begun(tmp_path / "run")
    with caplog.at_level(logging.WARNING, logger="pbt"):
        changed = {"plan": {"exploit": pbt.truncation(0.25)}, "rounds": 5, "resume": True}
        run = begun(tmp_path / "run", changed_plan=True, **changed)
    change = {"field": "plan.exploit.fraction", "before": 0.5, "now": 0.25}
    assert "plan.exploit.fraction" in caplog.text
    assert run.meta["changed_plan"] == [change]
    assert run.meta["plan"]["exploit"]["fraction"] == 0.25
    with RunStore.open(tmp_path / "run") as store:
        assert [entry.details for entry in store.journal() if entry.kind == "changed_plan"] == [change]
    caplog.clear()
    assert begun(tmp_path / "run", **changed).meta["changed_plan"] == [change]
    assert caplog.text == ""


@pytest.mark.parametrize("other", [{"population": 5}, {"seed": 3}, {"objective": "minimize"}])
def test_only_the_plan_can_change(tmp_path: Path, other: dict[str, Any]) -> None:
    """Another population, seed or objective is refused whatever `changed_plan` says."""
    begun(tmp_path / "run")
    with pytest.raises(UsageError, match=next(iter(other))):
        begun(tmp_path / "run", resume=True, changed_plan=True, **other)


@pytest.mark.parametrize("rounds", [1, 2])
def test_fewer_rounds_are_refused(tmp_path: Path, rounds: int) -> None:
    """A resume with fewer rounds than the run was begun with is refused, not ignored."""
    begun(tmp_path / "run")
    with pytest.raises(UsageError, match=f"3 rounds.* got rounds={rounds}"):
        begun(tmp_path / "run", resume=True, rounds=rounds)


def test_runs_of_earlier_versions_resume(tmp_path: Path) -> None:
    """A record that names a function by its place alone, or lacks newer fields, does not stop a resume."""
    rules = {"explore": closed_over(0.5), "rank": sorted_by_id}
    run = begun(tmp_path / "run", plan=rules)
    plan = dict(run.meta["plan"])
    assert set(plan["explore"]) >= {"name", "code", "closure"}
    older = plan | {"explore": plan["explore"]["name"], "rank": plan["rank"]["name"]}
    with RunStore.open(tmp_path / "run") as store:
        store.update_meta(plan=older)
    assert begun(tmp_path / "run", plan=rules, rounds=5, resume=True).meta["rounds"] == 5
    with pytest.raises(UsageError, match=r"plan\.explore"):
        begun(tmp_path / "run", plan=rules | {"explore": pbt.keep()}, rounds=5, resume=True)


def sorted_by_id(members):
    return sorted(members, key=lambda member: (-member.score, member.id))
