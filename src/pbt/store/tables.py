"""The tables of a run database, and the few statements that fill and read them."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pbt.core.population import StateRef, Stored
from pbt.errors import CorruptError
from pbt.store import checksums as seals
from pbt.store.base import JournalEntry, NewEntry
from pbt.store.database import APPLICATION_ID, LOOK, USER_VERSION
from pbt.store.event_rows import EventValues, from_json, to_json
from pbt.store.views import views

_DEFINITIONS: Mapping[str, str] = {
    "meta": "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "events": """CREATE TABLE events (
        id INTEGER PRIMARY KEY, round INTEGER NOT NULL, member INTEGER, kind TEXT NOT NULL, data TEXT NOT NULL,
        clock REAL NOT NULL
    )""",
    # Without it, each step of an ancestry in SQL would read the whole log.
    "events_by_member": "CREATE INDEX events_by_member ON events (member, round, kind)",
    "states": """CREATE TABLE states (
        member INTEGER NOT NULL, round INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, blob BLOB,
        PRIMARY KEY (member, round)
    )""",
    "journal": (
        "CREATE TABLE journal (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, data TEXT NOT NULL, clock REAL NOT NULL)"
    ),
    "seals": seals.TABLE,
}


class EventRow(NamedTuple):
    """A row of the log; round, member and kind are told by its text, too, and stand here for people who ask in SQL."""

    id: int
    round: int
    member: int | None
    kind: str
    clock: float
    data: str


def create_tables(connection: sqlite3.Connection, meta: Mapping[str, str], hparams: Sequence[str]) -> None:
    """Everything a new database holds, to be called inside a transaction."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {USER_VERSION}")
    for statement in (*_DEFINITIONS.values(), *views(hparams, minimize=meta.get("objective") == '"minimize"')):
        connection.execute(statement)
    write_meta(connection, meta)


def check_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Check that our names mean our tables, and that nothing happens behind them.

    A view under such a name could have rows without end, a trigger could change what is written.

    Raises:
        CorruptError: They do not.
    """
    found = {name: (kind, sql) for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master")}
    for name, sql in _DEFINITIONS.items():
        # Runs of earlier versions have no seals.
        if found.get(name, (None, None))[1] != sql and not (name == "seals" and name not in found):
            raise CorruptError(f"{path}: expected the tables of a run, found another '{name}', or none")
    for name, (kind, _) in found.items():
        if kind == "trigger":
            raise CorruptError(f"{path}: expected the tables of a run, found a trigger '{name}'; no run has one")


def write_meta(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
    """Set these keys to these JSON texts."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
    seals.seal_head(connection)


def read_meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """Every key and its value."""
    return {key: from_json(text) for key, text in connection.execute("SELECT key, value FROM meta")}


def write_events(connection: sqlite3.Connection, rows: Sequence[EventValues], clock: float) -> None:
    """Append to the log, and seal it."""
    after = seals.newest_seal(connection, seals.EVENTS).last + 1
    lines = [(id_, row.round, row.member, row.kind, clock, row.data) for id_, row in enumerate(rows, after)]
    append(connection, seals.EVENTS, lines)


def append(connection: sqlite3.Connection, what: str, lines: Sequence[seals.Line]) -> None:
    """Append rows that have their ids, and seal them."""
    before = seals.newest_seal(connection, what)
    marks = ", ".join("?" * len(seals.COLUMNS[what].split(",")))
    connection.executemany(f"INSERT INTO {what} ({seals.COLUMNS[what]}) VALUES ({marks})", lines)  # noqa: S608 (ours)
    seals.write_seal(connection, what, seals.sealed(before, lines))


def read_events(connection: sqlite3.Connection, after: int = 0) -> list[EventRow]:
    """The log behind this id, in order, read at once so that nobody waits for its being decoded.

    Raises:
        CorruptError: Its rows are not those that were written.
    """
    lines = seals.read_lines(connection, seals.EVENTS, after)
    if seals.has_seals(connection):
        before, behind = seals.read_seals(connection, seals.EVENTS, after)
        # Behind a row in the middle of a transaction the rest of it cannot be checked by itself.
        skipped = behind[:1] if before.last != after else []
        rest = [line for line in lines if not skipped or int(str(line[0])) > skipped[0].last]
        for stretch in seals.stretches(rest, behind[len(skipped) :], skipped[0] if skipped else before):
            if not stretch.whole:
                raise CorruptError(f"{damaged(stretch)}; {LOOK}")
    return [EventRow(*line) for line in lines]  # type: ignore[arg-type]


def damaged(stretch: seals.LoggedTransaction) -> str:
    """What is wrong with these events."""
    which = f"event {stretch.first}" if stretch.first == stretch.last else f"events {stretch.first} to {stretch.last}"
    return f"{which}: expected the rows that were written, found others"


def note_rows(notes: Sequence[NewEntry], clock: float) -> list[tuple[str, str, float]]:
    """Notes as rows of the journal.

    Raises:
        UsageError: A note holds something else than plain values.
    """
    return [(note.kind, to_json(note.details, f"note '{note.kind}'"), clock) for note in notes]


def write_journal(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, float]]) -> None:
    """Append to the journal, and seal it."""
    after = seals.newest_seal(connection, seals.JOURNAL).last + 1
    append(connection, seals.JOURNAL, [(id_, kind, clock, data) for id_, (kind, data, clock) in enumerate(rows, after)])


def read_journal(connection: sqlite3.Connection) -> list[JournalEntry]:
    """All notes, in order."""
    rows = connection.execute("SELECT id, kind, data, clock FROM journal ORDER BY id").fetchall()
    return [JournalEntry(id=id_, kind=kind, details=from_json(data), clock=clock) for id_, kind, data, clock in rows]


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
    return _stored(*row)


def read_states(connection: sqlite3.Connection) -> dict[StateRef, Stored]:
    """Where every state is, by the table itself: a damaged index leads nowhere."""
    rows = connection.execute("SELECT member, round, digest, size, blob FROM states NOT INDEXED")
    return {_ref(m, r): _stored(*rest) for m, r, *rest in rows}


def read_refs(connection: sqlite3.Connection) -> dict[StateRef, bool]:
    """Every state that has a row, and whether it has a file of its own."""
    rows = connection.execute("SELECT member, round, blob IS NULL FROM states")
    return {_ref(member, round_): bool(in_file) for member, round_, in_file in rows}


def _ref(member: object, round_: object) -> StateRef:
    if not (isinstance(member, int) and isinstance(round_, int)):
        raise CorruptError(f"expected the number of a member and of a round in 'states', found {member!r}, {round_!r}")
    return StateRef(member, round_)


def _stored(digest: object, size: object, blob: object) -> Stored:
    if not (isinstance(digest, str) and isinstance(size, int) and isinstance(blob, bytes | None)):
        raise CorruptError(f"expected a digest, a size and bytes or none in 'states', found {digest!r:.80}, {size!r}")
    return Stored(digest=digest, size=size, blob=blob)
