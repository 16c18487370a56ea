"""The database of a run directory: opening it, checking that it is one, transactions, and errors for people."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pbt.errors import CorruptError, RunError, RunFormatError

APPLICATION_ID = 0x70627431
"""In the header of every run database ("pbt1"), so that `file` and we know one when we see it."""
USER_VERSION = 1
"""Version of tables and texts; raised with every change that older readers would misread."""


def connect(database: Path, mode: str, patience: float) -> sqlite3.Connection:
    """A connection that never creates a file it was not asked to, with transactions begun by hand.

    Args:
        database: The file.
        mode: `ro`, `rw` or `rwc`, as in SQLite's URIs.
        patience: Seconds to wait for somebody else's lock.
    """
    uri = f"{database.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=patience)


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Check that this is the database of a run, of a version that is known here.

    Raises:
        RunFormatError: It is not.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == 0 and version == 0 and is_empty(connection):
        raise RunFormatError(f"{path}: expected a run, found one whose creation was interrupted; start it again")
    if application != APPLICATION_ID:
        raise RunFormatError(f"{path}: expected a run directory, found a database of another program ({application})")
    if version != USER_VERSION:
        age = "newer" if version > USER_VERSION else "older"
        raise RunFormatError(
            f"{path}: expected format {USER_VERSION}, found the {age} format {version}; "
            "use the version of this package that wrote it"
        )


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever committed to the database."""
    count: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return count == 0


_REMEDIES = {
    "SQLITE_FULL": "the disk is full; make room, then resume the run",
    "SQLITE_IOERR": "the disk cannot be read or written; repair it, then resume the run",
    "SQLITE_BUSY": "another program holds the database for too long; end it, then resume the run",
    "SQLITE_READONLY": "it may not be written; change its permissions",
    "SQLITE_CANTOPEN": "it cannot be opened; is it there, and may it be read?",
}


@contextmanager
def plain_errors(database: Path) -> Iterator[None]:
    """Turn what SQLite raises into errors that say what to do.

    Raises:
        CorruptError: The database is damaged.
        RunFormatError: It is no database.
        RunError: It cannot be used for any other reason.
    """
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_NOTADB":
            raise RunFormatError(f"{database}: expected the database of a run, found something else") from error
        if name.startswith("SQLITE_CORRUPT"):
            raise CorruptError(f"{database}: damaged ({error}); `pbt verify` lists everything that is") from error
        for known, remedy in _REMEDIES.items():
            if name.startswith(known):
                raise RunError(f"{database}: {remedy} ({name})") from error
        raise RunError(f"{database}: {error} ({name or type(error).__name__})") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk or a failed write has ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
