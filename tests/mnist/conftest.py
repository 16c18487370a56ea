"""A set of small digits that can be learned, and population runs on it."""

import contextlib
import csv
import os
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from pbt.core.events import Event
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.training import PreparedRun, prepare
from pbt.runs.engine import Engine, Observer
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from tests.helpers.processes import until

ROOT = Path(__file__).parents[2]
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
FC_PBT = ROOT / "config" / "fc_PBT.json"
_MODULE, _, _FUNCTION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["pbt"].partition(":")
PBT = f"import sys; from {_MODULE} import {_FUNCTION}; sys.exit({_FUNCTION}())"
"""What the installed command `pbt` does."""
SIZES = {"train": 600, "test": 100}
SMALL = {
    "model": "fc",
    "n_hiddens": "16",
    "n_filters": "2",
    "num_val": 100,
    "batch_size": 50,
    "num_worker_tot": 4,
    "num_epochs_tot": 3,
    "num_iters_for_ckpt": 4,
    "exploit_fraction": 0.25,
    "threads": 1,
    "PBT_lr": "0.1,0.0001",
    "PBT_keep_prob": "0.5,0.99",
}
"""500 images to train on, 10 steps of 50 an epoch."""


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def write_digits(folder: Path, *, shuffled_test: bool = False) -> Path:
    """Ten classes, each a pattern of its own under noise that makes some of them hard to tell apart."""
    rng = np.random.default_rng(7)
    patterns = np.kron(rng.integers(0, 2, (10, 7, 7)), np.ones((4, 4)))
    folder.mkdir(parents=True, exist_ok=True)
    names = iter(NAMES)
    for split, count in SIZES.items():
        labels = np.arange(count) % 10
        images = np.clip(60 + 40 * patterns[labels] + rng.normal(0, 110, (count, 28, 28)), 0, 255)
        if shuffled_test and split == "test":
            labels = rng.permutation(labels)
        (folder / next(names)).write_bytes(idx(images))
        (folder / next(names)).write_bytes(idx(labels))
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PBT_OFFLINE", "1")
    monkeypatch.delenv("PBT_DATA_DIR", raising=False)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small set, to be looked at only."""
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def make_digits() -> Callable[..., Path]:
    """Writes the set into another folder."""
    return write_digits


Configure = Callable[..., Config]


@pytest.fixture(scope="session")
def configured(digits: Path) -> Configure:
    """A small configuration on the small set; keys given by name win, and None leaves one out."""

    def configure(**train: object) -> Config:
        said = {"data_dir": str(digits), **SMALL, **train}
        return Config.from_dict({"train": {name: value for name, value in said.items() if value is not None}})

    return configure


Trained = Callable[..., Run]


@pytest.fixture(scope="session")
def trained(configured: Configure) -> Trained:
    """Trains a configuration in this process, without drawing figures unless asked to, and gives the run."""

    def train(
        path: Path, config: Config | None = None, *, debug: bool = False, figures: bool = False, **how: Any
    ) -> Run:
        place = Placement(executor="inline", threads=1, device="cpu")
        prepared: PreparedRun = prepare(config or configured(), place, debug=debug)
        with contextlib.nullcontext() if figures else undrawn():
            return prepared.train(path, **{"resume": False, **how})

    return train


def undrawn() -> Any:
    """Figures are most of the time of a small run."""
    nothing = dict.fromkeys(("plot_results", "plot_schedule"), lambda *_: None)
    return mock.patch.multiple("pbt.mnist.training", **nothing)


@pytest.fixture(scope="session")
def finished(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of four workers and three epochs, to be looked at only."""
    return trained(tmp_path_factory.mktemp("finished") / "run", figures=True)


class Interrupt(Observer):
    """Ends a run after some rounds."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        self._rounds -= 1
        if self._rounds == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def interrupted(trained: Trained) -> Callable[..., None]:
    """Trains a configuration and ends it after some rounds, as Ctrl-C would."""

    def train(path: Path, config: Config | None = None, *, rounds: int = 1) -> None:
        with pytest.raises(KeyboardInterrupt):
            trained(path, config, observers=[Interrupt(rounds)])

    return train


Rows = list[dict[str, str]]


@pytest.fixture(scope="session")
def table() -> Callable[[Path], Rows]:
    """Reads the rows of a CSV file by column."""

    def read(path: Path) -> Rows:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return read


DERIVED = ("*.csv", "args_*.json", "ckpts/*", "best/*")


@pytest.fixture(scope="session")
def derived() -> Callable[[Path], dict[str, bytes]]:
    """Every derived file of a run directory but the figures, by its name, with its bytes; times are left out."""

    def read(path: Path) -> dict[str, bytes]:
        found = {str(p.relative_to(path)): p.read_bytes() for pattern in DERIVED for p in sorted(path.glob(pattern))}
        return {name: untimed(blob) if name.endswith(".csv") else blob for name, blob in found.items()}

    return read


def untimed(blob: bytes) -> bytes:
    """A table without its column of seconds, which no two runs have in common."""
    rows = list(csv.reader(blob.decode().splitlines()))
    kept = [number for number, name in enumerate(rows[0]) if name != "seconds"]
    return "\n".join(repr([row[number] for number in kept]) for row in rows).encode()


class Program:
    """A program of this repository as a process of its own."""

    def __init__(self, folder: Path, digits: Path) -> None:
        self.folder = folder
        self._keys = {**SMALL, "data_dir": str(digits), "gpus": "", "num_workers_paral": 2}

    def small(self, **keys: object) -> list[str]:
        """The words that train a small population in one process; keys given by name win."""
        pairs = [word for key, value in {**self._keys, **keys}.items() for word in ("--set", f"{key}={value}")]
        return [str(FC_PBT), *pairs, "--executor", "inline"]

    def config(self, **keys: object) -> Config:
        """The configuration that these words make."""
        return load_config(FC_PBT, overrides={key: str(value) for key, value in {**self._keys, **keys}.items()})

    def begin(self, *words: str, script: str = "main_PBT.py", python: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """Start it in the folder, in a session of its own, so that signals reach it and its children alone."""
        kept = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "CI", "TERM"}}
        command = [str(ROOT / script)] if script != "pbt" else ["-c", PBT]
        return subprocess.Popen(
            [sys.executable, *python, *command, *words],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(ROOT / "src"), "PBT_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *words: str, code: int = 0, **how: Any) -> "subprocess.CompletedProcess[str]":
        """Run it to its end, which must be this exit code and no traceback."""
        process = self.begin(*words, **how)
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        assert "Traceback" not in err, err
        assert process.returncode == code, out + err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def program(tmp_path: Path, digits: Path) -> Program:
    """Runs main_PBT.py, or another script, in the test's folder; `program.small` has the words for a small run."""
    return Program(tmp_path, digits)


@pytest.fixture(scope="session")
def until_rows() -> Callable[[Path, int, "subprocess.Popen[str]"], None]:
    """Waits until the history of a run that is being trained has so many rows."""

    def wait(history: Path, rows: int, process: "subprocess.Popen[str]") -> None:
        until(
            lambda: (
                process.poll() is not None or (history.exists() and len(history.read_text().splitlines()) >= rows + 1)
            )
        )
        assert process.poll() is None, process.communicate()

    return wait
