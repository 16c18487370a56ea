"""A strategy's memory that another program changed is one line when the run is resumed.

`PBT_FUZZ_MUTATIONS` and `PBT_FUZZ_SEED` set the number of mutations and the seed of the long test.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pbt.cli.app import main
from tests.hostile.mutations import Contents, Mutator, read, write

FEW, MANY = 3, 60
"""Mutations by default, and with `--all` (two minutes on two cores)."""
PLANS = ("backtracking", "fire", "gpbt-pl", "ipbt", "pb2", "pb2-mix")
"""All plans that keep a memory."""
TASK = """
import pbt

SPACE = {"lr": pbt.Float(1e-4, 1e-1, "log"), "n": pbt.Int(1, 8), "kind": pbt.Choice(("a", "b"))}


def train(hparams, state, steps, ctx):
    x = (state or {"x": 0.0})["x"] + hparams["lr"] * (-1 if hparams["n"] == 3 else 1)
    return {"x": x}, {"score": x, "series": [x - i for i in range(7, -1, -1)]}


experiment = pbt.Experiment(task=train, space=SPACE, population=8, rounds=6, seed=3)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with a finished run of each plan."""
    path = tmp_path_factory.mktemp("memory")
    (path / "task.py").write_text(TASK)
    with contextlib.chdir(path):
        for plan in PLANS:
            assert main(["run", "task.py:experiment", "--plan", plan, "--out", plan, "--quiet"]) == 0
        yield path


def resumed(plan: str, contents: Contents) -> str:
    """What a resume of a run with these contents prints as an error; empty if it succeeds."""
    shutil.rmtree("bad", ignore_errors=True)
    write(Path(plan), Path("bad"), contents)
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        code = main(["resume", "bad", "task.py:experiment", "--rounds", "8", "--quiet"])
    assert code in (0, 1, 2, 3)
    return err.getvalue() if code else ""


def mutate(plan: str, count: int, seed: int) -> None:
    contents, mutator = read(Path(plan)), Mutator(seed)
    contents.checkpoints.clear()
    for number in range(count):
        mutated, what = mutator.mutated_memory(contents)
        try:
            printed = resumed(plan, mutated)
        except Exception as error:
            raise AssertionError(f"seed {seed}, mutation {number}: {what}") from error
        assert printed.count("\n") <= 1, f"seed {seed}, mutation {number}: {what}\n{printed}"


@pytest.mark.parametrize("plan", PLANS)
def test_a_mutated_memory_gives_one_line(folder: Path, plan: str) -> None:
    """A few mutations, always the same."""
    mutate(plan, FEW, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("plan", PLANS)
def test_many_mutated_memories_give_one_line(folder: Path, plan: str) -> None:
    """Many of them."""
    mutate(plan, int(os.environ.get("PBT_FUZZ_MUTATIONS", MANY)), int(os.environ.get("PBT_FUZZ_SEED", "2")))
