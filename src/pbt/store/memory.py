"""The in-memory store, for runs that are not kept, and for tests.

It holds lists and a dict: the same methods over the tables of a run directory in SQLite's `:memory:` are as long, and
slower.
"""

import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pbt.closing import Closing
from pbt.core.events import Event
from pbt.core.population import StateRef, Stored
from pbt.store.base import JournalEntry, NewEntry, Problem
from pbt.store.event_rows import EventValues, check_named, from_json, to_event, to_json, to_row
from pbt.store.files import OBJECTS, REFERENCES, StateFiles
from pbt.store.objects import FileObjects, References
from pbt.store.verify import verify_content


class MemoryStore(Closing):
    """A store without a run directory.

    Events and values pass through the same JSON as on disk, so both stores return equal records.

    Args:
        meta: Plain values to record: seed, space, plan, ...
    """

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self._meta: dict[str, str] = {}
        self._rows: list[EventValues] = []
        self._journal: list[tuple[str, str, float]] = []
        self._stored: dict[StateRef, Stored] = {}
        # Only a state with a Folder makes this folder.
        beside = Path(tempfile.gettempdir()) / f"pbt-{secrets.token_hex(8)}"
        self._states = StateFiles(None, beside=beside)
        self._references = References(FileObjects(beside / OBJECTS))
        weakref.finalize(self, shutil.rmtree, beside, ignore_errors=True)
        self.update_meta(**meta)

    @property
    def states(self) -> StateFiles:
        """The storage of states, for executors."""
        return self._states

    @property
    def path(self) -> None:
        """None: no run directory."""
        return

    @property
    def meta(self) -> dict[str, Any]:
        """A copy of the recorded values."""
        return {key: from_json(text) for key, text in self._meta.items()}

    def update_meta(self, **changes: Any) -> None:
        """Add or replace recorded values."""
        self._meta.update({key: to_json(value, f"meta '{key}'") for key, value in changes.items()})

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        """The log after one event, up to and including another."""
        return [to_event(row.data, id_) for id_, row in enumerate(self._rows[after:until], after + 1)]

    def last(self) -> int:
        """Id of the last event."""
        return len(self._rows)

    def checkpoint(self) -> None:
        """None: a log in memory is not resumed."""
        return

    def save_checkpoint(self, last: int, plain: Any) -> None:
        """Nothing."""

    def commit(
        self, events: Sequence[Event], stored: Mapping[StateRef, Stored] | None = None, notes: Sequence[NewEntry] = ()
    ) -> None:
        """Append events, the states they name and notes, atomically."""
        stored = stored or {}
        check_named(events, stored, self._stored)
        rows = [to_row(event) for event in events]
        entries = [(note.kind, to_json(note.details, f"note '{note.kind}'"), time.time()) for note in notes]
        self._rows += rows
        self._journal += entries
        self._stored.update(stored)

    def note(self, kind: str, **details: Any) -> None:
        """Append one note to the journal."""
        self.commit((), notes=[NewEntry(kind=kind, details=details)])

    def journal(self, kind: str | None = None, after: int = 0) -> list[JournalEntry]:
        """The notes of one kind, or all, in order; only those after an id are read."""
        return [
            JournalEntry(id=id_, kind=found, details=from_json(details), clock=clock)
            for id_, (found, details, clock) in enumerate(self._journal[after:], after + 1)
            if kind in (None, found)
        ]

    def stored(self, ref: StateRef) -> Stored:
        """The record of a state; KeyError if it is not stored."""
        return self._stored[ref]

    def load_state(self, ref: StateRef) -> Any:
        """A fresh copy of a state; KeyError if it is not stored."""
        stored = self._stored[ref]
        return self.states.get(ref, stored.digest, stored.blob)

    def sweep(self, keep: Collection[StateRef]) -> int:
        """Delete every state not in `keep`; returns their number."""
        kept = frozenset(keep)
        gone = [ref for ref in self._stored if ref not in kept]
        for ref in gone:
            if self._stored.pop(ref).folders:
                self._states.remove(ref)
        self._references.sweep(REFERENCES)
        return len(gone)

    def verify(self) -> list[Problem]:
        """All problems of the run; empty if it is intact."""
        return verify_content(self.meta, [*enumerate((row.data for row in self._rows), 1)], self._stored, self.states)

    def close(self) -> None:
        """Nothing to release."""
