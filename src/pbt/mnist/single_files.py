"""The original's files of a single network: arguments, checkpoints, losses, test results."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pbt.core.events import Event, Reported
from pbt.core.lineage import Lineage
from pbt.engine import Engine, Observer
from pbt.mnist.config.record import Config
from pbt.mnist.files import copy_state, place_of, write, write_table

RESULTS = "results.csv"
RESULTS_HEAD = ("epoch", "iter", "test_loss", "test_acc")
LATEST, BEST = "latest.safetensors", "best.safetensors"


class SingleFiles(Observer):
    """Writes the derived files of a single network's run; the tester alone writes `results.csv`.

    Args:
        config: The configuration that the run was made from.
        steps_per_epoch: Training steps of an epoch.
        note: A line at the head of every table, if the data is not MNIST itself.
    """

    def __init__(self, config: Config, steps_per_epoch: int, note: str = "") -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._note = note
        self._events: list[Event] = []

    def on_start(self, engine: Engine) -> None:
        """Write the arguments, and bring everything else level with the log."""
        self._events = engine.store.events()
        for section in ("train", "test"):
            text = json.dumps(self._config.to_plain(section), indent=2)
            write(_folder(engine) / f"args_{section}.json", text + "\n")
        self._level(engine)

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Take a checkpoint into all files."""
        self._events += events
        self._level(engine)

    def on_end(self, engine: Engine) -> None:
        """Take the last tests into the summary of losses."""
        self._level(engine)

    def _level(self, engine: Engine) -> None:
        folder = _folder(engine)
        reports = list(Lineage(self._events).reports.values())
        write_losses(folder, reports, self._steps_per_epoch, self._note)
        ckpts = folder / "ckpts"
        ckpts.mkdir(exist_ok=True)
        if reports:
            copy_state(engine.store, reports[-1].state, ckpts / LATEST)
        if engine.view.best is not None:
            copy_state(engine.store, engine.view.best.state, ckpts / BEST)


def write_losses(folder: Path, reports: Sequence[Reported], steps_per_epoch: int, note: str) -> None:
    """`loss_summary.csv`: a row per checkpoint; the test loss where that checkpoint was tested."""
    tested = read_results(folder / RESULTS)
    rows = []
    for report in reports:
        place = place_of(report.step, steps_per_epoch)
        loss = tested[place]["test_loss"] if place in tested else ""
        rows.append([*place, report.reported["train_loss"], loss, report.reported.get("val_loss", "")])
    write_table(folder / "loss_summary.csv", ["epoch", "iter", "train_loss", "test_loss", "val_loss"], rows, note)


def read_results(path: Path) -> dict[tuple[int, int], Mapping[str, str]]:
    """The rows of `results.csv` by epoch and step in it; none if there is no such file."""
    if not path.is_file():
        return {}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {(int(row["epoch"]), int(row["iter"])): row for row in csv.DictReader(lines)}


def _folder(engine: Engine) -> Path:
    if engine.store.path is None:
        raise ValueError("files are written beside a log on disk, not in memory")
    return engine.store.path
