"""Seals: what every transaction appended, under a digest, because SQLite's pages have none.

A seal covers the rows since the one before, and that one's digest: a changed byte in a row is found, and so is a row
that is gone or came from elsewhere. One per transaction and not per row: a run goes back by whole transactions anyhow,
and a digest for each of its rows would make a log half as long again.

The seal of the head covers what is no list: the definitions of tables and views, and the meta values.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

TABLE = """CREATE TABLE seals (
        what TEXT NOT NULL, last INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (what, last)
    ) WITHOUT ROWID"""
EVENTS, JOURNAL, HEAD = "events", "journal", "head"
COLUMNS: Mapping[str, str] = {
    EVENTS: "id, round, member, kind, clock, data",
    JOURNAL: "id, kind, clock, data",
}
"""What of each list is sealed, the id first."""

Line = tuple[object, ...]
"""A row of a list: these columns."""


class Seal(NamedTuple):
    """The end of a stretch of rows, and the digest of everything up to there."""

    last: int
    digest: str


NOTHING = Seal(0, "")
"""The seal before the first."""


def sealed(before: Seal, lines: Sequence[Line]) -> Seal:
    """The seal of these rows behind another seal; that one itself where there are none."""
    if not lines:
        return before
    # The texts are JSON, which holds no line end, so that no two lists of rows give the same stream of bytes.
    form = " ".join(["%s"] * len(lines[0]))
    text = "\n".join([before.digest, *[form % line for line in lines]])
    return Seal(_id(lines[-1]), hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


class LoggedTransaction(NamedTuple):
    """The rows of one transaction."""

    first: int
    last: int
    lines: Sequence[Line]
    whole: bool
    """Whether they are what was sealed."""


def stretches(lines: Sequence[Line], seals: Iterable[Seal], before: Seal = NOTHING) -> list[LoggedTransaction]:
    """The rows by transaction, each checked by itself; rows that no seal covers are the last stretch, and not whole."""
    found: list[LoggedTransaction] = []
    place = 0
    for seal in seals:
        begin = place
        while place < len(lines) and _id(lines[place]) <= seal.last:
            place += 1
        own = lines[begin:place]
        found.append(LoggedTransaction(before.last + 1, seal.last, own, bool(own) and sealed(before, own) == seal))
        before = seal
    if place < len(lines):
        found.append(LoggedTransaction(before.last + 1, max(map(_id, lines[place:])), lines[place:], whole=False))
    return found


def _id(line: Line) -> int:
    # A damaged row may have anything there; it belongs to no stretch then.
    return line[0] if isinstance(line[0], int) else 0


def has_seals(connection: sqlite3.Connection) -> bool:
    """Whether the run has seals; those of earlier versions have none until they go on."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'seals'").fetchone() is not None


def read_seals(connection: sqlite3.Connection, what: str, after: int = 0) -> tuple[Seal, list[Seal]]:
    """The newest seal up to a row, and all behind that row."""
    last = connection.execute(
        "SELECT last, digest FROM seals WHERE what = ? AND last <= ? ORDER BY last DESC LIMIT 1", (what, after)
    ).fetchone()
    behind = connection.execute(
        "SELECT last, digest FROM seals WHERE what = ? AND last > ? ORDER BY last", (what, after)
    ).fetchall()
    return _seal(last), [_seal(row) for row in behind]


def newest_seal(connection: sqlite3.Connection, what: str) -> Seal:
    """The seal that the next one is chained to."""
    row = connection.execute(
        "SELECT last, digest FROM seals WHERE what = ? ORDER BY last DESC LIMIT 1", (what,)
    ).fetchone()
    return _seal(row)


def _seal(row: Line | None) -> Seal:
    if row is None:
        return NOTHING
    # A damaged seal may be anything; it seals nothing then.
    last, digest = row
    return Seal(last if isinstance(last, int) else 0, digest if isinstance(digest, str) else "")


def read_lines(connection: sqlite3.Connection, what: str, after: int = 0) -> list[Line]:
    """The rows of a list behind an id, as they are sealed."""
    query = f"SELECT {COLUMNS[what]} FROM {what} WHERE id > ? ORDER BY id"  # noqa: S608 (names of ours)
    return connection.execute(query, (after,)).fetchall()


def write_seal(connection: sqlite3.Connection, what: str, seal: Seal) -> None:
    """Add a seal; where it is the one before, nothing."""
    connection.execute("INSERT OR IGNORE INTO seals VALUES (?, ?, ?)", (what, *seal))


def head_seal(connection: sqlite3.Connection) -> Seal:
    """The seal of the definitions and of meta as they are."""
    definitions = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
    values = connection.execute("SELECT key, value FROM meta ORDER BY key").fetchall()
    text = repr([definitions, values])
    return Seal(0, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())


def seal_head(connection: sqlite3.Connection) -> None:
    """Write the seal of the head anew, after a change."""
    connection.execute("INSERT OR REPLACE INTO seals VALUES (?, ?, ?)", (HEAD, *head_seal(connection)))


def seal_all(connection: sqlite3.Connection) -> None:
    """Give seals to a run that has none: from now on it is what it is now."""
    connection.execute(TABLE)
    for what in COLUMNS:
        lines = read_lines(connection, what)
        if lines:
            write_seal(connection, what, sealed(NOTHING, lines))
    seal_head(connection)


def head_is_whole(connection: sqlite3.Connection) -> bool:
    """Whether definitions and meta are what was sealed."""
    return newest_seal(connection, HEAD) == head_seal(connection)
