"""The tables of a single network: whatever became of a file, every test that training took notice of comes back."""

import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pbt.mnist.config.record import Config
from pbt.mnist.results_table import read_tests, record_test
from pbt.mnist.side_tester import _CheckpointTester
from pbt.mnist.training import prepare, resume
from pbt.runs.placement import Placement

INLINE = Placement(executor="inline", threads=1, device="cpu")
STEPS = 10
DUE = [4, 8, 10]
TABLES = ("checkpoints.csv", "results.csv", "loss_summary.csv")


@pytest.fixture(scope="module")
def tested(configured: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch whose three checkpoints were tested while it was trained; to be copied."""
    from pbt.runs.engine import Observer

    path = tmp_path_factory.mktemp("tested") / "run"
    threads = torch.get_num_threads()
    config = configured(PBT_lr=None, PBT_keep_prob=None, num_epochs=1)
    with closing(_CheckpointTester(config, path, STEPS, debug=False)) as bench:

        class Each(Observer):
            def on_commit(self, engine: Any, events: Any) -> None:
                bench.test_newest()

        prepare(config, INLINE).train(path, resume=False, observers=[Each()])
    torch.set_num_threads(threads)
    assert list(read_tests(path)) == DUE
    return path


@pytest.fixture
def copied(tested: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tested, tmp_path / "run"))


def with_cells(line: str, **cells: str) -> str:
    """A row of `checkpoints.csv` with other cells; its data has a comma in quotation marks."""
    names = ["epoch", "iter", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    names += ["test_loss", "test_accuracy"]
    found = line.split(",", len(names))
    return ",".join([*(cells.get(name, cell) for name, cell in zip(names, found, strict=False)), found[-1]])


DAMAGE: dict[str, Callable[[list[str]], str]] = {
    "empty": lambda lines: "",
    "nothing but noise": lambda lines: "\x00\ufffd;;\n",
    "cut in a row": lambda lines: "\n".join(lines[:-1]) + "\n" + lines[-1][:5],
    "cut in the head": lambda lines: lines[0][:9],
    "no head": lambda lines: "\n".join(lines[1:]),
    "another head": lambda lines: "\n".join(["a,b,c,d", *lines[1:]]),
    "semicolons": lambda lines: "\n".join(lines).replace(",", ";"),
    "an open quote": lambda lines: "\n".join([lines[0], '"' + lines[1], *lines[2:]]),
    "a row twice": lambda lines: "\n".join([*lines, lines[-1]]),
    "a row less": lambda lines: "\n".join(lines[:-1]),
    "too many cells": lambda lines: "\n".join([*lines[:-1], lines[-1] + ",0.5,0.5"]),
}
CELLS: dict[str, Callable[[list[str]], str]] = {
    "an iteration in words": lambda lines: "\n".join([lines[0], with_cells(lines[1], iter="four"), *lines[2:]]),
    "a loss in words": lambda lines: "\n".join([lines[0], with_cells(lines[1], test_loss="small"), *lines[2:]]),
    "another number": lambda lines: "\n".join([*lines[:-1], with_cells(lines[-1], test_accuracy="0.123")]),
    "a checkpoint that never was": lambda lines: "\n".join([*lines, with_cells(lines[-1], epoch="7", iter="73")]),
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [*(("results.csv", damage) for damage in DAMAGE), *(("checkpoints.csv", damage) for damage in DAMAGE | CELLS)],
)
def test_a_damaged_table_is_brought_level_on_the_next_start(
    tested: Path, copied: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    """Whatever somebody did to a table with tests, the next start says so and leaves all tables as they were."""
    lines = (copied / name).read_text().splitlines()
    (copied / name).write_text({**DAMAGE, **CELLS}[damage](lines))
    resume(copied)
    for table in TABLES:
        assert (copied / table).read_bytes() == (tested / table).read_bytes()
    assert f"{name}: differed from the record of the run; rewritten" in caplog.text


@pytest.mark.parametrize("name", TABLES)
def test_bytes_that_are_no_text_are_no_traceback(tested: Path, copied: Path, name: str) -> None:
    """A table that was overwritten by something else altogether comes back, too."""
    (copied / name).write_bytes(bytes(range(256)) * 9)
    resume(copied)
    assert (copied / name).read_bytes() == (tested / name).read_bytes()


def test_deleted_tables_come_back(tested: Path, copied: Path) -> None:
    """What was tested is in the journal of the run, not in the files alone."""
    for name in TABLES:
        (copied / name).unlink()
    resume(copied)
    for name in TABLES:
        assert (copied / name).read_bytes() == (tested / name).read_bytes()


def test_whole_tables_need_no_word(tested: Path, copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Resuming a run whose tables are as they were says nothing and changes nothing."""
    resume(copied)
    assert not caplog.text
    for name in TABLES:
        assert (copied / name).read_bytes() == (tested / name).read_bytes()


def test_a_tester_that_finds_a_damaged_table_keeps_what_is_known(copied: Path) -> None:
    """A test is recorded beside a damaged table, with every test that the run knows."""
    before = read_tests(copied)
    (copied / "checkpoints.csv").write_text("nothing")
    scores = {"loss": 0.5, "accuracy": 0.25}
    assert record_test(copied, 8, scores, STEPS, "note") == read_tests(copied) == {**before, 8: scores}


def test_rows_of_several_writers_are_all_kept(copied: Path) -> None:
    """Processes that record tests at the same time lose none of them."""
    numbers = {step: [{"loss": 0.5, "accuracy": 0.5, f"m{step}_{n}": float(n)} for n in range(15)] for step in (4, 8)}

    def add(step: int) -> None:
        for scores in numbers[step]:
            record_test(copied, step, scores, STEPS, "")

    threads = [threading.Thread(target=add, args=(step,)) for step in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_tests(copied)
    assert {step: found[step] for step in numbers} == {
        step: {name: value for scores in several for name, value in scores.items()} for step, several in numbers.items()
    }


def test_the_readers_of_the_original_read_a_single_network(tested: Path) -> None:
    """Its picture of all runs plots every column of `results.csv` but `iter` against `iter`; none is missing."""
    results = pd.read_csv(tested / "results.csv", index_col=0)
    assert list(results) == ["epoch", "iter", "test_loss", "test_acc"]
    assert results["iter"].tolist() == DUE
    assert results["epoch"].tolist() == [0, 0, 0]
    shares = [scores["accuracy"] for scores in read_tests(tested).values()]
    assert results["test_acc"].tolist() == pytest.approx([100 * share for share in shares])
    losses = pd.read_csv(tested / "loss_summary.csv", index_col=0)
    assert list(losses) == ["epoch", "iter", "train_loss", "test_loss"]
    assert losses["test_loss"].tolist() == results["test_loss"].tolist()
