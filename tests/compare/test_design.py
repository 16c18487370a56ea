"""What a comparison trains, and what is refused before anything is."""

from dataclasses import replace
from pathlib import Path

import pytest

import pbt
from pbt.compare.design import FRESH, Design, experiment_of, next_trial, planned, planned_again
from pbt.errors import UsageError
from pbt.runs.placement import Placement


def design(*plans, **options):
    """A comparison on the noisy quadratic model."""
    return Design(**{"task": "nqm", "asked": plans, "seeds": (0, 1), "out": Path("out")} | options)


def test_every_plan_gets_every_seed() -> None:
    """Each plan and seed is one run, in a directory named by both."""
    trials = design("pbt", "no-evolution").trials()
    assert [(t.plan, t.seed, str(t.path)) for t in trials] == [
        ("pbt", 0, "out/pbt/seed-0"),
        ("no-evolution", 0, "out/no-evolution/seed-0"),
        ("pbt", 1, "out/pbt/seed-1"),
        ("no-evolution", 1, "out/no-evolution/seed-1"),
    ]
    assert {t.source for t in trials} == {None}


def test_what_is_needed_is_added_and_comes_first() -> None:
    """Plans that follow what was found bring the plan that finds it, are trained after it, and with another seed."""
    made = design("final", "constant", "tournament")
    assert made.plans == ["final", "constant", "tournament", "pbt", "no-evolution"]
    order = [t.plan for t in made.trials() if t.seed == 0]
    assert order == ["tournament", "pbt", "no-evolution", "final", "constant"]
    by_plan = {t.plan: t for t in made.trials() if t.seed == 1}
    assert by_plan["constant"].source == Path("out/no-evolution/seed-1")
    assert by_plan["final"].source == Path("out/pbt/seed-1")
    assert by_plan["final"].trained_with == FRESH + 1 != by_plan["pbt"].trained_with == 1


def test_an_algorithm_of_ones_own_is_the_one_that_is_replayed() -> None:
    """Where `own` is compared and `pbt` is not, it is the own plan's schedule that is followed."""
    assert design("own", "replay").plans == ["own", "replay"]
    assert design("own", "pbt", "replay").source("replay") == "pbt"


def test_what_waits_for_its_source() -> None:
    """A run is handed out when what it is made of is finished."""
    waiting = [t for t in design("replay").trials() if t.plan == "replay"]
    assert next_trial(waiting, set()) is None
    assert next_trial(waiting, {Path("out/pbt/seed-1")}).seed == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"asked": ("pbt", "pbt")}, "expected each name once, got 'pbt' twice"),
        ({"asked": ()}, "at least one plan"),
        ({"seeds": ()}, "at least one plan and one seed"),
        ({"seeds": (-1, 0)}, "expected 0 to 999999"),
        ({"seeds": (FRESH,)}, "expected 0 to 999999"),
    ],
)
def test_nonsense_is_refused(options, message) -> None:
    """Nothing to compare, the same thing twice, and seeds that others need."""
    with pytest.raises(UsageError, match=message):
        design("pbt", **options)


@pytest.mark.parametrize(
    ("plans", "options", "message"),
    [
        (("pbt", "pbd"), {}, "did you mean 'pbt'"),
        (("pbt", "mf-pbt"), {"population": 7}, "plan mf-pbt: .*population"),
    ],
)
def test_a_plan_that_cannot_lead_is_found_before_the_start(plans, options, message) -> None:
    """An unknown plan, and one whose population cannot be split, are named."""
    made = design(*plans, **options)
    with pytest.raises(UsageError, match=message):
        made.check(made.experiment())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("nqn", "or the name of a problem, got 'nqn'; did you mean 'nqm'"),
        ("nowhere.py:thing", "expected a Python file, found none"),
        ("task.py", "expected task.py:object"),
    ],
)
def test_an_unknown_task(task, message) -> None:
    """A task that is none is answered by what would be one."""
    with pytest.raises(UsageError, match=message):
        experiment_of(task)


def test_all_runs_are_trained_in_the_same_way(monkeypatch) -> None:
    """One thread, one process; one program for all members stays one."""
    own = experiment_of("nqm")
    for executor, expected in (("auto", "inline"), ("processes", "inline"), ("vectorized", "vectorized")):
        placed = replace(own, placement=Placement(executor=executor, workers=4, device="cpu"))
        monkeypatch.setattr("pbt.compare.design.experiment_of", lambda task, placed=placed: placed)
        found = design("pbt", population=5, rounds=2).experiment()
        assert (found.placement.executor, found.placement.threads, found.placement.device) == (expected, 1, "cpu")
        assert (found.population, found.rounds) == (5, 2)


def test_values_to_start_with_do_not_come_before_a_schedule() -> None:
    """A plan that follows what was found starts all members with it; every other keeps the given values."""
    own = replace(experiment_of("nqm"), population=3, rounds=2, initial=[{"lr": 1e-4}])
    found = planned(own, "no-evolution").run()
    assert found.tree.births[0].hparams["lr"] == 1e-4
    again = planned(own, "constant", found).run()
    assert {b.hparams["lr"] for b in again.tree.births.values()} == {found.best.hparams["lr"]}


def test_a_run_goes_on_under_the_plan_it_names() -> None:
    """What a run recorded names its plan; an experiment under none is left as it is; a stranger's name is refused."""
    own = experiment_of("nqm")
    assert planned_again(own, {"application": None}) is own
    tournament = planned_again(own, {"application": {"plan": "tournament"}, "plan": {}})
    assert tournament.plan.exploit == pbt.binary_tournament()
    with pytest.raises(UsageError, match="name of a plan"):
        planned_again(own, {"application": {"plan": ["pbt"]}, "plan": {}})
    with pytest.raises(UsageError, match="follows a schedule"):
        planned_again(own, {"application": {"plan": "replay"}, "plan": own.plan.describe()})
