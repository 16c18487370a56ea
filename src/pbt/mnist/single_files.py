"""The files of a single network: arguments, checkpoints and tables."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from pbt.core.events import Event
from pbt.core.history import RunHistory
from pbt.errors import RunLockedError
from pbt.mnist.config.record import Config
from pbt.mnist.files import copy_state, folder_of, write_arguments
from pbt.mnist.results_table import level, record_test
from pbt.mnist.tester import Tested
from pbt.runs.engine import Engine, Observer
from pbt.runs.results import Run
from pbt.store.sqlite import RunStore

LATEST, BEST = "latest.safetensors", "best.safetensors"


class SingleFiles(Observer):
    """Writes the derived files of a single network's run; other processes add test results to its tables.

    Args:
        config: The configuration that the run is trained by.
        steps_per_epoch: Training steps of an epoch.
        note: What the data is, if it is not MNIST itself.
        debug: Only the arguments and the newest checkpoint.
    """

    def __init__(self, config: Config, steps_per_epoch: int, note: str = "", *, debug: bool = False) -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._note = note
        self._debug = debug
        self._events: list[Event] = []

    def on_start(self, engine: Engine) -> None:
        """Write the arguments, and bring everything else level with the log."""
        self._events = engine.store.events()
        write_arguments(folder_of(engine), self._config)
        self._level(engine)

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Take a checkpoint into all files."""
        self._events += events
        self._level(engine)

    def on_end(self, engine: Engine) -> None:
        """Take the last tests into the journal."""
        self._level(engine)

    def _level(self, engine: Engine) -> None:
        folder = folder_of(engine)
        reports = list(RunHistory(self._events).reports.values())
        ckpts = folder / "ckpts"
        ckpts.mkdir(exist_ok=True)
        if reports:
            copy_state(engine.store, reports[-1].state, ckpts / LATEST)
        if self._debug:
            return
        if engine.view.best is not None:
            copy_state(engine.store, engine.view.best.state, ckpts / BEST)
        level(folder, engine.store, self._events, self._steps_per_epoch, self._note)


def take_tests(path: Path, steps_per_epoch: int, note: str) -> None:
    """Take the tests that came after the last checkpoint from the tables into the journal."""
    # A process that trains this run takes them, too.
    with contextlib.suppress(RunLockedError), RunStore.open(path) as store:
        level(path, store, store.events(), steps_per_epoch, note)


def add_test(run: Run, tested: Tested) -> None:
    """Put a test into the tables of its run; a checkpoint that the run does not know changes nothing."""
    steps_per_epoch = run.meta["plan"]["interval"]["steps_per_epoch"]
    for report in run.tree.reports.values():
        if run.path is not None and report.digest == tested.digest:
            record_test(run.path, report.step, tested.scores, steps_per_epoch, tested.note)
            return
