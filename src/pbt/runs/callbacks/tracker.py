"""Base class of trackers: every record is sent once and in order, across interruptions."""

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, ClassVar

from pbt.errors import RunError
from pbt.runs.callbacks import (
    Callback,
    CallbackRecord,
    Copied,
    MemberFailure,
    MemberReport,
    RoundEnd,
    RunEnd,
    RunStart,
    past,
)
from pbt.runs.callbacks.curves import Curves
from pbt.runs.schedule_io import schedule_text
from pbt.store.durable import write_durable

Ids = MutableMapping[str, str]
"""The tracker's ids of the run and its members, by names of this package."""
_ROUNDS = "rounds"


class Tracker(Callback, ABC):
    """Sends a run to a tracker, and continues there when the run is resumed.

    A file in the run directory records the tracker's ids and the progress: records that were logged but not sent,
    because the process was killed or the tracker unreachable, are sent on resume. After a failed attempt the rest waits
    until the end of the round, so that an unreachable tracker costs one attempt per round.

    A subclass defines how a record is sent.
    """

    file: ClassVar[str]
    """Name of that file."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._path: Path | None = None
        self._ids: Ids = {}
        self._sent: dict[str, int] = {}
        self._curves = Curves()
        self._waiting: deque[tuple[CallbackRecord, str]] = deque()
        self._open = self._away = False

    @abstractmethod
    def begin(self, start: RunStart, ids: Ids) -> None:
        """Find the run with these ids, or replace them by those of a new one."""

    @abstractmethod
    def send(self, record: CallbackRecord, suffix: str) -> None:
        """Send a record; `suffix` is appended to the names of its curves."""

    @abstractmethod
    def finish(self, end: RunEnd, schedule: str | None) -> None:
        """Send the schedule of the best network as JSON, if there is one, and release all resources."""

    def on_run_start(self, start: RunStart) -> None:
        """Find or create the run, and send missing records."""
        self._forget()
        self._path = None if start.run.path is None else start.run.path / self.file
        self._read()
        known = dict(self._ids)
        self.begin(start, self._ids)
        if not known.items() <= self._ids.items():
            self._sent = {}
        self._open = True
        self._write()
        for record in past(start.run):
            self._take(record)
        self._work()

    def on_member_reported(self, report: MemberReport) -> None:
        """Send the report."""
        self._take(report)
        self._work()

    def on_member_failed(self, failure: MemberFailure) -> None:
        """Send the failure."""
        self._take(failure)
        self._work()

    def on_exploit(self, copied: Copied) -> None:
        """Send the copy."""
        self._take(copied)
        self._work()

    def on_round_end(self, end: RoundEnd) -> None:
        """Send the end of the round, and everything still unsent."""
        self._take(end)
        self._away = False
        self._work()

    def on_run_end(self, end: RunEnd) -> None:
        """Send the rest and the schedule, and release the tracker."""
        if not self._open:
            return
        self._away = False
        try:
            self._work()
        finally:
            self._open = False
            self.finish(end, schedule_text(end.run.best_schedule) if end.run.view.best is not None else None)

    def _take(self, record: CallbackRecord) -> None:
        if not self._open:
            return  # the tracker was unreachable at the start: all records are sent when the run is resumed
        # Computed also for records sent by an earlier process: the splits of curves depend on all earlier ones.
        suffix = self._curves.suffix(record) if isinstance(record, MemberReport) else ""
        self._waiting.append((record, suffix))

    def _work(self) -> None:
        if self._away or not self._waiting:
            return
        try:
            while self._waiting:
                record, suffix = self._waiting[0]
                lane, position = _position(record)
                # An earlier process may have sent it; and decisions made on extending a run are both in its past at the
                # start and reported by a hook.
                if position > self._sent.get(lane, 0):
                    self.send(record, suffix)
                    self._sent[lane] = position
                self._waiting.popleft()
        except Exception:
            self._away = True
            raise
        finally:
            self._write()

    def _read(self) -> None:
        """Load the file written by an earlier process, if there is one; RunError if it is unreadable."""
        if self._path is None or not self._path.is_file():
            return
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            self._ids = {str(name): str(value) for name, value in kept["ids"].items()}
            self._sent = {str(lane): int(position) for lane, position in kept["sent"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{self._path}: cannot be read ({error}); delete it to start anew in the tracker") from error

    def _write(self) -> None:
        if self._path is not None:
            plain: dict[str, Any] = {"ids": dict(self._ids), "sent": self._sent}
            write_durable(self._path, (json.dumps(plain, indent=2) + "\n").encode())


def _position(record: CallbackRecord) -> tuple[str, int]:
    """The position of a record: its lane, and a number that increases in log order."""
    if isinstance(record, RoundEnd):
        return _ROUNDS, record.round
    # A copy precedes the report or failure of the round that it starts.
    return str(record.member), 2 * record.round - isinstance(record, Copied)
