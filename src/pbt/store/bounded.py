"""A connection that reads no more from a database than its file can hold.

In a file made by hand pages of a b-tree can share children, so that 70 kB have rows without end. SQLite follows them;
here, the rows of a query end with the bytes of the file, and its steps with a multiple of them. A `count(*)` is one
step for SQLite and would not end: no query here has one.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

_LEAST = 4
"""Bytes that a row takes at least on its page."""
_STEPS = 100_000
"""Instructions of SQLite's virtual machine between two calls of the progress handler."""
_FREE, _PER_BYTE = 200, 8 / _STEPS
"""Calls that every query may cause, and further ones per byte of the file; a row takes about 20 instructions."""
_SIZE = ("page_count", "page_size")
_LONG = (str, bytes)

Parameters = Any
"""As in `sqlite3`."""


class EndlessError(sqlite3.DatabaseError):
    """A query has more rows than the file holds."""


class BoundedConnection(sqlite3.Connection):
    """A connection whose queries are bounded; other statements are not."""

    _file = ""
    _calls = 0
    _is_query = False

    def bound(self, file: str | Path) -> None:
        """Bound the queries from now on.

        Args:
            file: The database.
        """
        self._file = str(file)
        self.set_progress_handler(self._count, _STEPS)

    def execute(self, sql: str, parameters: Parameters = (), /) -> sqlite3.Cursor:
        """Execute a statement."""
        self._calls, self._is_query = 0, sql.startswith("SELECT")
        cursor: sqlite3.Cursor = self.cursor(cast("Any", _BoundedCursor))
        return cursor.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> sqlite3.Cursor:
        """Execute a statement with each of several parameters."""
        self._is_query = False
        return super().executemany(sql, parameters)

    def size(self) -> int:
        """Bytes of the database, with those of a transaction in progress."""
        (pages,), (size,) = (super(BoundedConnection, self).execute(f"PRAGMA {name}").fetchone() for name in _SIZE)
        return int(pages * size)

    def _count(self) -> bool:
        """Whether to interrupt the statement."""
        self._calls += 1
        if not self._is_query or self._calls <= _FREE:
            return False
        return self._calls > _FREE + Path(self._file).stat().st_size * _PER_BYTE


class _BoundedCursor(sqlite3.Cursor):
    def __iter__(self) -> Any:
        return iter(self.fetchall())

    def fetchall(self) -> list[Any]:
        """All rows.

        Raises:
            EndlessError: They have more bytes than the file.
        """
        found: list[Any] = []
        room = -1
        # One after the other: SQLite lets a row be as long as its file, and a thousand of them would fill memory.
        for row in iter(self.fetchone, None):
            if not found:
                room = cast("BoundedConnection", self.connection).size()
            room -= _LEAST
            for value in row:
                if type(value) in _LONG:
                    room -= len(value)
            if room < 0:
                raise EndlessError("more rows than the file holds")
            found.append(row)
        return found
