"""What docs/command.md and examples/command promise."""

import re
import runpy
import sys

import pytest

import pbt
from pbt.runs.advice import UNREAD
from pbt.tasks.command.config import read_config
from pbt.tasks.command.template import PLACEHOLDERS
from pbt.testing.invariants import violations
from tests.docs.recipe_trainers import TRAINERS
from tests.helpers.paths import DOCS, ROOT

FOLDER = ROOT / "examples" / "command"
PAGE = (DOCS / "command.md").read_text(encoding="utf-8")


def blocks(language):
    """The code blocks of the page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def files_of(run, state):
    """The bytes of the files in a state, by name."""
    return {path.name: path.read_bytes() for path in run.load_state(state).path.iterdir()}


def trained(rounds, run_dir=None):
    """The example with one member that keeps its values, over so many rounds of altogether 80 steps."""
    experiment = read_config(FOLDER / "pbt.toml")
    return pbt.run(
        experiment.task,
        experiment.space,
        plan=pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=80 // rounds),
        population=1,
        rounds=rounds,
        initial=[{"lr": 0.1, "decay": 1e-5}],
        placement=pbt.Placement(threads=1),
        run_dir=run_dir,
    )


def test_the_example_trains(tmp_path) -> None:
    """The script of the example learns and resumes, its rates are read back, and the run is sound."""
    found = trained(2, tmp_path / "run")
    assert found.best.score > 0.8
    assert violations(tmp_path / "run") == []
    assert [entry.kind for entry in found.journal() if entry.kind == UNREAD] == []


@pytest.mark.slow
def test_the_example_resumes_exactly() -> None:
    """Four rounds leave the very checkpoint of one round of the same length."""
    found = [trained(rounds) for rounds in (4, 1)]
    first, second = (files_of(run, run.view.members[0].state) for run in found)
    assert first == second
    assert found[0].view.members[0].scores == found[1].view.members[0].scores


def test_all_placeholders_are_listed() -> None:
    """The table of placeholders has every one, and nothing else."""
    table = re.findall(r"^\| `\{(\w+)\}`", PAGE, re.MULTILINE)
    assert sorted(table) == sorted(PLACEHOLDERS)


def test_the_files_of_the_page_are_valid(tmp_path) -> None:
    """Each pbt.toml of the page can be read."""
    assert blocks("toml")
    for text in blocks("toml"):
        (tmp_path / "pbt.toml").write_text(text)
        read_config(tmp_path / "pbt.toml")


def test_the_program_of_the_page_runs(tmp_path, monkeypatch) -> None:
    """The Python of the page trains the script that stands beside it."""
    script, program = blocks("python")
    (tmp_path / "train.py").write_text(script)
    (tmp_path / "search.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["search.py"])
    found = runpy.run_path("search.py")
    assert found["run"].best.score > 0.5


def recipe(folder, name):
    """The experiment of a recipe, with its script in this folder."""
    page = (DOCS / "recipes" / f"{name}.md").read_text(encoding="utf-8")
    assert "was not run" in page
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (script,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (folder / TRAINERS[name][2]).write_text(script)
    (folder / "pbt.toml").write_text(re.sub(r"\./isaaclab\.sh -p|\bpython (?=sf_)", f"{sys.executable} ", text))
    return read_config(folder / "pbt.toml")


@pytest.mark.parametrize("name", TRAINERS)
def test_the_recipes_are_valid(tmp_path, name) -> None:
    """The pbt.toml of each recipe can be read, and its placeholders fit its space."""
    experiment = recipe(tmp_path, name)
    experiment.task.check_data(experiment.population, experiment.space)
    experiment.task.check({})


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_the_scripts_of_recipes(tmp_path, name) -> None:
    """Over a stand-in that restores the donor's rate, the decided rate is in effect and read back, in every round."""
    experiment = recipe(tmp_path, name)
    file, text, _ = TRAINERS[name]
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(text)
    plan = pbt.Plan(exploit=pbt.never(), explore=pbt.perturb((0.5,)), interval=10)
    found = pbt.run(experiment.task, experiment.space, plan=plan, population=1, rounds=3, run_dir=tmp_path / "run")
    assert found.best.score == 45
    assert len({segment.hparams["learning_rate"] for segment in found.lineage()}) == 3
    (unread,) = [entry.details["names"] for entry in found.journal() if entry.kind == UNREAD]
    assert "learning_rate" not in unread
    state = found.load_state(found.best)
    assert len(list(state.path.rglob("*.pt*"))) == 1
