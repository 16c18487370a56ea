"""What a store answers: a log of events, the states they name, and a journal that no decision reads."""

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
    """Something worth remembering that no decision depends on: an attempt, a warning, a timing."""

    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """A note as it stands in the journal."""

    id: int
    """Counts up from 1."""
    kind: str
    details: Mapping[str, Any]
    clock: float
    """Seconds since 1970, when it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that `verify` found."""

    what: str
    """The file or record."""
    message: str
    harmless: bool = False
    """True: the run can be used as it is (a file that nothing names)."""


class Store(Protocol):
    """A log and the states it names. A context manager, used by one writer in one thread.

    What `commit` was given is either there completely or not at all, whatever happens to the process.
    """

    @property
    def states(self) -> StateFiles:
        """What executors put states into and get them from."""

    @property
    def path(self) -> Path | None:
        """The run directory; None: in memory."""

    @property
    def meta(self) -> dict[str, Any]:
        """What was recorded at creation: seed, space, plan, ... (a copy)."""

    def update_meta(self, **changes: Any) -> None:
        """Record more, or other values, durably.

        Raises:
            UsageError: Something else than plain values.
        """

    def events(self) -> list[Event]:
        """The whole log, in order."""

    def commit(
        self, events: Sequence[Event], stored: Mapping[StateRef, Stored] | None = None, notes: Sequence[NewEntry] = ()
    ) -> None:
        """Append events, the states they name and notes, all or nothing; durable when this returns.

        Raises:
            RunError: An event names a state that is not there, or the disk cannot be written. Nothing was written.
            UsageError: An event or a note holds something else than plain values. Nothing was written.
        """

    def note(self, kind: str, **details: Any) -> None:
        """Write one note to the journal.

        Raises:
            UsageError: Something else than plain values.
        """

    def journal(self) -> list[JournalEntry]:
        """All notes, in order."""

    def stored(self, ref: StateRef) -> Stored:
        """Where a state is: its digest, its size, and its bytes if it has no file of its own.

        Raises:
            KeyError: It was never stored, or it was swept.
        """

    def load_state(self, ref: StateRef) -> Any:
        """A fresh copy of a state.

        Raises:
            KeyError: It was never stored, or it was swept.
            CorruptError: Its bytes are not the bytes that were written.
        """

    def sweep(self, keep: Collection[StateRef]) -> int:
        """Forget every state that is not in `keep`; how many that were.

        Raises:
            RunError: The disk cannot be written.
        """

    def verify(self) -> list[Problem]:
        """Everything that is wrong."""

    def close(self) -> None:
        """Let go of the run. Nothing is lost without it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
