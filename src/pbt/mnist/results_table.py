"""The tables of a single network, and the tests in them, from any process.

`checkpoints.csv` has all measurements of each checkpoint; `results.csv` and `loss_summary.csv`, in the original's form,
are made from the same numbers. The tester beside training and `-m test` write to all three. Training copies the tests
to the journal of the run, from which it restores the tables whenever it starts.
"""

import contextlib
import csv
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pbt.core.events import Event
from pbt.core.history import RunHistory
from pbt.errors import RunLockedError
from pbt.mnist.metrics import beside
from pbt.mnist.tables import (
    LOSSES,
    MISSING,
    MNIST,
    RESULTS,
    Row,
    epoch_of,
    percent,
    seconds_of,
    table_text,
    write,
    write_table,
)
from pbt.store.base import JournalEntry, Store
from pbt.store.reader import RunReader
from pbt.store.sqlite import RunStore
from pbt.store.system import CAREFUL, FOLDER, lock

log = logging.getLogger("pbt")

CHECKPOINTS_FILE, RESULTS_FILE, LOSSES_FILE = "checkpoints.csv", "results.csv", "loss_summary.csv"
_TEST = "test"
"""Kind of the journal entries with the test of a checkpoint."""
_TRAINED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
_TESTED = ("test_loss", "test_accuracy")

Tests = dict[int, Mapping[str, float]]
"""The value of each metric on the test images, by training step of the checkpoint."""


def measured(metric: str) -> tuple[str, ...]:
    """The metrics of a test if the configuration names this metric."""
    return ("loss", "accuracy", *beside(metric))


def read_tests(folder: Path) -> Tests:
    """The tests in the tables of a training directory."""
    return _read(folder / CHECKPOINTS_FILE)[0]


def tests_in(journal: Iterable[JournalEntry]) -> Tests:
    """The tests in the journal of a run."""
    notes = (entry.details for entry in journal if entry.kind == _TEST)
    return {note["step"]: note["scores"] for note in notes}


def record_test(folder: Path, step: int, scores: Mapping[str, float], steps_per_epoch: int, note: str) -> Tests:
    """Add a test to the tables of a training directory; returns all tests in them.

    Args:
        folder: The training directory.
        step: Training steps of the tested checkpoint.
        scores: The value of each metric.
        steps_per_epoch: Training steps of an epoch.
        note: Note on the data; empty for MNIST itself.
    """
    # The log is read under the lock, so that no other process meanwhile replaces the tables by those of a newer log.
    with locked(folder), RunReader(folder) as reader:
        journal = reader.journal()
        tests = _merged(tests_in(journal), read_tests(folder), {step: scores})
        _write(folder, reader.history(), journal, tests, steps_per_epoch, note)
    return tests


def synchronize(folder: Path, store: Store, events: Sequence[Event], steps_per_epoch: int, note: str) -> None:
    """Bring the tables and the journal up to date with each other and with the log.

    Args:
        folder: The training directory.
        store: The store of its run.
        events: Its log.
        steps_per_epoch: Training steps of an epoch.
        note: Note on the data; empty for MNIST itself.
    """
    with locked(folder):
        journal = store.journal()
        known = tests_in(journal)
        found, is_whole = _read(folder / CHECKPOINTS_FILE)
        steps = {report.step for report in RunHistory(events).reports.values()}
        # A row of a step without a checkpoint is no test.
        tests = _merged({step: scores for step, scores in found.items() if step in steps}, known)
        if tests != found or not is_whole:
            _warn(folder / CHECKPOINTS_FILE)
        text = _text_of(folder / RESULTS_FILE)
        if text != _results_text(tests, steps_per_epoch) and (tests or text is not None):
            _warn(folder / RESULTS_FILE)
        _write(folder, events, journal, tests, steps_per_epoch, note)
    for step, scores in tests.items():
        if known.get(step) != scores:
            store.note(_TEST, step=step, scores=dict(scores))


