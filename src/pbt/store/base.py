"""The interface of a store: a log of events, the states they name, and a journal that no decision reads."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from pbt.core.events import Event
from pbt.core.population import StateRef, Stored
from pbt.store.files import StateFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """A new journal entry: an incident, a warning or a timing; no decision depends on it."""

    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """An entry of the journal."""

    id: int
    """Consecutive, from 1."""
    kind: str
    details: Mapping[str, Any]
    clock: float
    """Time of writing, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A finding of `verify`."""

    what: str
    """The file or record concerned."""
    message: str
    harmless: bool = False
    """True: the run is usable as it is (for example, a file that no record names)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A saved fold of the log up to an event. Only a cache: the log alone gives the same."""

    last: int
    """Id of that event, the last one of a transaction."""
    text: str
    """Its plain values as JSON."""


class Store(Protocol):
    """A log and the states it names. A context manager for one writer in one thread.

    A commit is atomic: it is complete or absent, even if the process is killed.
    """

    @property
    def states(self) -> StateFiles:
        """The storage of states, for executors."""

    @property
    def path(self) -> Path | None:
        """The run directory; None: in memory."""

    @property
    def meta(self) -> dict[str, Any]:
        """A copy of the recorded values: seed, space, plan, ..."""

    def update_meta(self, **changes: Any) -> None:
        """Add or replace recorded values, durably.

        Raises:
            UsageError: A value is not plain.
        """

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        """The log after one event, up to and including another, in order; ids are consecutive from 1.

        Args:
            after: Id of the event before the first one.
            until: Id of the last event, which ends a transaction. Default: the end of the log.
        """

    def last(self) -> int:
        """Id of the last event, which is also the number of events."""

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint; None if there is none, or one that is damaged or belongs to another log."""

    def save_checkpoint(self, last: int, plain: Any) -> None:
        """Replace the checkpoint, or do nothing where none is kept.

        Args:
            last: Id of the last event that it contains, the last one of a transaction.
            plain: Plain values, NaN and infinities encoded as in events.

        Raises:
            RunError: The disk cannot be written.
        """

    def commit(
        self, events: Sequence[Event], stored: Mapping[StateRef, Stored] | None = None, notes: Sequence[NewEntry] = ()
    ) -> None:
        """Append events, the states they name and notes, atomically; durable on return.

        Raises:
            RunError: An event names a state that is not stored, or the disk cannot be written. Nothing was written.
            UsageError: An event or a note contains a value that is not plain. Nothing was written.
        """

    def note(self, kind: str, **details: Any) -> None:
        """Append one note to the journal.

        Raises:
            UsageError: A value is not plain.
        """

    def journal(self, kind: str | None = None, after: int = 0) -> list[JournalEntry]:
        """The notes of one kind, or all, in order; only those after an id are read."""

    def stored(self, ref: StateRef) -> Stored:
        """The record of a state: its digest, its size, and its bytes if it has no file of its own.

        Raises:
            KeyError: The state was never stored, or was swept.
        """

    def load_state(self, ref: StateRef) -> Any:
        """A fresh copy of a state.

        Raises:
            KeyError: The state was never stored, or was swept.
            CorruptError: Its bytes are not the bytes that were written.
        """

    def sweep(self, keep: Collection[StateRef]) -> int:
        """Delete every state not in `keep`; returns their number.

        Raises:
            RunError: The disk cannot be written.
        """

    def verify(self) -> list[Problem]:
        """All problems of the run; empty if it is intact."""

    def close(self) -> None:
        """Release the run. Nothing is lost without it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
