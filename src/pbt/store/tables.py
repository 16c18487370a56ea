"""The tables of a run database, and the statements that read and write them."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pbt.core.fold import sign_of
from pbt.core.population import StateRef, Stored
from pbt.core.recorded import check_recorded
from pbt.errors import CorruptError
from pbt.store import checksums
from pbt.store.base import Checkpoint, JournalEntry, NewEntry
from pbt.store.database import APPLICATION_ID, LOOK, USER_VERSION, is_damage
from pbt.store.event_rows import from_json, to_json
from pbt.store.notes import entry_of, is_time
from pbt.store.views import views
from pbt.store.waves import PlacedRow

_DEFINITIONS: Mapping[str, str] = {
    "meta": "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "events": """CREATE TABLE events (
        id INTEGER PRIMARY KEY, round INTEGER NOT NULL, member INTEGER, kind TEXT NOT NULL, data TEXT NOT NULL,
        clock REAL NOT NULL
    )""",
    # Without this index each step of an ancestry in SQL would scan the whole log.
    "events_by_member": "CREATE INDEX events_by_member ON events (member, round, kind)",
    "states": """CREATE TABLE states (
        member INTEGER NOT NULL, round INTEGER NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, blob BLOB,
        PRIMARY KEY (member, round)
    )""",
    "journal": (
        "CREATE TABLE journal (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, data TEXT NOT NULL, clock REAL NOT NULL)"
    ),
    "seals": checksums.TABLE,
    "checkpoints": "CREATE TABLE checkpoints (last INTEGER PRIMARY KEY, data TEXT NOT NULL)",
}
_LATER = frozenset(("seals", "checkpoints"))
"""Tables that runs of earlier versions lack; they get them when they are resumed."""


class EventRow(NamedTuple):
    """A row of the log; round, member and kind repeat values of `data` for SQL queries by people."""

    id: int
    round: int
    member: int | None
    kind: str
    clock: float
    data: str


def _is_minimized(meta: Mapping[str, str]) -> bool:
    return sign_of(json.loads(meta.get("objective", '"maximize"'))) < 0


def create_tables(connection: sqlite3.Connection, meta: Mapping[str, str], hparams: Sequence[str]) -> None:
    """Create the contents of a new database, within a transaction."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {USER_VERSION}")
    for statement in (*_DEFINITIONS.values(), *views(hparams, minimize=_is_minimized(meta))):
        connection.execute(statement)
    write_meta(connection, meta)


def check_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the tables are those of this package and that there are no triggers.

    A view in place of a table could return endless rows, and a trigger could change written data.

    Raises:
        CorruptError: They are not.
    """
    found = {name: (kind, sql) for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master")}
    for name, sql in _DEFINITIONS.items():
        if found.get(name, (None, None))[1] != sql and not (name in _LATER and name not in found):
            raise CorruptError(f"{path}: expected the tables of a run, found '{name}' missing or different")
    for name, (kind, _) in found.items():
        if kind == "trigger":
            raise CorruptError(f"{path}: expected the tables of a run, found a trigger '{name}', which no run has")


def write_meta(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
    """Set these keys to these JSON texts."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
    checksums.seal_head(connection)


def read_meta(connection: sqlite3.Connection) -> dict[str, Any]:
    """All keys and values.

    Raises:
        CorruptError: A value is none that a run records.
    """
    meta = {key: from_json(text) for key, text in connection.execute("SELECT key, value FROM meta")}
    check_recorded(meta)
    return meta


def write_events(connection: sqlite3.Connection, rows: Sequence[PlacedRow], clock: float) -> None:
    """Append to the log, and seal the rows."""
    first = checksums.newest_seal(connection, checksums.EVENTS).last + 1
    lines = [(first + place, row.round, row.member, row.kind, clock, row.data) for place, row in rows]
    append(connection, checksums.EVENTS, lines)


def append(connection: sqlite3.Connection, what: str, lines: Sequence[checksums.Line]) -> None:
    """Append rows with given ids, and seal them."""
    before = checksums.newest_seal(connection, what)
    marks = ", ".join("?" * len(checksums.COLUMNS[what].split(",")))
    connection.executemany(f"INSERT INTO {what} ({checksums.COLUMNS[what]}) VALUES ({marks})", lines)  # noqa: S608 (ours)
    checksums.write_seal(connection, what, checksums.sealed(before, lines))


