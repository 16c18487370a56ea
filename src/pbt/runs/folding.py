"""Fold of a stored log from its newest checkpoint, or from its beginning; and when to write the next checkpoint."""

import contextlib
import time
from typing import Protocol

from pbt.core.checkpoint import FoldedLog, from_plain, to_plain, unfolded
from pbt.core.events import Event
from pbt.core.laws import LogLaws, check_fold
from pbt.core.population import View
from pbt.store.base import Checkpoint, Store
from pbt.store.plain_json import decoded

FEWEST = 1000
"""Events after which a checkpoint is worth its transaction."""
SHARE = 0.02
"""The largest share of a run's time that goes into checkpoints."""


class FoldableLog(Protocol):
    """A store, or the reader of a run directory."""

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        """The log after one event, up to and including another, in order."""

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, if it is intact."""


def fold_log(log: FoldableLog, empty: View, until: int | None = None) -> FoldedLog:
    """The fold of a log up to an event; only the part after the checkpoint is read.

    Args:
        log: The log.
        empty: The view before the first event. A checkpoint without the history or the ages that it asks for is not
            used.
        until: Id of the last event. Default: the end of the log.

    Raises:
        CorruptError: The part that is read is damaged, or cannot have happened.
    """
    saved, folded = log.checkpoint(), None
    if saved is not None and (until is None or saved.last <= until):
        # A damaged checkpoint does not match its seal. Values that are no checkpoint are those of another version.
        with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError):
            folded = _checked(from_plain(decoded(saved.text), saved.last, empty))
    if folded is None:
        folded = unfolded(empty)
    events = log.events(folded.standings.last, until)
    LogLaws(empty.space, folded).check(events)
    return folded.after(events)


def _checked(folded: FoldedLog | None) -> FoldedLog | None:
    if folded is not None:
        check_fold(folded)
    return folded


class CheckpointWriter:
    """Writes the checkpoints of a run: after a round or more of the population, and at its end.

    Args:
        store: The store of the run.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        saved = store.checkpoint()
        self._saved = 0 if saved is None else saved.last
        self._next = 0.0

    def consider(self, folded: FoldedLog) -> None:
        """Save the fold if the log has grown enough since the last checkpoint."""
        grown = folded.standings.last - self._saved
        if grown >= max(FEWEST, 2 * len(folded.view.members)) and time.monotonic() >= self._next:
            self.save(folded)

    def save(self, folded: FoldedLog) -> None:
        """Save the fold unless it is the last checkpoint, or the run is in memory."""
        last = folded.standings.last
        if self._store.path is None or last == self._saved:
            return
        started = time.monotonic()
        self._store.save_checkpoint(last, to_plain(folded))
        self._saved, ended = last, time.monotonic()
        self._next = ended + (ended - started) / SHARE
