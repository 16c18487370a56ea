"""Programs as members: what reaches the program, and what comes back."""

import json

import pytest

import pbt
from pbt.errors import PopulationLostError
from tests.tasks.programs import SPACE, command


def run(task, space=SPACE, **options):
    """A small run."""
    options = {"population": 2, "rounds": 2, "plan": pbt.Plan(interval=3), **options}
    return pbt.run(task, space, **options)


def files_of(run, state):
    """The text of the files in a state, by name."""
    folder = run.load_state(state)
    return {path.name: path.read_text() for path in folder.path.iterdir()}


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_program_trains(tmp_path, executor) -> None:
    """It trains from its own checkpoints with the values of the log, and all of them are read back."""
    plan = pbt.Plan(interval=3, exploit=pbt.truncation(0.5), explore=pbt.perturb((0.5, 2.0)))
    found = run(command(tmp_path), plan=plan, population=4, rounds=3, placement=executor, run_dir=tmp_path / "run")
    state = json.loads(files_of(found, found.best)["state.json"])
    assert found.best.reported == {"depth": 9}
    assert found.best.score == state["x"]
    # The value of each round, for each of its steps.
    trained = [(segment.hparams["lr"], segment.step) for segment in found.lineage()]
    assert state["seen"] == [lr for lr, _ in trained for _ in range(3)]
    assert len({lr for lr, _ in trained}) > 1
    logs = sorted(path.name for path in (tmp_path / "run" / "logs").iterdir())
    assert logs == [f"{member:06d}-{round_:06d}.log" for member in range(4) for round_ in (1, 2, 3)]


def test_a_program_that_fails(tmp_path) -> None:
    """The exit code, the last line and the name of the log are in the message, the whole tail in the traceback."""
    task = command(tmp_path, "import sys\nprint('a first line')\nsys.exit('no such data set')")
    with pytest.raises(PopulationLostError, match=r"exit code 1 .*no such data set.*logs/000000-000001.log") as error:
        run(task, run_dir=tmp_path / "run")
    assert "a first line" in str(error.value.__cause__)
