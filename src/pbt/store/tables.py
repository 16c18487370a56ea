"""The tables of a run database, and the few statements that fill and read them."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pbt.core.population import StateRef, Stored
from pbt.store.base import Entry, Note
from pbt.store.database import APPLICATION_ID, USER_VERSION
from pbt.store.rows import Row, from_json, to_json
from pbt.store.views import views

_TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY, round INTEGER NOT NULL, member INTEGER, kind TEXT NOT NULL, data TEXT NOT NULL,
        clock REAL NOT NULL
    )""",
    # Without it, each step of an ancestry in SQL would read the whole log.
    "CREATE INDEX events_by_member ON events (member, round, kind)",
    """CREATE TABLE states (
        member INTEGER NOT NULL, round INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, blob BLOB,
        PRIMARY KEY (member, round)
    )""",
    "CREATE TABLE journal (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, data TEXT NOT NULL, clock REAL NOT NULL)",
)


class EventRow(NamedTuple):
    """A row of the log."""

    id: int
    data: str
    clock: float


def create_tables(connection: sqlite3.Connection, meta: Mapping[str, str], hparams: Sequence[str]) -> None:
    """Everything a new database holds, to be called inside a transaction."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {USER_VERSION}")
    for statement in (*_TABLES, *views(hparams)):
        connection.execute(statement)
    write_meta(connection, meta)


def write_meta(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
    """Set these keys to these JSON texts."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())


def read_meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """Every key and its value."""
    return {key: from_json(text) for key, text in connection.execute("SELECT key, value FROM meta")}


def write_events(connection: sqlite3.Connection, rows: Sequence[Row], clock: float) -> None:
    """Append to the log."""
    connection.executemany(
        "INSERT INTO events (round, member, kind, data, clock) VALUES (?, ?, ?, ?, ?)", [(*row, clock) for row in rows]
    )


def read_events(connection: sqlite3.Connection, after: int = 0) -> list[EventRow]:
    """The log behind this id, in order, read at once so that nobody waits for its being decoded."""
    query = "SELECT id, data, clock FROM events WHERE id > ? ORDER BY id"
    return [EventRow(*row) for row in connection.execute(query, (after,)).fetchall()]


def note_rows(notes: Sequence[Note], clock: float) -> list[tuple[str, str, float]]:
    """Notes as rows of the journal.

    Raises:
        UsageError: A note holds something else than plain values.
    """
    return [(note.kind, to_json(note.details, f"note '{note.kind}'"), clock) for note in notes]


def write_journal(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, float]]) -> None:
    """Append to the journal."""
    connection.executemany("INSERT INTO journal (kind, data, clock) VALUES (?, ?, ?)", rows)


def read_journal(connection: sqlite3.Connection) -> list[Entry]:
    """All notes, in order."""
    rows = connection.execute("SELECT id, kind, data, clock FROM journal ORDER BY id").fetchall()
    return [Entry(id=id_, kind=kind, details=from_json(data), clock=clock) for id_, kind, data, clock in rows]


def write_states(connection: sqlite3.Connection, stored: Mapping[StateRef, Stored]) -> None:
    """Name these states."""
    connection.executemany(
        "INSERT INTO states VALUES (?, ?, ?, ?, ?)",
        [(*ref, there.digest, there.size, there.blob) for ref, there in stored.items()],
    )


def delete_states(connection: sqlite3.Connection, refs: Sequence[StateRef]) -> None:
    """Name these states no longer."""
    connection.executemany("DELETE FROM states WHERE member = ? AND round = ?", refs)


def read_state(connection: sqlite3.Connection, ref: StateRef) -> Stored:
    """Where a state is.

    Raises:
        KeyError: It is nowhere.
    """
    query = "SELECT digest, size, blob FROM states WHERE member = ? AND round = ?"
    row = connection.execute(query, ref).fetchone()
    if row is None:
        raise KeyError(ref)
    return Stored(digest=row[0], size=row[1], blob=row[2])


def read_refs(connection: sqlite3.Connection) -> dict[StateRef, bool]:
    """Every state that has a row, and whether it has a file of its own."""
    rows = connection.execute("SELECT member, round, blob IS NULL FROM states")
    return {StateRef(member, round_): bool(in_file) for member, round_, in_file in rows}
