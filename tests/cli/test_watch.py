"""`pbt status --watch` in a terminal: one table that is redrawn, whatever the size of the window."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte
import pytest

import pbt
from pbt.core.events import Event
from pbt.runs.catalog import opened
from pbt.store.base import Checkpoint
from pbt.store.reader import RunReader, is_begun
from tests.helpers.paths import SOURCE
from tests.helpers.processes import until
from tests.helpers.sampled import sampled

TASK = """
import time
from pathlib import Path
import pbt


def train(hparams, state, steps, ctx):
    patience = time.monotonic() + 60
    # A round waits until the table has shown the last but one, however slow the machine is.
    while ctx.round > 2 and int(Path("shown").read_text() or 0) < ctx.round - 2 and time.monotonic() < patience:
        time.sleep(0.01)
    return {"x": hparams["lr"]}, hparams["lr"]


space = {"lr": pbt.Float(1e-3, 1e-1, "log")}
experiment = pbt.Experiment(task=train, space=space, population=POPULATION, rounds=8, seed=1)
"""


def seen(words: list[str], folder: Path, lines: int, columns: int) -> tuple[pyte.HistoryScreen, bytes]:
    """The screen after a command in a terminal of this size, with what scrolled out of it; and all that it wrote."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm-256color"}
    environment.pop("CI", None)
    screen = pyte.HistoryScreen(columns, lines, history=10_000)
    stream, written = pyte.ByteStream(screen), b""
    process = subprocess.Popen(words, cwd=folder, env=environment, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    try:
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the last writer closed it
                break
            written += part
            stream.feed(part)
            shown = re.findall(rb"(\d+) of 8 rounds done", written)
            (folder / "shown").write_bytes(shown[-1] if shown else b"0")
    finally:
        os.close(leader)
        assert process.wait(60) == 0, written
    return screen, written


@pytest.mark.parametrize(("lines", "columns"), [(24, 80), (40, 120)])
@pytest.mark.parametrize("population", sampled([3, 60], (60,)))
def test_one_table_is_redrawn(tmp_path: Path, lines: int, columns: int, population: int) -> None:
    """After several updates there is one table and one line of progress, on the screen and above it."""
    (tmp_path / "task.py").write_text(TASK.replace("POPULATION", str(population)))
    (tmp_path / "shown").write_text("0")
    pbt = [sys.executable, "-m", "pbt"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    training = subprocess.Popen(
        [*pbt, "run", "task.py:experiment", "--out", "a", "-q", "--executor", "inline"], cwd=tmp_path, env=environment
    )
    try:
        until(lambda: is_begun(tmp_path / "a"))
        screen, written = seen([*pbt, "status", "a", "--watch"], tmp_path, lines, columns)
    finally:
        assert training.wait(120) == 0
    scrolled = ["".join(line[column].data for column in range(columns)) for line in screen.history.top]
    text = "\n".join([*scrolled, *screen.display])
    assert len(set(re.findall(rb"(\d+) of 8 rounds done", written))) > 2  # it was updated
    assert text.count("rounds done") == 1
    assert "a: finished, 8 of 8 rounds done" in text
    assert text.count("Population after round 8") == text.count("Population after round") == 1
    assert "Files in a" in text
    if population == 3:
        assert not [line for line in scrolled if line.strip()]


class Ordered(RunReader):
    """A reader that notes in which order it is asked."""

    def __init__(self, path: Path) -> None:
        self.asked: list[str] = []
        super().__init__(path)

    def is_writing(self) -> bool:
        self.asked.append("lock")
        return super().is_writing()

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        self.asked.append("log")
        return super().events(after, until)

    def checkpoint(self) -> Checkpoint | None:
        self.asked.append("log")
        return super().checkpoint()


def test_a_run_that_ends_while_it_is_read(tmp_path: Path) -> None:
    """The lock is looked at before the log: a run that ends in between is running, and not interrupted."""
    lr = pbt.Float(0.1, 1.0)
    pbt.run(lambda hparams, *_: ({}, hparams["lr"]), {"lr": lr}, population=1, rounds=1, run_dir=tmp_path / "a")
    reader = Ordered(tmp_path / "a")
    with opened(tmp_path / "a", reader) as (run, state):
        assert run.view.round == 1
    assert state == "finished"
    assert reader.asked[0] == "lock"
    assert "log" in reader.asked
