"""The SQLite database of a run: connections, format checks, transactions and translation of errors."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pbt.errors import CorruptError, DiskError, RunError, RunFormatError, RunUnbegunError
from pbt.store.bounded import BoundedConnection, EndlessError
from pbt.store.durable import MOVED

APPLICATION_ID = 0x70627431
"""Application id in the header of every run database ("pbt1"), by which `file` and this package recognize it."""
VERSIONS = FIRST, WITH_WAVES, WITH_REPORTS = 1, 2, 3
USER_VERSION = WITH_REPORTS
"""Versions of tables and texts; raised with every change that earlier readers would misread. Version 2 has one row for
the members of a wave that continue unchanged (`store.waves`), version 3 also for its reports; a run keeps the version
in which it was begun."""
MOST_BYTES = 1 << 28
"""Limit of one row: far more than any row of a run needs, and small enough for memory."""
LOOK = "`pbt verify` lists all damage, `pbt resume --repair` restores the newest intact round"
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")


def connect(database: Path, mode: str, patience: float) -> sqlite3.Connection:
    """Open a connection without implicit transactions; a file is created only in mode `rwc`.

    Args:
        database: The file.
        mode: `ro`, `rw` or `rwc`, as in SQLite's URIs.
        patience: Seconds to wait for a lock held by another connection.

    Raises:
        CorruptError: Its header selects another kind of journal, with which even a reader would write files.
    """
    _check_mode(database)
    if mode == "rwc":
        database.touch()  # SQLite's own new files are never writable for a group, whatever the umask
    uri = f"{database.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=patience, factory=BoundedConnection)
    connection.bound(database)
    try:
        # The file is untrusted: its definitions have no side effects, its rows are bounded, and cells of damaged pages
        # are checked.
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_mode(database: Path) -> None:
    with contextlib.suppress(OSError), database.open("rb") as file:
        header = file.read(20)
        if header.startswith(b"SQLite format 3\0") and header[18:20] != b"\1\1":
            raise CorruptError(
                f"{database}: expected a database with a rollback journal, found another kind in its header"
            )


def check_journal(journal: Path) -> None:
    """Check that the journal of a killed writer can be rolled back safely.

    A journal can name another file, which SQLite deletes after the rollback. This serves transactions across several
    databases, which a run never has: such a name is an attempt to delete a file.

    Raises:
        CorruptError: It names a file.
    """
    try:
        with journal.open("rb") as file:
            file.seek(-min(8, journal.stat().st_size), os.SEEK_END)
            tail = file.read(8)
    except FileNotFoundError:
        return
    if tail == _SUPER_JOURNAL:
        raise CorruptError(f"{journal}: expected the journal of a run, found one that names another file; remove it")


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Check that this is the database of a run in a known format.

    Raises:
        RunFormatError: It is not.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    version = version_of(connection)
    if application == 0 and version == 0 and is_empty(connection):
        raise RunUnbegunError(f"{path}: expected a run, found one whose creation was interrupted; start it again")
    if application != APPLICATION_ID:
        raise RunFormatError(f"{path}: expected a run directory, found a database of another program ({application})")
    if version not in VERSIONS:
        age = "newer" if version > USER_VERSION else "older"
        raise RunFormatError(
            f"{path}: expected format {USER_VERSION} or earlier, found the {age} format {version}; "
            "use the version of this package that wrote it"
        )


def version_of(connection: sqlite3.Connection) -> int:
    """The version of a run's tables and texts."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever committed to the database."""
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


_OF_THE_DISK = {
    "SQLITE_READONLY_DBMOVED": MOVED,
    "SQLITE_FULL": "the disk is full; make room, then resume the run",
    # SQLite cannot open its journal on a full disk, and does not report the reason.
    "SQLITE_IOERR": "the disk cannot be read or written; make room or repair it, then resume the run",
    "SQLITE_CANTOPEN": "it, or its journal, cannot be opened; make room and check the permissions of its folder",
    "SQLITE_READONLY": "it is not writable; change its permissions, then resume the run",
}
_REMEDIES = {
    "SQLITE_BUSY": "another program locked the database for too long; end it, then resume the run",
}


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error of SQLite means damaged pages or values."""
    # Invalid UTF-8 has no error code of its own.
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_CORRUPT") or "decode to UTF-8" in str(error)


@contextmanager
def plain_errors(database: Path) -> Iterator[None]:
    """Translate exceptions of SQLite into errors with a remedy.

    Raises:
        CorruptError: The database is damaged.
        RunFormatError: It is not a database.
        DiskError: Its disk cannot be read or written.
        RunError: It cannot be used for another reason.
    """
    try:
        yield
    except UnicodeDecodeError as error:  # raised for the name of a column
        raise CorruptError(f"{database}: damaged ({error}); {LOOK}") from error
    except sqlite3.Error as error:
        raise _plain(database, error) from error


def _plain(database: Path, error: sqlite3.Error) -> RunError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_NOTADB":
        return RunFormatError(f"{database}: expected the database of a run, found something else")
    if name == "SQLITE_TOOBIG":
        return CorruptError(f"{database}: expected rows of at most {MOST_BYTES:,} bytes, found a larger one")
    if isinstance(error, EndlessError) or name == "SQLITE_INTERRUPT":
        return CorruptError(f"{database}: expected rows that fit into the file, found more: pages are used repeatedly")
    # A duplicate id of a new row means a damaged log.
    if is_damage(error) or name.startswith("SQLITE_CONSTRAINT"):
        return CorruptError(f"{database}: damaged ({error}); {LOOK}")
    for kind, remedies in ((DiskError, _OF_THE_DISK), (RunError, _REMEDIES)):
        for known, remedy in remedies.items():
            if name.startswith(known):
                return kind(f"{database}: {remedy} ({name})")
    return RunError(f"{database}: {error} ({name or type(error).__name__})")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """An atomic transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk or a failed write has ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
