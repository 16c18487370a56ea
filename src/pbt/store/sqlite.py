"""Write access to a run directory: an SQLite log, immutable state files, a lock.

The database uses a rollback journal and `synchronous=EXTRA`: commits are few, each must survive a power loss, and
readers need only the file itself.
"""

import contextlib
import logging
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pbt.closing import Closing
from pbt.core.events import Event
from pbt.core.population import StateRef, Stored
from pbt.errors import CorruptError, RunError, RunFormatError
from pbt.store import checksums, tables
from pbt.store.base import Checkpoint, JournalEntry, NewEntry, Problem
from pbt.store.database import (
    LOOK,
    MOST_BYTES,
    WITH_REPORTS,
    WITH_WAVES,
    check_format,
    check_journal,
    connect,
    is_empty,
    plain_errors,
    transaction,
    version_of,
)
from pbt.store.durable import TEMPORARY, sync_folder
from pbt.store.event_rows import check_named, to_json
from pbt.store.event_text import dump
from pbt.store.files import OBJECTS, REFERENCES, StateFiles, file_name, ref_of
from pbt.store.layout import (
    DATABASE,
    JOURNAL,
    LIVE,
    LOCK,
    SCRATCH,
    STATES,
    already_there,
    check_own,
    check_vacant,
    os_errors,
)
from pbt.store.lock import WriterLock
from pbt.store.objects import FileObjects, References
from pbt.store.verify import verify_run
from pbt.store.waves import to_events, to_rows

log = logging.getLogger("pbt")

_PATIENCE = 60.0
"""Seconds to wait for readers, whose reads are short."""


