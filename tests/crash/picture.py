"""What two runs are compared by: everything that is kept of a run but clock values and other notes."""

import contextlib
import csv
import sqlite3
from dataclasses import dataclass, fields
from pathlib import Path

from pbt import Run
from pbt.errors import RunFormatError
from pbt.store.codec import digest
from pbt.store.reader import RunReader
from pbt.store.verify import verify_run
from pbt.testing.invariants import violations

ROWS = "SELECT id, round, member, kind, data FROM events ORDER BY id"
DERIVED = ("*.csv", "args_*.json", "ckpts/*", "best/*")
"""The files of an application that are made of the log and the states."""


@dataclass(frozen=True)
class Picture:
    """A run directory after the end."""

    rows: object
    """The event log as it is written, without its clock."""
    meta: object
    states: object
    """The hash of each state that is kept, computed from what loading it gives."""
    history: object
    curves: object
    best: object
    schedule: object
    files: object
    """Derived files by name, with what is in them but times."""

    @classmethod
    def of(cls, path):
        run = Run.open(path)
        with RunReader(path) as reader:
            states = {ref: digest(reader.load_state(ref)) for ref in reader.refs()}
        return cls(
            rows=rows(path),
            meta=run.meta,
            states=states,
            history={name: list(column) for name, column in run.history().items()},
            curves=sorted(zip(*run.curves().values(), strict=True)),
            best=run.best,
            schedule=run.best_schedule,
            files={str(p.relative_to(path)): content(p) for found in DERIVED for p in sorted(path.glob(found))},
        )


def content(path):
    """The bytes of a derived file; of a table its rows, without the times in them."""
    if path.suffix != ".csv":
        return path.read_bytes()
    head, *table = csv.reader(path.read_text().splitlines())
    return [[cell for name, cell in zip(head, row, strict=True) if name != "seconds"] for row in (head, *table)]


def rows(path):
    """The event log as it is written, without its clock."""
    with contextlib.closing(sqlite3.connect(f"file:{path / 'run.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(ROWS).fetchall()


def differences(path, expected, *, strays=False):
    """In what a finished run is not the expected one, or not whole, in words.

    Args:
        path: Its directory.
        expected: What it should look like.
        strays: Whether files may lie there that nothing names: what workers leave whose run was killed before them.
    """
    found = Picture.of(path)
    told = [field.name for field in fields(Picture) if getattr(found, field.name) != getattr(expected, field.name)]
    return [*told, *damage(path, strays=strays)]


def damage(path, *, strays):
    """What is wrong with a run as it lies there, killed perhaps, in words; nothing where no run was begun."""
    try:
        problems = verify_run(path)
    except RunFormatError:
        return [] if not read(path) else ["no run any more"]
    found = [f"{problem.what}: {problem.message}" for problem in problems if not (strays and problem.harmless)]
    return found + violations(path)


def read(path):
    """The number of events that are logged; 0 while there is no run, or only half of its creation."""
    if not (Path(path) / "run.db").exists():
        return 0
    try:
        return len(rows(path))
    except sqlite3.Error:
        return 0


def ended(path):
    """Whether the run has come to its end."""
    return read(path) > 0 and rows(path)[-1][3] == "ended"
