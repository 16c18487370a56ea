"""Every file in `examples/` on a small setting: it runs, it learns, and what it leaves is a sound run."""

import ast
import math
import runpy
import subprocess
import sys
from functools import partial

import pytest

import pbt
from pbt.cli.app import main
from pbt.core.events import Reported
from pbt.testing.invariants import violations
from tests.helpers.paths import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
README = (ROOT / "README.md").read_text()
WANTED = {"own_loop", "cartpole", "adapters", "gan", "partial_fit", "discount", "conditional", "quadrants"}
SMALL = {"population": 4, "rounds": 3}

each = pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)


def best_of_rounds(run):
    """The highest score of each round, first to last."""
    scores = {}
    for event in run.events:
        if isinstance(event, Reported):
            scores.setdefault(event.round, []).append(event.scores[0])
    return [max(scores[number]) for number in sorted(scores)]


def test_the_examples_are_all_there():
    """What the list of examples promises is in the folder; this module runs whatever is in it."""
    assert {file.stem for file in EXAMPLES} >= WANTED
    assert {file.suffix for file in (ROOT / "examples").iterdir() if file.is_file()} == {".py", ".ipynb"}


@pytest.mark.long
@each
def test_an_example_is_trained_by_the_command(file, tmp_path):
    """`pbt run` ends well, every score is finite, the last round beats the first, and no invariant is violated."""
    out = tmp_path / "run"
    small = f"--population {SMALL['population']} --rounds {SMALL['rounds']} --threads 1 --quiet".split()
    assert main(["run", f"{file}:experiment", "--out", str(out), *small]) == 0
    run = pbt.Run.open(out)
    best = best_of_rounds(run)
    assert len(best) == SMALL["rounds"]
    assert all(math.isfinite(score) for score in best)
    assert best[-1] > best[0]
    assert not run.tree.failures
    assert violations(out) == []


@pytest.mark.long
@each
def test_an_example_is_a_script_too(file, monkeypatch, capsys):
    """`python examples/x.py` prints what came out, with the schedule that made it."""
    # Defined here, so that no example has to carry a small setting of itself for the sake of this test.
    monkeypatch.setattr(pbt, "Experiment", partial(_smaller, pbt.Experiment))
    runpy.run_path(str(file), run_name="__main__")
    assert "Segment(start=0" in capsys.readouterr().out


def _smaller(make, **arguments):
    return make(**arguments | {"population": 2, "rounds": 2, "placement": pbt.Placement(threads=1)})


@each
def test_an_example_is_short_and_says_how_it_is_run(file):
    """Fewer than 120 lines; its docstring, or the README, holds the command."""
    text = file.read_text()
    assert len(text.splitlines()) < 120
    told = ast.get_docstring(ast.parse(text)) or README
    assert f"pbt run examples/{file.name}:experiment" in told


@pytest.mark.parametrize("name", ["partial_fit", "discount"])
def test_what_needs_no_torch_loads_none(name):
    """An example without networks of torch trains a round without importing torch."""
    code = (
        "import dataclasses, runpy, sys; "
        f"experiment = runpy.run_path({str(ROOT / 'examples' / name)!r} + '.py')['experiment']; "
        "dataclasses.replace(experiment, population=2, rounds=1).run(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]
