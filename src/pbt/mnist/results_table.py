"""`results.csv` of a single network: a row for every checkpoint that was tested, whoever tested it.

The tester beside training and `-m test` add rows; training takes them into the journal of the run, and from there
brings the table level with what was tested whenever it starts, whatever became of the file meanwhile.
"""

import csv
import fcntl
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pbt.mnist.files import write_table
from pbt.mnist.metrics import beside
from pbt.store.base import Store

log = logging.getLogger("pbt")

RESULTS = "results.csv"
RESULTS_HEAD = ("epoch", "iter", "test_loss", "test_acc")
_TESTED = "tested"
"""The kind of a note in the journal: a row of the table."""

Place = tuple[int, int]
"""An epoch and the step in it."""
Rows = dict[Place, Mapping[str, str]]
"""The numbers of each row, by column, as the table writes them."""


def measured(metric: str) -> tuple[str, ...]:
    """What is measured of a checkpoint where the configuration names this metric."""
    return ("loss", "accuracy", *beside(metric))


def row_of(scores: Mapping[str, float]) -> dict[str, str]:
    """The numbers of a row: the original's columns, and a named metric as `test_<name>`."""
    return {f"test_{'acc' if name == 'accuracy' else name}": str(value) for name, value in scores.items()}


def read_results(path: Path) -> Rows:
    """The whole rows of the table; none if there is no such file."""
    return _read(path)[0]


def add_row(folder: Path, place: Place, row: Mapping[str, str], note: str) -> Rows:
    """Put a row into the table of a training directory; answers all that it has now."""
    with alone(folder):
        rows = read_results(folder / RESULTS)
        rows[place] = {**rows.get(place, {}), **row}
        _write(folder, rows, note)
    return rows


def tests_in(store: Store) -> Rows:
    """The rows that the journal of a run has."""
    noted = (entry.details for entry in store.journal() if entry.kind == _TESTED)
    return {(details["epoch"], details["iter"]): details["row"] for details in noted}


def level(folder: Path, store: Store, known: Rows, places: Collection[Place], note: str) -> Rows:
    """Bring table and journal level; answers the rows of both.

    Args:
        folder: The training directory.
        store: Its run.
        known: The rows that the journal has, where they differ from the table they hold.
        places: Where there were checkpoints: what the table says of others is nobody's test.
        note: The line at the head of the table.
    """
    with alone(folder):
        found, is_whole = _read(folder / RESULTS)
        rows: Rows = {place: row for place, row in found.items() if place in places}
        for place, row in known.items():
            rows[place] = {**rows.get(place, {}), **row}
        if rows != found or not is_whole:
            log.warning("%s: was not what the run recorded; written anew", folder / RESULTS)
            _write(folder, rows, note)
    for place, row in rows.items():
        if known.get(place) != row:
            store.note(_TESTED, epoch=place[0], iter=place[1], row=dict(row))
    return rows


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else changes a table of the folder meanwhile; a lock that dies with its process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(folder: Path, rows: Rows, note: str) -> None:
    head = [*RESULTS_HEAD, *sorted({name for row in rows.values() for name in row} - {*RESULTS_HEAD})]
    cells = ([*place, *(rows[place].get(name, "") for name in head[2:])] for place in sorted(rows))
    write_table(folder / RESULTS, head, cells, note)


def _read(path: Path) -> tuple[Rows, bool]:
    """The rows that are whole, and whether all are."""
    if not path.is_file():
        return {}, True
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found, is_whole = _parsed(line for line in lines if not line.startswith("#"))
    return found, is_whole


def _parsed(lines: Iterable[str]) -> tuple[Rows, bool]:
    rows: Rows = {}
    reader = csv.DictReader(lines, strict=True)
    is_whole = tuple(reader.fieldnames or ())[:4] == RESULTS_HEAD
    try:
        for cells in reader:
            try:
                place = int(cells.pop("epoch")), int(cells.pop("iter"))
                row = {name: cells.pop(name) for name in RESULTS_HEAD[2:]}
                row.update((name, text) for name, text in cells.items() if text)
                for text in row.values():
                    float(text)
            except (KeyError, TypeError, ValueError):
                is_whole = False
            else:
                is_whole = is_whole and place not in rows
                rows[place] = row
    except csv.Error:
        is_whole = False
    return rows, is_whole
