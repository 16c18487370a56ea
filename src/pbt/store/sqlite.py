"""A run directory, for the one process that writes it: an SQLite log, immutable state files, a lock.

The database has a rollback journal and `synchronous=EXTRA`: there are few commits, each must survive a loss of
power, and readers need nothing but the file itself.
"""

import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pbt.core.events import Event
from pbt.core.population import StateRef, Stored
from pbt.errors import CorruptError, RunError, RunFormatError
from pbt.store import checksums as seals
from pbt.store import tables
from pbt.store.base import JournalEntry, NewEntry, Problem
from pbt.store.database import LOOK, check_format, check_journal, connect, is_empty, plain_errors, transaction
from pbt.store.event_rows import check_named, to_event, to_json, to_row
from pbt.store.files import TEMPORARY, StateFiles, file_name, ref_of, sync_folder
from pbt.store.layout import DATABASE, JOURNAL, LOCK, STATES, already_there, check_own, check_vacant, os_errors
from pbt.store.lock import WriterLock
from pbt.store.verify import verify_run

_PATIENCE = 60.0
"""Seconds to wait for readers, whose reads are short."""


class RunStore:
    """The writer of a run directory. Made by `create` or `open`; a context manager.

    Used by one thread. Whatever happens to the process, `open` finds what the last commit left.
    """

    def __init__(self, path: Path, lock: WriterLock, connection: sqlite3.Connection) -> None:
        self._path = path
        self._lock = lock
        self._connection = connection
        self._states = StateFiles(path / STATES)
        self._meta = tables.read_meta(connection)
        # What is alive; None: not read since the run was opened.
        self._stored: dict[StateRef, Stored | None] = {}
        # Swept, and without a file: their rows go along with the next transaction, which saves one of their own.
        self._swept: list[StateRef] = []
        self._clear_leftovers()

    @classmethod
    def create(cls, path: str | Path, meta: Mapping[str, Any]) -> Self:
        """A new run directory, complete or, after a crash, free to be created again.

        Args:
            path: The directory: not there yet, empty, or left by an interrupted creation.
            meta: Plain values to record; `space` (from `Space.to_dict`) gives the views their columns.

        Raises:
            RunExistsError: There is something already.
            RunLockedError: Another process writes to it.
            RunError: The disk cannot be written.
            UsageError: Meta holds something else than plain values.
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
        """The run that is there, as its last commit left it.

        Raises:
            RunFormatError: This is no run directory, or one of another version.
            RunLockedError: Another process writes to it.
            CorruptError: The database is damaged.
            RunError: The disk cannot be written.
        """
        path = Path(path)
        if not (path / DATABASE).is_file():
            found = "a directory without one" if path.is_dir() else "nothing there" if not path.exists() else "a file"
            raise RunFormatError(f"{path}: expected a run directory, with {DATABASE} in it, found {found}")
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
                if new is not None:
                    _create(connection, path, new, hparams)
                check_format(connection, path)
                tables.check_tables(connection, path)
                # Kept in the file, so not before it is known to be ours.
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
        """What executors put states into and get them from."""
        return self._states

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._path

    @property
    def meta(self) -> dict[str, Any]:
        """What was recorded at creation (a copy)."""
        return dict(self._meta)

    def update_meta(self, **changes: Any) -> None:
        """Record more, or other values, durably.

        Raises:
            UsageError: Something else than plain values.
            RunError: The disk cannot be written.
        """
        texts = {key: to_json(value, f"meta '{key}'") for key, value in changes.items()}
        with self._transaction() as connection:
            tables.write_meta(connection, texts)
            self._meta = tables.read_meta(connection)

    def events(self) -> list[Event]:
        """The whole log, in order.

        Raises:
            CorruptError: A row is no event.
        """
        with plain_errors(self._path / DATABASE):
            rows = tables.read_events(self._connection)
        return [to_event(row.data, row.id) for row in rows]

    def commit(
        self, events: Sequence[Event], stored: Mapping[StateRef, Stored] | None = None, notes: Sequence[NewEntry] = ()
    ) -> None:
        """Append events, the states they name and notes in one transaction; durable when this returns.

        Raises:
            RunError: An event names a state that is not there, or the disk cannot be written. Nothing was written.
            UsageError: An event or a note holds something else than plain values. Nothing was written.
        """
        stored = stored or {}
        check_named(events, stored, self._stored)
        self._check_files(stored)
        clock = time.time()
        event_rows, note_rows = [to_row(event) for event in events], tables.note_rows(notes, clock)
        with self._transaction() as connection:
            tables.write_events(connection, event_rows, clock)
            tables.write_states(connection, stored)
            tables.write_journal(connection, note_rows)
        self._stored.update(stored)

    def note(self, kind: str, **details: Any) -> None:
        """Write one note to the journal, durably; notes that can wait go along with a commit.

        Raises:
            UsageError: Something else than plain values.
            RunError: The disk cannot be written.
        """
        self.commit((), notes=[NewEntry(kind=kind, details=details)])

    def journal(self) -> list[JournalEntry]:
        """All notes, in order."""
        with plain_errors(self._path / DATABASE):
            return tables.read_journal(self._connection)

    def stored(self, ref: StateRef) -> Stored:
        """Where a state is: its digest, its size, and its bytes if it has no file of its own.

        Raises:
            KeyError: It was never stored, or it was swept.
        """
        there = self._stored[ref]
        if there is None:
            with plain_errors(self._path / DATABASE):
                there = self._stored[ref] = tables.read_state(self._connection, ref)
        return there

    def load_state(self, ref: StateRef) -> Any:
        """A fresh copy of a state.

        Raises:
            KeyError: It was never stored, or it was swept.
            CorruptError: Its bytes are not the bytes that were written.
        """
        there = self.stored(ref)
        return self._states.get(ref, there.digest, there.blob)

    def sweep(self, keep: Collection[StateRef]) -> int:
        """Forget every state that is not in `keep`; how many that were.

        Rows first: between the two steps there may be a file that nothing names, never a name without a file.

        Raises:
            RunError: The disk cannot be written.
        """
        kept = frozenset(keep)
        gone = [ref for ref in self._stored if ref not in kept]
        if not gone:
            return 0
        in_files = [ref for ref in gone if self._in_file(ref)]
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
        return len(gone)

    def verify(self) -> list[Problem]:
        """Everything that is wrong."""
        return verify_run(self._path)

    def close(self) -> None:
        """Let go of the run; whatever was committed is there. May be called twice."""
        self._connection.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with plain_errors(self._path / DATABASE), transaction(self._connection):
            tables.delete_states(self._connection, self._swept)
            yield self._connection
        self._swept.clear()

    def _in_file(self, ref: StateRef) -> bool:
        return self.stored(ref).blob is None

    def _check_files(self, stored: Mapping[StateRef, Stored]) -> None:
        for ref, there in stored.items():
            path = self._path / STATES / file_name(ref)
            if there.blob is None and not path.is_file():
                raise RunError(f"{path}: expected the file of a stored state, found none; nothing was written")

    def _clear_leftovers(self) -> None:
        """Remove the files that no row names: their writer died before the commit.

        Done while no worker of this process can be writing yet, which is never certain later.
        """
        refs = tables.read_refs(self._connection)
        self._stored = dict.fromkeys(refs)
        for path in (self._path / STATES).iterdir():
            ref = ref_of(path.name)
            if path.name.endswith(TEMPORARY) or (ref is not None and not refs.get(ref, False)):
                path.unlink(missing_ok=True)


def _check_head(connection: sqlite3.Connection, path: Path) -> None:
    """Check the seal of what decides how a run goes on; a run of an earlier version is sealed as it is."""
    if not seals.has_seals(connection):
        with transaction(connection):
            seals.seal_all(connection)
    elif not seals.head_is_whole(connection):
        raise CorruptError(f"{path / DATABASE}: expected the meta values that were written, found others; {LOOK}")


def _create(connection: sqlite3.Connection, path: Path, meta: Mapping[str, str], hparams: Sequence[str]) -> None:
    """One transaction: a run directory has all of its tables and its meta, or is none yet."""
    if not is_empty(connection):
        raise already_there(path, "a run")
    with transaction(connection):
        tables.create_tables(connection, meta, hparams)
    sync_folder(path)
    sync_folder(path.absolute().parent)