def read_events(connection: sqlite3.Connection, after: int = 0, until: int | None = None) -> list[EventRow]:
    """The rows of the log after one id up to another, in order, fetched at once so that decoding blocks no writer.

    Ids are those of events; a row for several has the id of its last one.

    Raises:
        CorruptError: The rows do not match their seals.
    """
    lines = checksums.read_lines(connection, checksums.EVENTS, after, until)
    if checksums.has_seals(connection):
        before, behind = checksums.read_seals(connection, checksums.EVENTS, after, until)
        # After a row in the middle of a transaction, the rest of that transaction cannot be checked.
        skipped = behind[:1] if before.last != after else []
        rest = [line for line in lines if not skipped or int(str(line[0])) > skipped[0].last]
        for part in checksums.transactions(rest, behind[len(skipped) :], skipped[0] if skipped else before):
            if not part.whole:
                raise CorruptError(f"{damaged(part)}; {LOOK}")
    return [EventRow(*line) for line in lines]  # type: ignore[arg-type]


def damaged(part: checksums.LoggedTransaction) -> str:
    """The message for events that do not match their seal."""
    which = f"event {part.first}" if part.first == part.last else f"events {part.first} to {part.last}"
    return f"{which}: expected the rows that were written, found others"


def note_rows(notes: Sequence[NewEntry], clock: float) -> list[tuple[str, str, float]]:
    """Notes as rows of the journal.

    Raises:
        UsageError: A note contains a value that is not plain.
    """
    return [(note.kind, to_json(note.details, f"note '{note.kind}'"), clock) for note in notes]


def write_journal(connection: sqlite3.Connection, rows: Sequence[tuple[str, str, float]]) -> None:
    """Append to the journal, and seal the rows."""
    after = checksums.newest_seal(connection, checksums.JOURNAL).last + 1
    append(
        connection, checksums.JOURNAL, [(id_, kind, clock, data) for id_, (kind, data, clock) in enumerate(rows, after)]
    )


def read_journal(connection: sqlite3.Connection, kind: str | None = None, after: int = 0) -> list[JournalEntry]:
    """The notes of one kind, or all, after an id, in order.

    Raises:
        CorruptError: A row is none that a run writes.
    """
    query = "SELECT id, kind, data, clock FROM journal WHERE (?1 IS NULL OR kind = ?1) AND id > ?2 ORDER BY id"
    return [entry_of(*row) for row in connection.execute(query, (kind, after)).fetchall()]


def empty_checkpoints(connection: sqlite3.Connection) -> None:
    """Make an empty table of checkpoints in a run of an earlier version, within a transaction."""
    if has_checkpoints(connection):
        connection.execute("DELETE FROM checkpoints")  # without a seal
    else:
        connection.execute(_DEFINITIONS["checkpoints"])
        checksums.seal_head(connection)


def has_checkpoints(connection: sqlite3.Connection) -> bool:
    """Whether the run has a table of checkpoints."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'").fetchone() is not None


def write_checkpoint(connection: sqlite3.Connection, last: int, text: str) -> None:
    """Replace the checkpoint, and seal it, within a transaction; nothing if no transaction of the log ends there."""
    before, _ = checksums.read_seals(connection, checksums.EVENTS, last, last)
    if last < 1 or before.last != last:
        return
    for what in ("checkpoints", f"seals WHERE what = '{checksums.CHECKPOINT}'"):
        connection.execute(f"DELETE FROM {what}")  # noqa: S608 (ours)
    connection.execute("INSERT INTO checkpoints VALUES (?, ?)", (last, text))
    checksums.write_seal(connection, checksums.CHECKPOINT, checksums.checkpoint_seal(before, text))


def read_checkpoint(connection: sqlite3.Connection) -> Checkpoint | None:
    """The checkpoint; None if there is none, or one that does not match its seal or the log's."""
    if not (has_checkpoints(connection) and checksums.has_seals(connection)):
        return None
    try:
        row = connection.execute("SELECT last, data FROM checkpoints ORDER BY last DESC LIMIT 1").fetchone()
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return None
    if row is None or not (isinstance(row[0], int) and isinstance(row[1], str)):
        return None
    last, text = row
    before, _ = checksums.read_seals(connection, checksums.EVENTS, last, last)
    expected = checksums.newest_seal(connection, checksums.CHECKPOINT)
    if last != before.last or checksums.checkpoint_seal(before, text) != expected:
        return None
    return Checkpoint(last=last, text=text)


