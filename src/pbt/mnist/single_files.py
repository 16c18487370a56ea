"""The original's files of a single network: arguments, checkpoints, losses, test results."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from pbt.core.events import Event, Reported
from pbt.core.lineage import Lineage
from pbt.errors import RunLockedError
from pbt.mnist.config.record import Config
from pbt.mnist.files import copy_state, folder_of, place_of, write_arguments, write_table
from pbt.mnist.results_table import RESULTS, Rows, add_row, alone, level, read_results, row_of, tests_in
from pbt.mnist.tester import Tested
from pbt.runs.engine import Engine, Observer
from pbt.runs.results import Run
from pbt.store.base import Store
from pbt.store.sqlite import RunStore

LOSSES = "loss_summary.csv"
LATEST, BEST = "latest.safetensors", "best.safetensors"


class SingleFiles(Observer):
    """Writes the derived files of a single network's run; new rows of `results.csv` come from whoever tests.

    Args:
        config: The configuration that the run is trained by.
        steps_per_epoch: Training steps of an epoch.
        note: A line at the head of every table, if the data is not MNIST itself.
        debug: Only the arguments and the newest checkpoint.
    """

    def __init__(self, config: Config, steps_per_epoch: int, note: str = "", *, debug: bool = False) -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._note = note
        self._debug = debug
        self._events: list[Event] = []
        self._tests: Rows = {}

    def on_start(self, engine: Engine) -> None:
        """Write the arguments, and bring everything else level with the log."""
        self._events = engine.store.events()
        self._tests = tests_in(engine.store)
        write_arguments(folder_of(engine), self._config)
        self._level(engine)

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Take a checkpoint into all files."""
        self._events += events
        self._level(engine)

    def on_end(self, engine: Engine) -> None:
        """Take the last tests into the summary of losses."""
        self._level(engine)

    def _level(self, engine: Engine) -> None:
        folder = folder_of(engine)
        reports = list(Lineage(self._events).reports.values())
        ckpts = folder / "ckpts"
        ckpts.mkdir(exist_ok=True)
        if reports:
            copy_state(engine.store, reports[-1].state, ckpts / LATEST)
        if self._debug:
            return
        if engine.view.best is not None:
            copy_state(engine.store, engine.view.best.state, ckpts / BEST)
        self._tests = _level_tables(folder, engine.store, self._tests, reports, self._steps_per_epoch, self._note)


def take_tests(path: Path, steps_per_epoch: int, note: str) -> None:
    """Take the rows of `results.csv` that came after the last checkpoint into the journal and the other table."""
    # Who goes on with the run already takes them, too.
    with contextlib.suppress(RunLockedError), RunStore.open(path) as store:
        reports = list(Lineage(store.events()).reports.values())
        _level_tables(path, store, tests_in(store), reports, steps_per_epoch, note)


def add_test(run: Run, tested: Tested) -> None:
    """Put a test into `results.csv` and `loss_summary.csv`; a checkpoint that the run does not know changes nothing."""
    reports = list(run.tree.reports.values())
    steps_per_epoch = run.meta["plan"]["interval"]["steps_per_epoch"]
    for report in reports:
        if run.path is not None and report.digest == tested.digest:
            add_row(run.path, place_of(report.step, steps_per_epoch), row_of(tested.scores), tested.note)
            write_losses(run.path, reports, steps_per_epoch, tested.note)
            return


def write_losses(folder: Path, reports: Sequence[Reported], steps_per_epoch: int, note: str) -> None:
    """`loss_summary.csv`: a row per checkpoint; the test loss where that checkpoint was tested."""
    with alone(folder):
        tested = read_results(folder / RESULTS)
        rows = []
        for report in reports:
            place = place_of(report.step, steps_per_epoch)
            loss = tested[place]["test_loss"] if place in tested else ""
            rows.append([*place, report.reported["train_loss"], loss, report.reported.get("val_loss", "")])
        write_table(folder / LOSSES, ["epoch", "iter", "train_loss", "test_loss", "val_loss"], rows, note)


def _level_tables(
    folder: Path, store: Store, known: Rows, reports: Sequence[Reported], steps_per_epoch: int, note: str
) -> Rows:
    places = {place_of(report.step, steps_per_epoch) for report in reports}
    rows = level(folder, store, known, places, note)
    write_losses(folder, reports, steps_per_epoch, note)
    return rows
