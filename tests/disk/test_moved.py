"""A run directory that is renamed or removed while it is written: one line says so, and the run goes on elsewhere."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import pbt
from pbt.errors import DiskError
from pbt.runs.results import Run

SPACE = {"lr": pbt.Float(1e-3, 1e-1, "log")}


def small(hparams: Any, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, float]:
    return {"x": hparams["lr"]}, float(hparams["lr"])


def large(hparams: Any, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, float]:
    return {"x": torch.full((20_000,), float(hparams["lr"]))}, float(hparams["lr"])


class Moves(pbt.Callback):
    """Renames or removes the run directory after its second round."""

    def __init__(self, path: Path, target: Path | None) -> None:
        self.path, self.target = path, target

    def on_round_end(self, end: Any) -> None:
        if end.round == 2 and self.path.exists():
            shutil.rmtree(self.path) if self.target is None else self.path.rename(self.target)


@pytest.mark.parametrize("executor", ["inline", "processes"])
@pytest.mark.parametrize("task", [small, large])
@pytest.mark.usefixtures("warm")
def test_it_says_so_and_goes_on_under_the_new_name(tmp_path: Path, task: Any, executor: str) -> None:
    """Neither a full disk nor permissions are blamed; a renamed run is resumed to the bits of an undisturbed one."""
    how = {"population": 3, "rounds": 5, "seed": 2, "executor": executor}
    moves = Moves(tmp_path / "run", tmp_path / "new")
    with pytest.raises(
        DiskError, match=r"the run directory was renamed or removed .*resume the run under its new name"
    ):
        pbt.run(task, SPACE, run_dir=tmp_path / "run", callbacks=[moves], **how)
    assert not (tmp_path / "run").exists()
    again = pbt.run(task, SPACE, run_dir=tmp_path / "new", resume=True, **how)
    assert again.events == pbt.run(task, SPACE, run_dir=tmp_path / "whole", **how).events
    assert Run.open(tmp_path / "new").view.ended == "finished"


@pytest.mark.parametrize("task", [small, large])
def test_of_a_removed_one_nothing_comes_back(tmp_path: Path, task: Any) -> None:
    """A removed run directory is not made again with a part of the run."""
    with pytest.raises(DiskError, match="was renamed or removed"):
        pbt.run(
            task, SPACE, population=3, rounds=5, run_dir=tmp_path / "run", callbacks=[Moves(tmp_path / "run", None)]
        )
    assert not (tmp_path / "run").exists()
