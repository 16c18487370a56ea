"""The live table of `pbt run` in a terminal of 80x24 and 120x40: complete names, still columns, the best member."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from functools import partial
from pathlib import Path

import pyte
import pytest
import torch

import pbt
from pbt.pytorch import Data, Split, SupervisedTask, optimizer
from pbt.pytorch.vectorized import training_steps
from pbt.store.live import ShareFile
from pbt.terminal.progress import ProgressObserver
from tests.helpers.paths import SOURCE

NAMES = [
    "lr", "optimizer.weight_decay", "momentum", "label_smoothing", "dropout", "batch_size", "warmup_steps", "beta2",
    "temperature", "augmentation.magnitude", "clip",
]  # fmt: skip
TASK = """
import time
import pbt

NAMES, POPULATION = SETTINGS


def train(hparams, state, steps, ctx):
    time.sleep(6.0 / POPULATION / 8)
    return {"x": 1.0}, hparams["lr"] * (1 + ctx.member % 3) / (1 + ctx.round % 3)


space = {name: pbt.Float(1e-5, 1e-1, "log") for name in NAMES}
if len(NAMES) > 4:
    space["batch_size"] = pbt.Int(16, 256)
    space["momentum"] = pbt.Choice([0.9])
experiment = pbt.Experiment(task=train, space=space, population=POPULATION, rounds=6, seed=1)
"""


def screens(words: list[str], folder: Path, lines: int, columns: int) -> list[list[str]]:
    """Each screen that a command showed in a terminal of this size after a piece of its output."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm-256color"}
    environment.pop("CI", None)
    screen, found = pyte.Screen(columns, lines), []
    stream = pyte.ByteStream(screen)
    process = subprocess.Popen(words, cwd=folder, env=environment, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    try:
        while True:
            try:
                stream.feed(os.read(leader, 65536))
            except OSError:  # the last writer closed it
                break
            found.append([line.rstrip() for line in screen.display])
    finally:
        os.close(leader)
        assert process.wait(60) == 0, found[-1:]
    return found


def table(screen: list[str]) -> tuple[str, list[list[str]]] | None:
    """The titles of the live table and the cells of its rows; None where it is not complete on the screen."""
    titles = [i for i, line in enumerate(screen) if line.startswith("member")]
    if (
        len(titles) != 1
        or not screen[titles[0] + 1].startswith("─")
        or not any("best score" in line for line in screen)
    ):
        return None
    rows = [line for line in screen[titles[0] + 2 :] if re.match(r" *\d+ +\d+ +[\d-]", line)]
    return screen[titles[0]], [row.split() for row in rows]


@pytest.mark.parametrize(
    ("lines", "columns", "population", "count"),
    [
        (24, 80, 12, 11),
        *(
            pytest.param(lines, columns, population, count, marks=pytest.mark.slow)
            for lines, columns in ((24, 80), (40, 120))
            for population, count in ((3, 4), (12, 11), (100, 1))
            if (columns, count) != (80, 11)
        ),
    ],
)
def test_the_table_is_still(tmp_path: Path, lines: int, columns: int, population: int, count: int) -> None:
    """Columns stay where they are, rows are sorted by score, and the best member is always one of them."""
    (tmp_path / "task.py").write_text(TASK.replace("SETTINGS", repr((NAMES[:count], population))))
    words = [sys.executable, "-m", "pbt", "run", "task.py:experiment", "--out", "a", "--executor", "inline"]
    seen = screens(words, tmp_path, lines, columns)
    found = [(screen, *shown) for screen in seen if (shown := table(screen)) is not None]
    assert found
    assert len({titles for _, titles, _ in found}) == 1
    hidden = {line for screen, _, _ in found for line in screen if "hidden" in line}
    assert not [line for line in hidden if re.search(r"hidden.*: (?!best)", line)]  # the members' own best goes first
    assert all("momentum" in line for line in hidden if count == 11)  # it does not move, so it goes next
    for screen, _, rows in found:
        scores = [float(row[2]) if row[2] != "-" else -1.0 for row in rows]
        assert scores == sorted(scores, reverse=True)
        (best,) = (line for line in screen if "best score" in line)
        assert re.findall(r"\(member (\d+)", best)[0] in {row[0] for row in rows}
    if os.environ.get("SHOW"):
        for screen, *_ in (found[0], found[len(found) // 2], found[-1]):
            print("\n" + "=" * columns + "\n" + "\n".join(screen))  # noqa: T201 (to be looked at)


def test_the_bar_moves_within_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one program trains all members, the bar also has the share of the steps that are done."""
    monkeypatch.setattr(training_steps, "SHOWN_SECONDS", 0.0)
    progress, seen = ProgressObserver(show=False), []

    write = ShareFile.write

    def written(self: ShareFile, share: float) -> None:
        write(self, share)
        seen.append((share, progress.begun(), self.members))

    monkeypatch.setattr(ShareFile, "write", written)

    def data() -> Data:
        split = Split(torch.randn(8, 2), torch.arange(8) % 2)
        return Data(train=split, validation=split)

    task = SupervisedTask(
        model=partial(torch.nn.Linear, 2, 2),
        data=data,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        bind={"lr": optimizer("lr")},
        score="loss",
        batch_size=4,
    )
    experiment = pbt.Experiment(
        task=task,
        space={"lr": pbt.Float(0.01, 0.1, "log")},
        plan=pbt.Plan(interval=4),
        population=3,
        rounds=2,
        objective="minimize",
        placement=pbt.Placement(executor="vectorized"),
    )
    experiment.run(tmp_path / "run", observers=[progress])
    assert seen == [(share, pytest.approx(3 * share), (0, 1, 2)) for share in (0.25, 0.5, 0.75, 1.0)] * 2
    assert progress.begun() == 0
    assert not list((tmp_path / "run").rglob("*.share"))


@pytest.mark.slow
def test_notes_are_seen(tmp_path: Path) -> None:
    """What `auto` took and the notes before a run are on the screen, whole; two members train at a time."""
    (tmp_path / "task.py").write_text(TASK.replace("SETTINGS", repr((NAMES[:1], 3))))
    words = [sys.executable, "-m", "pbt", "run", "task.py:experiment", "--out", "a", "--executor", "auto"]
    seen = screens([*words, "--workers", "2"], tmp_path, 24, 80)
    text = "\n".join(seen[-1])
    assert "executor processes: 2 workers" in text
    assert "depends strongly on the\nseed; compare several seeds" in text
    found = [shown[1] for screen in seen if (shown := table(screen)) is not None]
    assert {sum("training" in row for row in rows) for rows in found} <= {0, 1, 2}