def take_tests(folder: Path, steps_per_epoch: int, note: str) -> None:
    """Add the tests that came after the last checkpoint to the journal, from the tables.

    Args:
        folder: The training directory.
        steps_per_epoch: Training steps of an epoch.
        note: Note on the data; empty for MNIST itself.
    """
    # A process that trains this run does the same.
    with contextlib.suppress(RunLockedError), RunStore.open(folder) as store, RunReader(folder) as reader:
        synchronize(folder, store, reader.history(), steps_per_epoch, note)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock on the tables of a folder; it is released when its process ends."""
    if FOLDER is None:
        descriptor = os.open(folder / ".tables.lock", os.O_RDWR | os.O_CREAT | CAREFUL, 0o666)
    else:
        descriptor = os.open(folder, os.O_RDONLY | FOLDER | CAREFUL)
    try:
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def _warn(path: Path) -> None:
    log.warning("%s: differed from the record of the run; rewritten", path)


def _merged(*several: Tests) -> Tests:
    """All tests; of the same checkpoint the later ones win, metric by metric."""
    merged: Tests = {}
    for tests in several:
        for step, scores in tests.items():
            merged[step] = {**merged.get(step, {}), **scores}
    return dict(sorted(merged.items()))


def _write(
    folder: Path,
    events: Iterable[Event],
    journal: Iterable[JournalEntry],
    tests: Tests,
    steps_per_epoch: int,
    note: str,
) -> None:
    tree, seconds = RunHistory(events), seconds_of(journal)
    tested = (*_TESTED, *sorted({f"test_{name}" for scores in tests.values() for name in scores} - {*_TESTED}))
    checkpoints: list[Row] = []
    losses: list[Row] = []
    for ref, report in tree.reports.items():
        reported, scores = report.reported, tests.get(report.step, {})
        time, place = seconds.get(ref), [epoch_of(report.step, steps_per_epoch), report.step]
        numbers = [reported.get(name) for name in _TRAINED] + [
            scores.get(name.removeprefix("test_")) for name in tested
        ]
        lr = tree.hparams(*ref)["lr"]
        tail = [None if time is None else round(time, 3), report.digest, note or MNIST]
        checkpoints.append([*place, lr, *numbers, *tail])
        losses.append([*place, reported["train_loss"], scores.get("loss", MISSING)])
    head = ["epoch", "iter", "lr", *_TRAINED, *tested, "seconds", "digest", "data"]
    write_table(folder / CHECKPOINTS_FILE, (head, checkpoints))
    write_table(folder / LOSSES_FILE, (LOSSES, losses), indexed=True)
    if tests or (folder / RESULTS_FILE).exists():
        write(folder / RESULTS_FILE, _results_text(tests, steps_per_epoch))


def _results_text(tests: Tests, steps_per_epoch: int) -> str:
    rows: list[Row] = [
        [epoch_of(step, steps_per_epoch), step, scores["loss"], percent(scores["accuracy"])]
        for step, scores in tests.items()
    ]
    return table_text((RESULTS, rows), indexed=True)


def _text_of(path: Path) -> str | None:
    """The content of a file; None if it does not exist."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _read(path: Path) -> tuple[Tests, bool]:
    """The undamaged tests in `checkpoints.csv`, and whether the whole table is undamaged."""
    text = _text_of(path)
    if text is None:
        return {}, True
    tests: Tests = {}
    reader = csv.DictReader(text.splitlines(), strict=True)
    is_whole = {"iter", *_TESTED} <= {*(reader.fieldnames or ())}
    try:
        for cells in reader:
            try:
                step = int(cells["iter"])
                named = {name.removeprefix("test_"): cell for name, cell in cells.items() if name.startswith("test_")}
                scores = {name: float(cell) for name, cell in named.items() if cell}
            except (AttributeError, KeyError, TypeError, ValueError):
                is_whole = False  # an extra cell, or one that is no number
                continue
            is_whole = is_whole and step not in tests
            if {"loss", "accuracy"} <= scores.keys():
                tests[step] = scores
    except csv.Error:
        is_whole = False
    return tests, is_whole