class RunStore(Closing):
    """The writer of a run directory, made by `create` or `open`. A context manager for one thread.

    After any crash, `open` restores the last commit.
    """

    def __init__(self, path: Path, lock: WriterLock, connection: sqlite3.Connection) -> None:
        self._path = path
        self._lock = lock
        self._connection = connection
        self._states = StateFiles(path / STATES)
        self._meta = tables.read_meta(connection)
        # The views of a run that began without such rows do not know them.
        self._version = version_of(connection)
        # The stored states; None: not read since the run was opened.
        self._stored: dict[StateRef, Stored | None] = {}
        # Swept states without a file: their rows are deleted with the next transaction, which saves one of their own.
        self._swept: list[StateRef] = []
        self._references = References(FileObjects(path / STATES / OBJECTS))
        self._clear_leftovers()

    @classmethod
    def create(cls, path: str | Path, meta: Mapping[str, Any]) -> Self:
        """Create a run directory; after a crash it is complete, or can be created again.

        Args:
            path: The directory: absent, empty, or left by an interrupted creation.
            meta: Plain values to record; `space` (from `Space.to_dict`) gives the views their columns.

        Raises:
            RunExistsError: The directory is not empty.
            RunLockedError: Another process writes to it.
            RunError: The disk cannot be written.
            UsageError: `meta` contains a value that is not plain.
        """
        path = Path(path)
        texts = {key: to_json(value, f"meta '{key}'") for key, value in meta.items()}
        check_vacant(path)
        check_own(path)
        with os_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(path / LOCK)
        return cls._start(path, lock, "rwc", texts, list(meta.get("space", {})))

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an existing run at its last commit.

        Raises:
            RunFormatError: Not a run directory, or one of another version.
            RunLockedError: Another process writes to it.
            CorruptError: The database is damaged.
            RunError: The disk cannot be written.
        """
        path = Path(path)
        if not (path / DATABASE).is_file():
            found = "a directory without it" if path.is_dir() else "a file" if path.exists() else "nothing"
            raise RunFormatError(f"{path}: expected a run directory with {DATABASE}, found {found}")
        check_own(path)
        with os_errors(path):
            lock = WriterLock(path / LOCK)
        return cls._start(path, lock, "rw")

    @classmethod
    def _start(
        cls,
        path: Path,
        lock: WriterLock,
        mode: str,
        new: Mapping[str, str] | None = None,
        hparams: Sequence[str] = (),
    ) -> Self:
        connection = None
        try:
            with os_errors(path), plain_errors(path / DATABASE):
                (path / STATES).mkdir(exist_ok=True)
                check_journal(path / JOURNAL)
                connection = connect(path / DATABASE, mode, _PATIENCE)
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("PRAGMA fullfsync = ON")  # macOS
                if new is not None:
                    _create(connection, path, new, hparams)
                check_format(connection, path)
                tables.check_tables(connection, path)
                # Stored in the file, so only once it is known to be a run's.
                connection.execute("PRAGMA journal_mode = DELETE")
                _check_head(connection, path)
                return cls(path, lock, connection)
        except BaseException:
            if connection is not None:
                connection.close()
            lock.close()
            raise

    @property
    def states(self) -> StateFiles:
        """The storage of states, for executors."""
        return self._states

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._path

    @property
    def meta(self) -> dict[str, Any]:
        """A copy of the recorded values: seed, space, plan, ..."""
        return dict(self._meta)

    def update_meta(self, **changes: Any) -> None:
        """Add or replace recorded values, durably.

        Raises:
            UsageError: A value is not plain.
            RunError: The disk cannot be written.
        """
        texts = {key: to_json(value, f"meta '{key}'") for key, value in changes.items()}
        with self._transaction() as connection:
            tables.write_meta(connection, texts)
            self._meta = tables.read_meta(connection)

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        """The log after one event, up to and including another, in order.

        Raises:
            CorruptError: A row is not an event.
        """
        with plain_errors(self._path / DATABASE):
            rows = tables.read_events(self._connection, after, until)
        return to_events(((row.id, row.data) for row in rows), after)

    def last(self) -> int:
        """Id of the last event."""
        with plain_errors(self._path / DATABASE):
            return tables.read_last(self._connection)

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint; None if there is none, or one that is damaged or belongs to another log."""
        with plain_errors(self._path / DATABASE):
            return tables.read_checkpoint(self._connection)

    def save_checkpoint(self, last: int, plain: Any) -> None:
        """Replace the checkpoint, durably; one that is too large for a row is left out.

        Raises:
            RunError: The disk cannot be written.
        """
        text = dump(plain)
        if len(text) <= MOST_BYTES // 4:  # at most four bytes per character
            with self._transaction() as connection:
                tables.write_checkpoint(connection, last, text)

    def commit(
        self, events: Sequence[Event], stored: Mapping[StateRef, Stored] | None = None, notes: Sequence[NewEntry] = ()
    ) -> None:
        """Append events, the states they name and notes in one transaction; durable on return.

        Raises:
            RunError: An event names a state that is not stored, or the disk cannot be written. Nothing was written.
            UsageError: An event or a note contains a value that is not plain. Nothing was written.
        """
        stored = stored or {}
        check_named(events, stored, self._stored)
        self._check_files(stored)
        clock = time.time()
        packs = {"pack": self._version >= WITH_WAVES, "reports": self._version >= WITH_REPORTS}
        event_rows, note_rows = to_rows(events, **packs), tables.note_rows(notes, clock)
        with self._transaction() as connection:
            tables.write_events(connection, event_rows, clock)
            tables.write_states(connection, stored)
            tables.write_journal(connection, note_rows)
        self._stored.update(stored)

    def note(self, kind: str, **details: Any) -> None:
        """Append one note to the journal, durably; notes that can wait are passed to `commit`.

        Raises:
            UsageError: A value is not plain.
            RunError: The disk cannot be written.
        """
        self.commit((), notes=[NewEntry(kind=kind, details=details)])

    def journal(self, kind: str | None = None, after: int = 0) -> list[JournalEntry]:
        """The notes of one kind, or all, in order; only those after an id are read."""
        with plain_errors(self._path / DATABASE):
            return tables.read_journal(self._connection, kind, after)

    def stored(self, ref: StateRef) -> Stored:
        """The record of a state: its digest, its size, and its bytes if it has no file of its own.

        Raises:
            KeyError: The state was never stored, or was swept.
        """
        record = self._stored[ref]
        if record is None:
            with plain_errors(self._path / DATABASE):
                record = self._stored[ref] = tables.read_state(self._connection, ref)
        return record

    def load_state(self, ref: StateRef) -> Any:
        """A fresh copy of a state.

        Raises:
            KeyError: The state was never stored, or was swept.
            CorruptError: Its bytes are not the bytes that were written.
        """
        record = self.stored(ref)
        return self._states.get(ref, record.digest, record.blob)

    def sweep(self, keep: Collection[StateRef]) -> int:
        """Delete every state not in `keep`; returns their number.

        Rows are deleted first: in between there may be a file without a row, never a row without its file.

        Raises:
            RunError: The disk cannot be written.
        """
        kept = frozenset(keep)
        gone = [ref for ref in self._stored if ref not in kept]
        if not gone:
            return 0
        with_objects = self._has_objects()
        in_files = [ref for ref in gone if self._in_file(ref, with_objects=with_objects)]
        if in_files:
            with self._transaction() as connection:
                tables.delete_states(connection, gone)
        else:
            self._swept += gone
        for ref in gone:
            del self._stored[ref]
        with os_errors(self._path):
            for ref in in_files:
                self._states.remove(ref)
            self._sweep_objects()
        return len(gone)

    def verify(self) -> list[Problem]:
        """All problems of the run; empty if it is intact."""
        return verify_run(self._path)

    def close(self) -> None:
        """Release the run; everything committed is durable. May be called twice."""
        with contextlib.suppress(OSError):
            (self._path / SCRATCH).rmdir()
        shutil.rmtree(self._path / LIVE, ignore_errors=True)
        self._connection.close()
        self._lock.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with plain_errors(self._path / DATABASE), transaction(self._connection):
            tables.delete_states(self._connection, self._swept)
            yield self._connection
        self._swept.clear()

    def _in_file(self, ref: StateRef, *, with_objects: bool) -> bool:
        return self.stored(ref).blob is None or (with_objects and bool(self._states.references(ref)))

    def _has_objects(self) -> bool:
        return (self._path / STATES / OBJECTS).is_dir()

    def _sweep_objects(self) -> None:
        try:
            self._references.sweep(REFERENCES)
        except ValueError as error:
            # Without this list it is unknown which files are needed, so that all are kept.
            log.warning("%s: the files of swept states are kept: %s", self._path, error)

    def _check_files(self, stored: Mapping[StateRef, Stored]) -> None:
        for ref, record in stored.items():
            paths = [] if record.blob is not None else [self._path / STATES / file_name(ref)]
            if record.folders:
                paths += [self._path / STATES / OBJECTS / sha256 for sha256 in self._states.references(ref)]
            for path in paths:
                if not path.is_file():
                    raise RunError(f"{path}: expected the file of a stored state, found none; nothing was written")

    def _clear_leftovers(self) -> None:
        """Remove the files without a row: their writer died before its commit.

        Done on opening only: later a worker of this process may be writing such a file.
        """
        refs = tables.read_refs(self._connection)
        self._stored = dict.fromkeys(refs)
        for path in (self._path / STATES).iterdir():
            ref, needing = ref_of(path.name), ref_of(path.name, REFERENCES)
            of_a_row = (ref is None or refs.get(ref, False)) and (needing is None or needing in refs)
            if path.name.endswith(TEMPORARY) or not of_a_row:
                path.unlink(missing_ok=True)
        self._sweep_objects()
        for name in (SCRATCH, LIVE):
            shutil.rmtree(self._path / name, ignore_errors=True)


def _check_head(connection: sqlite3.Connection, path: Path) -> None:
    """Check the seal of the meta values, which decide how a run resumes; seal a run of an earlier version as it is."""
    sealed = checksums.has_seals(connection)
    if sealed and not checksums.head_is_whole(connection):
        raise CorruptError(f"{path / DATABASE}: expected the meta values that were written, found others; {LOOK}")
    if sealed and tables.has_checkpoints(connection):
        return
    with transaction(connection):
        if not sealed:
            checksums.seal_all(connection)
        tables.empty_checkpoints(connection)


def _create(connection: sqlite3.Connection, path: Path, meta: Mapping[str, str], hparams: Sequence[str]) -> None:
    """Create all tables and meta values in one transaction, so that a run directory is complete or empty."""
    if not is_empty(connection):
        raise already_there(path, "a run")
    with transaction(connection):
        tables.create_tables(connection, meta, hparams)
    sync_folder(path)
    sync_folder(path.absolute().parent)
