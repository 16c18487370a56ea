"""Plans by name: every name makes one that leads a population, and keeps the rounds of the experiment."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

import pbt
from pbt.errors import UsageError
from pbt.strategies.base import Rounds
from pbt.strategies.registry import NEED_A_RUN, PLANS, named
from pbt.testing.problems import TOY_PLAIN, ToyPlain

LIKE = pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.9, 1.1)), interval=20)
TOY = TOY_PLAIN | {"task": ToyPlain(curve=True), "population": 16, "rounds": 3, "plan": LIKE}
MODULES = {path.stem for path in Path(pbt.strategies.base.__file__).parent.glob("*.py")}


def made(name):
    """The plan, with a run where it needs one."""
    source = PLANS[name].source
    of = pbt.run(**TOY | {"plan": named(source, LIKE)}) if source else None
    return named(name, LIKE, of)


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_leads_a_population(name) -> None:
    """Each name makes a strategy with the experiment's rounds, whose description is plain, and which trains."""
    plan = made(name)
    assert [plan.next_ready(step) for step in (0, 40)] == [20, 60]
    assert json.loads(json.dumps(plan.describe()))["name"]
    run = pbt.run(**TOY | {"plan": plan})
    assert len([member for member in run.view.population if member.round == 3]) >= 16
    assert made(name) == plan


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_keeps_the_explore(name) -> None:
    """Where an algorithm has an explore it is the experiment's; only controls have another."""
    plan = made(name)
    if "explore" in {field.name for field in fields(plan)} and not PLANS[name].line.startswith("control"):
        assert plan.explore == LIKE.explore


def test_an_experiment_that_does_not_evolve_has_an_evolving_counterpart() -> None:
    """`own` is the plan itself, `pbt` the default one where nobody copies; algorithms get no rule that keeps."""
    still = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=3)
    assert named("own", still) is still
    assert named("pbt", still) == pbt.Plan(interval=3)
    assert named("pbt", LIKE) is LIKE
    assert named("mf-pbt", still).explore != pbt.keep()


def test_another_algorithm_lends_its_rounds() -> None:
    """A strategy that is no `Plan` can be compared with, too."""
    assert named("pbt", Rounds(interval=6)) == pbt.Plan(interval=6)
    assert named("mf-pbt", Rounds(interval=6)).interval == 6


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    """A slip of the finger is answered by the name that was meant."""
    with pytest.raises(UsageError, match="got 'no-evolutoin'; did you mean 'no-evolution'"):
        named("no-evolutoin", LIKE)


def test_a_run_is_asked_for_where_it_is_needed_and_nowhere_else() -> None:
    """Controls that follow what was found need a run; all other plans refuse one."""
    run = pbt.run(**TOY)
    for name in NEED_A_RUN:
        with pytest.raises(UsageError, match="expected a finished run"):
            named(name, LIKE)
    with pytest.raises(UsageError, match="a run is for constant, replay, final"):
        named("pbt", LIKE, run)


def test_rounds_of_unequal_length_are_refused_by_name() -> None:
    """An algorithm of whole rounds says that it cannot lead an experiment whose interval is a function."""
    with pytest.raises(UsageError, match="PB2: expected a plan with rounds of equal length"):
        named("pb2", pbt.Plan(interval=lambda step: step + 1))


def test_asking_for_one_plan_imports_no_other() -> None:
    """The registry itself imports only the controls."""
    assert {"mf_pbt", "pb2", "fire"} <= MODULES
    text = Path(pbt.strategies.registry.__file__).read_text()
    assert [line for line in text.splitlines() if line.startswith("from pbt.strategies")] == [
        "from pbt.strategies import controls"
    ]
