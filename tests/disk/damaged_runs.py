"""What the tests of this folder look at: everything that two equal runs have in common."""

import contextlib
import sqlite3

from pbt import Run
from pbt.store.reader import RunReader

ROWS = "SELECT id, round, member, kind, data FROM events ORDER BY id"


def rows(path):
    """The log but for the clock."""
    with contextlib.closing(sqlite3.connect(f"file:{path / 'run.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(ROWS).fetchall()


def digests(path):
    """Every state that is kept, each read and checked."""
    with RunReader(path) as reader:
        for ref in reader.refs():
            reader.load_state(ref)
        return {ref: reader.stored(ref).digest for ref in reader.refs()}


def told(path):
    """The log, the states, and the best."""
    return rows(path), digests(path), Run.open(path).best