def has_damaged_checkpoint(connection: sqlite3.Connection) -> bool:
    """Whether there is a checkpoint or its seal, but not both as they were written."""
    count = 0
    if has_checkpoints(connection):
        count = len(connection.execute("SELECT 1 FROM checkpoints LIMIT 2").fetchall())
    sealed = checksums.newest_seal(connection, checksums.CHECKPOINT) != checksums.NOTHING
    return (count, sealed) != (0, False) and (count != 1 or read_checkpoint(connection) is None)


def read_round(connection: sqlite3.Connection, ref: StateRef) -> list[EventRow]:
    """The rows of a member's round by the index, in order, not checked against their seals."""
    query = f"SELECT {checksums.COLUMNS[checksums.EVENTS]} FROM events WHERE member = ? AND round = ? ORDER BY id"  # noqa: S608
    return [EventRow(*row) for row in connection.execute(query, ref)]


def read_waves(connection: sqlite3.Connection, kind: str, round_: int) -> list[EventRow]:
    """The rows for many events of a round (`store.waves`), by the index, not checked against their seals."""
    query = (
        f"SELECT {checksums.COLUMNS[checksums.EVENTS]} FROM events "  # noqa: S608
        "WHERE member IS NULL AND round = ? AND kind = ? ORDER BY id"
    )
    return [EventRow(*row) for row in connection.execute(query, (round_, kind))]


def read_kind(connection: sqlite3.Connection, kind: str, until: int) -> list[EventRow]:
    """The rows of one kind of event, in order, not checked against their seals."""
    query = f"SELECT {checksums.COLUMNS[checksums.EVENTS]} FROM events WHERE kind = ? AND id <= ? ORDER BY id"  # noqa: S608
    return [EventRow(*row) for row in connection.execute(query, (kind, until))]


def read_clock(connection: sqlite3.Connection, id_: int) -> float | None:
    """Time of the commit of an event; None if there is no such event."""
    row = connection.execute("SELECT clock FROM events WHERE id >= ? ORDER BY id LIMIT 1", (id_,)).fetchone()
    return row[0] if row is not None and is_time(row[0]) else None


def read_last(connection: sqlite3.Connection) -> int:
    """Id of the last event; 0 before the first."""
    (last,) = connection.execute("SELECT max(id) FROM events").fetchone()
    return last if isinstance(last, int) else 0


def write_states(connection: sqlite3.Connection, stored: Mapping[StateRef, Stored]) -> None:
    """Insert the rows of these states."""
    connection.executemany(
        "INSERT INTO states VALUES (?, ?, ?, ?, ?)",
        [(*ref, record.digest, record.size, record.blob) for ref, record in stored.items()],
    )


def delete_states(connection: sqlite3.Connection, refs: Sequence[StateRef]) -> None:
    """Delete the rows of these states."""
    connection.executemany("DELETE FROM states WHERE member = ? AND round = ?", refs)


def read_state(connection: sqlite3.Connection, ref: StateRef) -> Stored:
    """The record of a state.

    Raises:
        KeyError: It has no row.
    """
    query = "SELECT digest, size, blob FROM states WHERE member = ? AND round = ?"
    row = connection.execute(query, ref).fetchone()
    if row is None:
        raise KeyError(ref)
    return _stored(*row)


def read_states(connection: sqlite3.Connection) -> dict[StateRef, Stored]:
    """The records of all states, read from the table itself, in case its index is damaged."""
    rows = connection.execute("SELECT member, round, digest, size, blob FROM states NOT INDEXED")
    return {_ref(m, r): _stored(*rest) for m, r, *rest in rows}


def read_refs(connection: sqlite3.Connection) -> dict[StateRef, bool]:
    """Every state with a row, and whether it has a file of its own."""
    rows = connection.execute("SELECT member, round, blob IS NULL FROM states")
    return {_ref(member, round_): bool(in_file) for member, round_, in_file in rows}


def _ref(member: object, round_: object) -> StateRef:
    if not (isinstance(member, int) and isinstance(round_, int)):
        raise CorruptError(f"expected the numbers of a member and a round in 'states', found {member!r}, {round_!r}")
    return StateRef(member, round_)


def _stored(digest: object, size: object, blob: object) -> Stored:
    if not (isinstance(digest, str) and isinstance(size, int) and isinstance(blob, bytes | None)):
        raise CorruptError(f"expected a digest, a size and bytes or none in 'states', found {digest!r:.80}, {size!r}")
    return Stored(digest=digest, size=size, blob=blob)
