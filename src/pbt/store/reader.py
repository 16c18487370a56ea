"""Read access to a run directory, during a run, after it, and after its writer was killed."""

import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pbt.closing import Closing
from pbt.core.events import Born, Decided, Event, Failed, Opening, Reported
from pbt.core.laws import LogLaws
from pbt.core.population import StateRef, Stored
from pbt.errors import CorruptError, RunError, RunFormatError, RunUnbegunError
from pbt.space import Space
from pbt.store import checksums, tables
from pbt.store.base import Checkpoint, JournalEntry
from pbt.store.database import LOOK, check_format, check_journal, connect, plain_errors
from pbt.store.event_rows import opening_of, report_of, to_event
from pbt.store.files import StateFiles
from pbt.store.layout import DATABASE, JOURNAL, LOCK, STATES, check_own
from pbt.store.lock import is_locked
from pbt.store.waves import KIND, TRAINED, decision_in, reports_in, to_events

_PATIENCE = 30.0
"""Seconds to wait for a writer's commit, which takes milliseconds."""

Answer = TypeVar("Answer")
_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The undecoded contents of a run."""

    lines: Mapping[str, Sequence[checksums.Line]]
    """The sealed columns of the log and the journal."""
    sealed: Mapping[str, Sequence[checksums.Seal]]
    """Their seals; empty if an earlier version wrote the run."""
    head_is_whole: bool
    checkpoint: Checkpoint | None
    has_damaged_checkpoint: bool
    stored: Mapping[StateRef, Stored]


class RunReader(Closing):
    """Reads a run directory without writing to it. A context manager.

    Every read opens the database, runs one query and closes it, so that a reader suspended between two reads never
    blocks the writer. If a killed writer left a hot journal, which must be rolled back before reading, that is done on
    a temporary copy.

    Args:
        path: The run directory.

    Raises:
        RunFormatError: Not a run directory, or one of another version.
        CorruptError: The database is damaged.
        RunError: It cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.states = StateFiles(self.path / STATES)
        self._copy: Path | None = None
        self._copied: _Stamp | None = None
        self._remove: Callable[[], object] | None = None
        if not (self.path / DATABASE).is_file():
            raise RunFormatError(f"{self.path}: expected a run directory with {DATABASE}, found none")
        check_own(self.path)

        def check(connection: sqlite3.Connection) -> None:
            check_format(connection, self.path)
            tables.check_tables(connection, self.path)

        self._ask(check)

    @property
    def meta(self) -> dict[str, Any]:
        """The recorded values: seed, space, plan, ..."""
        return self._ask(tables.read_meta)

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        """The log after one event, up to and including another, in order.

        Raises:
            CorruptError: A row is not an event.
        """
        return to_events(((row.id, row.data) for row in self.rows(after, until)), after)

    def history(self, until: int | None = None) -> list[Event]:
        """The log up to an event, checked against its laws.

        Raises:
            CorruptError: A row is not an event, or cannot have happened.
        """
        events = self.events(0, until)
        self._laws().check(events)
        return events

    def _laws(self) -> LogLaws:
        return LogLaws(Space.from_dict(self.meta.get("space", {})))

    def rows(self, after: int = 0, until: int | None = None) -> list[tables.EventRow]:
        """The undecoded rows of the log after one id, up to and including another.

        Raises:
            CorruptError: The rows do not match their seals.
        """

        def question(connection: sqlite3.Connection) -> list[tables.EventRow]:
            connection.execute("BEGIN")  # rows and seals of the same moment
            return tables.read_events(connection, after, until)

        return self._ask(question)

    def last(self) -> int:
        """Id of the last event."""
        return self._ask(tables.read_last)

    def clock(self, id_: int) -> float | None:
        """Time of the commit of an event, in seconds since 1970; None if there is no such event."""
        return self._ask(lambda connection: tables.read_clock(connection, id_))

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint; None if there is none, or one that is damaged or belongs to another log."""

        def question(connection: sqlite3.Connection) -> Checkpoint | None:
            connection.execute("BEGIN")
            return tables.read_checkpoint(connection)

        return self._ask(question)

    def reports(self, refs: Iterable[StateRef]) -> dict[StateRef, Reported]:
        """The reports of these states, each looked up alone and not checked against the seals.

        Raises:
            CorruptError: The log has no such report.
        """
        wanted = list(refs)
        return self._ask(
            lambda connection: _reports(connection, {ref: tables.read_round(connection, ref) for ref in wanted})
        )

    def failures(self, until: int) -> list[Failed]:
        """The failed rounds up to an event, in order, looked up alone and not checked against the seals.

        Raises:
            CorruptError: A row is not an event.
        """
        rows = self._ask(lambda connection: tables.read_kind(connection, Failed.kind, until))
        return [event for row in rows if isinstance(event := to_event(row.data, row.id), Failed)]

    def path_to(self, ref: StateRef) -> list[tuple[Opening, Reported]]:
        """The rounds that led to a state, first to last, each looked up alone and not checked against the seals.

        Raises:
            CorruptError: The log lacks one of them, or they form a cycle.
        """

        def question(connection: sqlite3.Connection) -> list[tuple[Opening, Reported]]:
            path: list[tuple[Opening, Reported]] = []
            seen: set[StateRef] = set()
            current: StateRef | None = ref
            while current is not None:
                if current in seen:
                    raise CorruptError(f"{self.path}: expected an ancestry, found a cycle at {current}; {LOOK}")
                rows = tables.read_round(connection, current)
                opening = _continued(connection, current, rows) or opening_of(current, rows)
                path.append((opening, _reports(connection, {current: rows})[current]))
                seen.add(current)
                current = path[-1][0].start
            return path[::-1]

        return self._ask(question)

    def contents(self) -> tuple[list[tables.EventRow], dict[StateRef, Stored]]:
        """The undecoded log and the stored states, both of the same moment, unchecked."""
        contents = self.everything()
        rows = [tables.EventRow(*line) for line in contents.lines[checksums.EVENTS]]  # type: ignore[arg-type]
        return rows, dict(contents.stored)

    def everything(self) -> "Contents":
        """Undecoded log, journal, seals and states, all of the same moment, unchecked."""

        def question(connection: sqlite3.Connection) -> Contents:
            connection.execute("BEGIN")
            is_sealed = checksums.has_seals(connection)
            return Contents(
                lines={what: checksums.read_lines(connection, what) for what in checksums.COLUMNS},
                sealed={what: checksums.read_seals(connection, what)[1] for what in checksums.COLUMNS if is_sealed},
                head_is_whole=not is_sealed or checksums.head_is_whole(connection),
                checkpoint=tables.read_checkpoint(connection),
                has_damaged_checkpoint=is_sealed and tables.has_damaged_checkpoint(connection),
                stored=tables.read_states(connection),
            )

        return self._ask(question)

    def journal(self, kind: str | None = None, after: int = 0) -> list[JournalEntry]:
        """The notes of one kind, or all, in order; only those after an id are read."""
        return self._ask(lambda connection: tables.read_journal(connection, kind, after))

    def stored(self, ref: StateRef) -> Stored:
        """The record of a state.

        Raises:
            KeyError: The state was never stored, or was swept.
        """
        return self._ask(lambda connection: tables.read_state(connection, ref))

    def refs(self) -> dict[StateRef, bool]:
        """Every state stored at this moment, and whether it has a file of its own."""
        return self._ask(tables.read_refs)

    def load_state(self, ref: StateRef) -> Any:
        """A fresh copy of a state.

        Raises:
            KeyError: The state was never stored, or was swept.
            CorruptError: Its bytes are not the bytes that were written.
        """
        record = self.stored(ref)
        try:
            return self.states.get(ref, record.digest, record.blob)
        except CorruptError:
            # A running writer may have swept it between the two reads; then its row is gone too.
            self.stored(ref)
            raise

    def damage(self) -> list[str]:
        """Findings of SQLite's integrity check and of a check of the file's length; empty if intact."""

        def check(connection: sqlite3.Connection) -> list[str]:
            connection.execute("BEGIN")
            problems = [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
            # SQLite reads zeros beyond the end of a file, so its check cannot detect zeros cut off.
            expected, size = _lengths(connection)
            connection.execute("ROLLBACK")
            return problems if size == expected else [*problems, f"expected {expected:,} bytes, found {size:,}"]

        return self._ask(check)

    def is_writing(self) -> bool:
        """Whether a writer holds the run at this moment."""
        return is_locked(self.path / LOCK)

    def close(self) -> None:
        """Remove the temporary copy, if any."""
        if self._remove is not None:
            self._remove()
        self._copy = self._copied = self._remove = None

    def _ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        deadline = time.monotonic() + _PATIENCE
        while True:
            with plain_errors(self.path / DATABASE):
                try:
                    with _connected(self.path / DATABASE, "ro") as connection:
                        return question(connection)
                except sqlite3.OperationalError as error:
                    if not _is_hot(error):
                        raise
                copy = self._rolled_back()
                if copy is not None:
                    with _connected(copy, "rw") as connection:
                        return question(connection)
            # A new writer is rolling back the journal in the run directory itself.
            if time.monotonic() > deadline:
                raise RunError(f"{self.path}: changed during every attempt to read it; try again later")
            time.sleep(0.01)

    def _rolled_back(self) -> Path | None:
        """A copy of the database, rolled back to its last commit; None if it changed during the copy."""
        database = self.path / DATABASE
        journal = database.with_name(JOURNAL)
        try:
            check_journal(journal)
            before = _stamp(database, journal)
            if before != self._copied:
                self.close()
                self._copy = Path(tempfile.mkdtemp(prefix="pbt-"))
                self._remove = weakref.finalize(self, shutil.rmtree, self._copy, ignore_errors=True)
                for source in (database, journal):
                    shutil.copyfile(source, self._copy / source.name)
                if _stamp(database, journal) != before:
                    self.close()
                    return None
                self._copied = before
        except FileNotFoundError:
            self.close()
            return None
        except OSError as error:
            raise RunError(
                f"{database}: cannot be copied to {tempfile.gettempdir()} to roll back the journal of a killed writer "
                f"({error.strerror or error}); make room there, or resume the run"
            ) from error
        return self._copy / DATABASE if self._copy is not None else None


def is_begun(path: Path) -> bool:
    """Whether the directory holds a run, intact or not; False after an interrupted creation."""
    if not (path / DATABASE).is_file():
        return False
    try:
        RunReader(path).close()
    except RunUnbegunError:
        return False
    except RunError:
        pass  # reported with its remedy on first use
    return True


def _continued(connection: sqlite3.Connection, ref: StateRef, rows: Sequence[tables.EventRow]) -> Opening | None:
    """The decision of a member without an opening of its own in the rows of its round: it continued with others."""
    if any(row.kind in (Born.kind, Decided.kind) for row in rows):
        return None
    found = (decision_in(row.id, row.data, ref) for row in tables.read_waves(connection, KIND, ref.round))
    return next((one for one in found if one is not None), None)


def _reports(
    connection: sqlite3.Connection, rounds: Mapping[StateRef, Sequence[tables.EventRow]]
) -> dict[StateRef, Reported]:
    """The reports of states, with the rows of their rounds: one without a row of its own shares one with others."""
    shared = [ref for ref, rows in rounds.items() if not any(row.kind == Reported.kind for row in rows)]
    found = {
        report.state: report
        for round_ in {ref.round for ref in shared}
        for row in tables.read_waves(connection, TRAINED, round_)
        for report in reports_in(row.id, row.data, shared)
    }
    return {ref: found.get(ref) or report_of(ref, rows) for ref, rows in rounds.items()}


@contextmanager
def _connected(database: Path, mode: str) -> Iterator[sqlite3.Connection]:
    connection = connect(database, mode, _PATIENCE)
    try:
        yield connection
    finally:
        connection.close()


def _is_hot(error: sqlite3.Error) -> bool:
    """Whether the error means that a hot journal must be rolled back before reading."""
    return getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK"


def _stamp(*paths: Path) -> _Stamp:
    return tuple((found.st_ino, found.st_size, found.st_mtime_ns) for found in (path.stat() for path in paths))


def _lengths(connection: sqlite3.Connection) -> tuple[int, int]:
    """The size of the database according to its pages, and the size of its file."""
    (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    _, _, file = connection.execute("PRAGMA database_list").fetchone()
    return pages * size, Path(file).stat().st_size
