"""Read a `RunSnapshot` from a run directory, also while it is written, or from a run in memory."""

from pathlib import Path
from typing import TYPE_CHECKING

from pbt.core.events import Event
from pbt.report.snapshot import RunSnapshot, snapshot_of
from pbt.runs.catalog import opened
from pbt.runs.log_entries import CURVE
from pbt.runs.results import Run
from pbt.store.base import JournalEntry
from pbt.store.layout import LOCK
from pbt.store.live import read_live
from pbt.store.lock import is_locked
from pbt.store.reader import RunReader

if TYPE_CHECKING:
    from pbt.core.laws import LogLaws


class GrowingReader(RunReader):
    """Reads a run again and again, and keeps its events and notes, so that each is read, decoded and checked once.

    Args:
        path: The run directory.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._decoded: list[Event] = []
        self._notes: list[JournalEntry] = []
        self._began: float | None = None
        self._checked: LogLaws | None = None

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        """The log after one event, up to and including another, in order."""
        stop = self.last() if until is None else until
        began = self.clock(1)
        if began != self._began or stop < len(self._decoded):  # another run in its place
            self._began, self._decoded, self._notes, self._checked = began, [], [], None
        if len(self._decoded) < stop:
            self._decoded += super().events(len(self._decoded), stop)
        return self._decoded[after:stop]

    def journal(self, kind: str | None = None, after: int = 0) -> list[JournalEntry]:
        """The notes of one kind, or all, in order, read after the events."""
        self._notes += super().journal(after=self._notes[-1].id if self._notes else 0)
        return [note for note in self._notes if kind in (None, note.kind) and note.id > after]

    def history(self, until: int | None = None) -> list[Event]:
        """The log up to an event, checked against its laws."""
        events = self.events(0, until)
        laws, self._checked = self._checked or self._laws(), None  # kept only if the events are right
        laws.check(events[laws.last :])
        self._checked = laws
        return events


def read_snapshot(run: Run | str | Path, reader: RunReader | None = None) -> RunSnapshot:
    """Read the current state of a run; the log is read once, so a round is included whole or not at all.

    Args:
        run: The run, or its directory.
        reader: A reader of the directory, used again. Default: a new one.

    Raises:
        RunFormatError: The path is not a run directory, has another version, or was not created by `pbt.run`.
        CorruptError: The database is damaged.
    """
    if not isinstance(run, Run):
        with opened(run, reader) as (found, state):
            # A round's times are committed together with the round, so the journal, read later, has them all.
            writing = state == "running"
            live = read_live(Path(run)) if writing else []
            return snapshot_of(found, found.journal(), writing=writing, live=live)
    if run.path is None:
        return snapshot_of(run, [note for note in run.journal() if note.kind in {CURVE, "failure"}])
    writing = is_locked(run.path / LOCK)
    return snapshot_of(run, run.journal(), writing=writing, live=read_live(run.path) if writing else [])
