"""Permissions of a run directory follow the umask, every file of it; `--private` closes it to other users."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pbt
from pbt.cli.app import main
from pbt.store.repair import repair_run

TASK = """
import pbt

def train(hparams, state, steps, ctx):
    return {"x": 1.0}, {"score": hparams["lr"]}

experiment = pbt.Experiment(task=train, space={"lr": pbt.Float(0.1, 1.0)}, population=2, rounds=2)
"""


@contextlib.contextmanager
def masked(mask: int) -> Iterator[None]:
    """With this umask."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def train(hparams, state, steps, ctx):
    ctx.report(1, loss=0.5)
    return {"x": np.zeros(100_000), "y": hparams["lr"]}, {"score": hparams["lr"]}


def modes(path: Path) -> dict[str, int]:
    """The permissions of everything in a directory, by its path in it."""
    return {str(one.relative_to(path)): stat.S_IMODE(one.lstat().st_mode) for one in [path, *path.rglob("*")]}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_every_file_follows_the_umask(tmp_path: Path, mask: int) -> None:
    """Database, states, lock, report, tables and what a repair writes."""
    run = tmp_path / "run"
    with masked(mask):
        pbt.run(train, {"lr": pbt.Float(0.1, 1.0)}, population=2, rounds=2, run_dir=run)
        assert main(["report", str(run)]) == 0
        blob = bytearray((run / "run.db").read_bytes())
        at = blob.rindex(b'"seconds"')
        blob[at + 1] ^= 1
        (run / "run.db").write_bytes(blob)
        assert repair_run(run) is not None
    found = modes(run)
    assert {"run.db", "run.db.damaged-1", "lock", "states", "report/report.html"} <= found.keys()
    assert any(name.endswith(".safetensors") for name in found)
    for name, mode in found.items():
        whole = 0o777 if (run / name).is_dir() else 0o666
        assert (name, oct(mode)) == (name, oct(whole & ~mask))


@pytest.mark.parametrize("begun", [False, True])
def test_a_private_run_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """Its directory is, and with it all files in it; also of a run that is resumed."""
    monkeypatch.chdir(tmp_path)
    Path("task.py").write_text(TASK)
    with masked(0o022):
        words = ["run", "task.py:experiment", "--out", "a/one", "--quiet"]
        if begun:
            assert main(words) == 0
            assert stat.S_IMODE(Path("a/one").stat().st_mode) == 0o755
        assert main([*words, "--private", "--resume"]) == 0
    assert stat.S_IMODE(Path("a/one").stat().st_mode) == 0o700
    assert stat.S_IMODE(Path("a").stat().st_mode) == 0o755


def test_a_refused_private_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other."""
    monkeypatch.chdir(tmp_path)
    Path("task.py").write_text(TASK)
    assert main(["run", "task.py:experiment", "--out", "one", "--private", "--population", "0"]) == 2
    assert not Path("one").exists()
