"""What a strategy needs and an experiment lacks is found before the start, and named."""

import pytest

import pbt
from pbt import Choice, Float, Plan
from pbt.core.needs import Needs
from pbt.errors import UsageError
from pbt.strategies import since_copy, trimmed_deviation
from pbt.strategies.registry import NEED_A_RUN, PLANS, named

OWN = Plan(exploit=pbt.truncation(0.25), interval=1)
MADE = {name: named(name, OWN, rounds=4) for name in PLANS if name not in NEED_A_RUN}
MADE |= {"since a copy": Plan(exploit=since_copy(trimmed_deviation(), steps=2))}
CHOICES = {"rule": Choice(["a", "b", (1, 2)])}
MIXED = {"x": Float(0, 1), **CHOICES}
ONE_IS_ENOUGH = {"own", "pbt", "no-evolution", "selection-only", "explore-only", "guarded"}
"""Plans whose population of one is ordinary training."""
FEWEST = {"mf-pbt": 16, "ipbt": 3, "fire": 4, "backtracking": 5}
NAMES = {
    "mf-pbt": "MultipleFrequencies", "ipbt": "IPBT", "pb2": "PB2", "bg-pbt": "BGPBT", "pb2-mix": "PB2Mix",
    "fire": "Fire", "backtracking": "Backtracking", "gpbt-pl": "PairwiseLearning", "tournament": "binary_tournament",
    "t-test": "t_test", "since a copy": "trimmed_deviation",
}  # fmt: skip
SERIES = {"t-test": 2, "fire": 3}


class Silent:
    """A task whose reports have no series, and that says so."""

    returns_series = False

    def __call__(self, hparams, state, steps, ctx):
        return {"at": ctx.round}, float(ctx.member)


def scored(hparams, state, steps, ctx):
    return {"at": ctx.round}, {"score": hparams.get("x", 0.5), "series": [0.1, 0.2, 0.3, 0.4]}


@pytest.mark.parametrize("name", MADE)
def test_too_few_members(name, tmp_path):
    """Each strategy refuses fewer members than it can select from, or trains the smallest population."""
    fewest = 1 if name in ONE_IS_ENOUGH else FEWEST.get(name, 2)
    if fewest > 1:
        with pytest.raises(UsageError, match=rf"^{NAMES[name]}: expected a population .*got {fewest - 1};"):
            pbt.run(scored, MIXED, plan=MADE[name], population=fewest - 1, rounds=2, run_dir=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    assert pbt.run(scored, MIXED, plan=MADE[name], population=fewest, rounds=3).view.ended


@pytest.mark.parametrize("name", MADE)
def test_a_space_without_numbers(name, tmp_path):
    """PB2 models nothing but numbers; all others train a space of choices, and one without any hyperparameter."""
    for space, found in ((CHOICES, "only choices: rule"), ({}, "none")):
        if name == "pb2":
            with pytest.raises(UsageError, match=rf"^PB2: expected a space with a Float or an Int, got {found}"):
                pbt.run(scored, space, plan=MADE[name], population=16, run_dir=tmp_path / "run")
            assert not (tmp_path / "run").exists()
        else:
            assert pbt.run(scored, space, plan=MADE[name], population=16, rounds=3).view.ended


@pytest.mark.parametrize("name", MADE)
def test_a_task_without_a_series(name, tmp_path):
    """A task that says that it has no series is refused before the start, one that shows it after its first round."""
    settings = {"plan": MADE[name], "population": 16, "rounds": 3}
    if name not in SERIES:
        assert pbt.run(Silent(), MIXED, **settings).view.ended
        return
    match = rf"^{NAMES[name]}: expected .*at least {SERIES[name]} (values|points) of 'series' in a report, got"
    with pytest.raises(UsageError, match=match + " Silent, which returns none"):
        pbt.run(Silent(), MIXED, run_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=match):
        pbt.run(lambda hparams, state, steps, ctx: (state, 1.0), MIXED, **settings)


def test_ready_made_tasks_say_that_they_have_no_series():
    """Under `SupervisedTask`, nothing is trained before the refusal."""
    assert pbt.SupervisedTask.returns_series is False


def test_a_rule_of_your_own_has_needs(tmp_path):
    """`needs` of a user's strategy, and of a rule inside another rule, is checked like those of the package."""

    def rule(member, view, rng):
        return pbt.Stay()

    rule.needs = Needs(name="mine", members=7, numbers=True)
    plan = Plan(exploit=since_copy(rule, steps=3))
    with pytest.raises(UsageError, match=r"^mine: expected a population of at least 7, got 6"):
        pbt.run(scored, MIXED, plan=plan, population=6, run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match=r"^mine: expected a space with a Float or an Int"):
        pbt.run(scored, CHOICES, plan=plan, population=7)
