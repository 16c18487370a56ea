"""docs/from-ray-tune.md: its program runs, its table names what there is, and its traps are Ray's."""

import inspect
import random
import re

import pytest

import pbt
from tests.helpers.paths import DOCS

PAGE = (DOCS / "from-ray-tune.md").read_text(encoding="utf-8")
(PROGRAM,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_program_trains(capsys):
    found = {}
    exec(compile(PROGRAM, "docs/from-ray-tune.md", "exec"), found)
    assert found["run"].best.score > -0.1
    assert "lr" in capsys.readouterr().out


@pytest.mark.needs("ray")
def test_every_argument_of_ray_has_a_row():
    from ray.tune.schedulers import PopulationBasedTraining

    table = PAGE[PAGE.index("## Arguments") : PAGE.index("## Traps")]
    names = set(inspect.signature(PopulationBasedTraining.__init__).parameters) - {"self", "require_attrs"}
    assert {name for name in names if f"`{name}" not in table.replace("=", "`")} == set()


@pytest.mark.needs("ray")
def test_the_traps_are_there():
    """What the page says of Ray's perturbations, and what ours do with the same values."""
    from ray import tune
    from ray.tune.schedulers.pbt import _explore

    random.seed(0)

    def theirs(value, domain):
        return {_explore({"x": value}, {"x": domain}, 0.0, (1.2, 0.8), None)[0]["x"] for _ in range(20)}

    def ours(value, domain):
        view = pbt.core.population.View(seed=0, round=1, space=pbt.Space({"x": domain}), members=())
        member = pbt.core.population.Member(id=0, hparams={"x": value})
        rule = pbt.perturb((1.2, 0.8))
        return {rule({"x": value}, member, view, pbt.core.rng.Rng(0, i))[0]["x"] for i in range(20)}

    assert max(theirs(0.9, tune.uniform(0.0, 1.0))) > 1.0
    assert max(ours(0.9, pbt.Float(0.0, 1.0))) <= 1.0
    assert theirs(2, tune.randint(1, 10)) == {2}
    assert ours(2, pbt.Int(1, 10)) == {1, 3}
    assert theirs(0.0, tune.uniform(0.0, 1.0)) == {0.0}
    assert max(ours(0.0, pbt.Float(0.0, 1.0))) > 0.0
    assert theirs(10, tune.choice([1, 10, 100])) == {8, 12}
    assert ours(10, pbt.Choice([1, 10, 100])) <= {1, 10, 100}
