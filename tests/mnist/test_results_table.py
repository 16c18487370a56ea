"""`results.csv`: whatever became of the file, the rows of every test that training took notice of come back."""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from pbt.mnist.config.record import Config
from pbt.mnist.results_table import RESULTS_HEAD, add_row, read_results
from pbt.mnist.side_tester import _Bench
from pbt.mnist.single import prepare_single, resume_single
from pbt.runs.placement import Placement

INLINE = Placement(executor="inline", threads=1, device="cpu")
STEPS = 10
HEAD = ",".join(RESULTS_HEAD)


@pytest.fixture(scope="module")
def tested(configured: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch whose three checkpoints were tested while it was trained; to be copied."""
    from pbt.runs.engine import Observer

    path = tmp_path_factory.mktemp("tested") / "run"
    threads = torch.get_num_threads()
    config = configured(PBT_lr=None, PBT_keep_prob=None, num_epochs=1)
    with closing(_Bench(config, path, STEPS, debug=False)) as bench:

        class Each(Observer):
            def on_commit(self, engine: Any, events: Any) -> None:
                bench.test_newest()

        prepare_single(config, INLINE).train(path, resume=False, observers=[Each()])
    torch.set_num_threads(threads)
    assert list(read_results(path / "results.csv")) == [(1, 4), (1, 8), (1, 10)]
    return path


@pytest.fixture
def copied(tested: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(tested, tmp_path / "run"))


def row(line: str) -> str:
    """A whole row with another accuracy."""
    return ",".join([*line.split(",")[:3], "0.123"])


DAMAGE: dict[str, Callable[[list[str]], str]] = {
    "empty": lambda lines: "",
    "nothing but noise": lambda lines: "\x00\ufffd;;\n",
    "cut in a row": lambda lines: "\n".join(lines)[:-4],
    "cut in the head": lambda lines: "\n".join([lines[0], HEAD[:9]]),
    "no head": lambda lines: "\n".join(lines[2:]),
    "another head": lambda lines: "\n".join([lines[0], "a,b,c,d", *lines[2:]]),
    "an epoch in words": lambda lines: "\n".join([*lines[:2], "one,4,0.5,0.5", *lines[3:]]),
    "a loss in words": lambda lines: "\n".join([*lines[:2], "1,4,small,0.5", *lines[3:]]),
    "too many cells": lambda lines: "\n".join([*lines, "1,4,0.5,0.5,0.5,0.5"]),
    "an open quote": lambda lines: "\n".join([*lines[:3], '"1,8,0.5', *lines[4:]]),
    "a row twice": lambda lines: "\n".join([*lines, row(lines[-1])]),
    "another number": lambda lines: "\n".join([*lines[:-1], row(lines[-1])]),
    "a row less": lambda lines: "\n".join(lines[:-1]),
    "a checkpoint that never was": lambda lines: "\n".join([*lines, "7,3,0.1,0.99"]),
    "semicolons": lambda lines: "\n".join(lines).replace(",", ";"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_is_brought_level_on_the_next_start(
    tested: Path, copied: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Whatever somebody did to `results.csv`, the next start says so and leaves both tables as they were."""
    lines = (copied / "results.csv").read_text().splitlines()
    (copied / "results.csv").write_text(DAMAGE[damage](lines))
    resume_single(copied)
    for name in ("results.csv", "loss_summary.csv"):
        assert (copied / name).read_bytes() == (tested / name).read_bytes()
    assert "results.csv: was not what the run recorded; written anew" in caplog.text


def test_bytes_that_are_no_text_are_no_traceback(tested: Path, copied: Path) -> None:
    """A table that was overwritten by something else altogether comes back, too."""
    (copied / "results.csv").write_bytes(bytes(range(256)) * 9)
    resume_single(copied)
    assert (copied / "results.csv").read_bytes() == (tested / "results.csv").read_bytes()


def test_a_deleted_table_comes_back(tested: Path, copied: Path) -> None:
    """What was tested is in the journal of the run, not in the file alone."""
    (copied / "results.csv").unlink()
    resume_single(copied)
    assert (copied / "results.csv").read_bytes() == (tested / "results.csv").read_bytes()


def test_a_whole_table_needs_no_word(tested: Path, copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Going on with a run that nobody touched says nothing and changes nothing."""
    resume_single(copied)
    assert not caplog.text
    assert (copied / "results.csv").read_bytes() == (tested / "results.csv").read_bytes()


def test_a_tester_that_finds_a_damaged_table_keeps_what_is_whole(copied: Path) -> None:
    """Adding a row to a damaged table is no error, and loses no whole row."""
    lines = (copied / "results.csv").read_text().splitlines()
    (copied / "results.csv").write_text("\n".join([*lines[:3], "1,8,?,?", *lines[4:]]))
    before = read_results(copied / "results.csv")
    assert list(before) == [(1, 4), (1, 10)]
    found = add_row(copied, (1, 8), {"test_loss": "0.5", "test_acc": "0.25"}, "note")
    assert found == read_results(copied / "results.csv") == {**before, (1, 8): {"test_loss": "0.5", "test_acc": "0.25"}}


def test_rows_of_several_writers_are_all_kept(tmp_path: Path) -> None:
    """Two who add rows at the same time lose none of them."""
    places = [[(epoch, writer) for epoch in range(1, 40)] for writer in (1, 2)]

    def add(own: list[tuple[int, int]]) -> None:
        for place in own:
            add_row(tmp_path, place, {"test_loss": "0.5", "test_acc": "0.5"}, "")

    threads = [threading.Thread(target=add, args=(own,)) for own in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_results(tmp_path / "results.csv")) == sorted(places[0] + places[1])


def test_a_metric_that_only_some_rows_have_leaves_empty_cells(tmp_path: Path) -> None:
    """The original's columns come first; what a row does not have is empty, and read as absent."""
    add_row(tmp_path, (1, 4), {"test_loss": "0.5", "test_acc": "0.5"}, "")
    add_row(tmp_path, (1, 8), {"test_loss": "0.4", "test_acc": "0.6", "test_error": "0.4"}, "")
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines == [f"{HEAD},test_error", "1,4,0.5,0.5,", "1,8,0.4,0.6,0.4"]
    assert "test_error" not in read_results(tmp_path / "results.csv")[1, 4]
