"""Seals: a chained checksum for every transaction, because SQLite's pages have none.

A seal covers the rows added since the previous seal, and that seal's digest: it detects changed, missing and foreign
rows. There is one per transaction rather than per row, because a damaged run is cut at a transaction anyway, and a
digest per row would make a log half as long again.

The seal of the head covers everything that is not a list of rows: the definitions of tables and views, and meta. The
seal of a checkpoint is chained to the log's seal at its event, so that it belongs to this log and to no other.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

TABLE = """CREATE TABLE seals (
        what TEXT NOT NULL, last INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (what, last)
    ) WITHOUT ROWID"""
EVENTS, JOURNAL, HEAD, CHECKPOINT = "events", "journal", "head", "checkpoint"
COLUMNS: Mapping[str, str] = {
    EVENTS: "id, round, member, kind, clock, data",
    JOURNAL: "id, kind, clock, data",
}
"""The sealed columns of each list, the id first."""

Line = tuple[object, ...]
"""A row of a list, in these columns."""


class Seal(NamedTuple):
    """The id of the last row of a transaction, and the digest of all rows up to there."""

    last: int
    digest: str


NOTHING = Seal(0, "")
"""The seal of an empty list."""
_END = (1 << 63) - 1
"""Beyond every id."""


def sealed(before: Seal, lines: Sequence[Line]) -> Seal:
    """The seal of these rows after another seal; that seal itself if there are none."""
    if not lines:
        return before
    # Each text is JSON without line ends, so distinct lists of rows give distinct byte streams.
    form = " ".join(["%s"] * len(lines[0]))
    text = "\n".join([before.digest, *[form % line for line in lines]])
    return Seal(_id(lines[-1]), hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


class LoggedTransaction(NamedTuple):
    """The rows of one transaction."""

    first: int
    last: int
    lines: Sequence[Line]
    whole: bool
    """Whether the rows match their seal."""


def transactions(lines: Sequence[Line], seals: Iterable[Seal], before: Seal = NOTHING) -> list[LoggedTransaction]:
    """Group rows by transaction and check each; rows after the last seal form a final transaction that is not whole."""
    found: list[LoggedTransaction] = []
    position = 0
    for seal in seals:
        begin = position
        while position < len(lines) and _id(lines[position]) <= seal.last:
            position += 1
        rows = lines[begin:position]
        found.append(LoggedTransaction(before.last + 1, seal.last, rows, bool(rows) and sealed(before, rows) == seal))
        before = seal
    if position < len(lines):
        found.append(LoggedTransaction(before.last + 1, max(map(_id, lines[position:])), lines[position:], whole=False))
    return found


def _id(line: Line) -> int:
    # A damaged row may have any value here; it then belongs to no transaction.
    return line[0] if isinstance(line[0], int) else 0


def has_seals(connection: sqlite3.Connection) -> bool:
    """Whether the run has seals; a run of an earlier version gets them when it is resumed."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'seals'").fetchone() is not None


def read_seals(
    connection: sqlite3.Connection, what: str, after: int = 0, until: int | None = None
) -> tuple[Seal, list[Seal]]:
    """The newest seal up to a row, and all later seals, up to another row."""
    last = connection.execute(
        "SELECT last, digest FROM seals WHERE what = ? AND last <= ? ORDER BY last DESC LIMIT 1", (what, after)
    ).fetchone()
    behind = connection.execute(
        "SELECT last, digest FROM seals WHERE what = ? AND last > ? AND last <= ? ORDER BY last",
        (what, after, _END if until is None else until),
    ).fetchall()
    return _seal(last), [_seal(row) for row in behind]


def newest_seal(connection: sqlite3.Connection, what: str) -> Seal:
    """The seal to chain the next one to."""
    row = connection.execute(
        "SELECT last, digest FROM seals WHERE what = ? ORDER BY last DESC LIMIT 1", (what,)
    ).fetchone()
    return _seal(row)


def _seal(row: Line | None) -> Seal:
    if row is None:
        return NOTHING
    # A damaged seal may have any value; it then matches nothing.
    last, digest = row
    return Seal(last if isinstance(last, int) else 0, digest if isinstance(digest, str) else "")


def read_lines(connection: sqlite3.Connection, what: str, after: int = 0, until: int | None = None) -> list[Line]:
    """The rows of a list after an id, up to another, in their sealed columns."""
    query = f"SELECT {COLUMNS[what]} FROM {what} WHERE id > ? AND id <= ? ORDER BY id"  # noqa: S608 (names of ours)
    return connection.execute(query, (after, _END if until is None else until)).fetchall()


def checkpoint_seal(before: Seal, text: str) -> Seal:
    """The seal of a checkpoint of the log up to a seal."""
    digest = hashlib.sha256(f"{before.digest}\n{before.last}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()
    return Seal(before.last, digest)


def write_seal(connection: sqlite3.Connection, what: str, seal: Seal) -> None:
    """Add a seal, unless it is the previous one."""
    connection.execute("INSERT OR IGNORE INTO seals VALUES (?, ?, ?)", (what, *seal))


def head_seal(connection: sqlite3.Connection) -> Seal:
    """The seal of the current definitions and meta values."""
    definitions = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
    values = connection.execute("SELECT key, value FROM meta ORDER BY key").fetchall()
    text = repr([definitions, values])
    return Seal(0, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


def seal_head(connection: sqlite3.Connection) -> None:
    """Replace the seal of the head, after a change."""
    connection.execute("INSERT OR REPLACE INTO seals VALUES (?, ?, ?)", (HEAD, *head_seal(connection)))


def seal_all(connection: sqlite3.Connection) -> None:
    """Seal the present contents of a run without seals."""
    connection.execute(TABLE)
    for what in COLUMNS:
        lines = read_lines(connection, what)
        if lines:
            write_seal(connection, what, sealed(NOTHING, lines))
    seal_head(connection)


def head_is_whole(connection: sqlite3.Connection) -> bool:
    """Whether definitions and meta values match their seal."""
    return newest_seal(connection, HEAD) == head_seal(connection)
