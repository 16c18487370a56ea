"""What trackers have in common: everything is sent once and in order, over interruptions too."""

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
from pbt.store.files import write_durable

Ids = MutableMapping[str, str]
"""What a tracker calls this run and its members, by names of ours."""
_ROUNDS = "rounds"


class Tracker(Callback, ABC):
    """Sends a run to a tracker, and goes on in the same place when the run is resumed.

    What the tracker calls things, and how far it is, stands in a file of the run directory: what is logged and was not
    sent, because the process was killed or the tracker was away, is sent when the run goes on. Where sending fails the
    rest waits until the end of a round, so that a tracker that is away costs one attempt per round.

    A subclass says how a record is sent.
    """

    file: ClassVar[str]
    """Its name in the run directory."""

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
        """Find the run that these ids name, or forget them and make another one."""

    @abstractmethod
    def send(self, record: CallbackRecord, suffix: str) -> None:
        """Send a record; `suffix` is what the names of its curves end in."""

    @abstractmethod
    def finish(self, end: RunEnd, schedule: str | None) -> None:
        """Send the schedule that made the best network, as JSON, if there is one; and let go of everything."""

    def on_run_start(self, start: RunStart) -> None:
        """Find or make the run, and send what is missing."""
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
        """Send it."""
        self._take(report)
        self._work()

    def on_member_failed(self, failure: MemberFailure) -> None:
        """Send it."""
        self._take(failure)
        self._work()

    def on_exploit(self, copied: Copied) -> None:
        """Send it."""
        self._take(copied)
        self._work()

    def on_round_end(self, end: RoundEnd) -> None:
        """Send it, and what could not be sent before."""
        self._take(end)
        self._away = False
        self._work()

    def on_run_end(self, end: RunEnd) -> None:
        """Send what is left and the schedule, and let go of the tracker."""
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
            return  # the tracker could not be reached at the start: all of it is sent when the run is resumed
        # Asked also of what was sent by an earlier process: where curves break off depends on all before.
        suffix = self._curves.suffix(record) if isinstance(record, MemberReport) else ""
        self._waiting.append((record, suffix))

    def _work(self) -> None:
        if self._away or not self._waiting:
            return
        try:
            while self._waiting:
                record, suffix = self._waiting[0]
                lane, place = _place(record)
                # An earlier process may have sent it; and what an extended run decides in being taken up is in its
                # past at the start, and told by a hook.
                if place > self._sent.get(lane, 0):
                    self.send(record, suffix)
                    self._sent[lane] = place
                self._waiting.popleft()
        except Exception:
            self._away = True
            raise
        finally:
            self._write()

    def _read(self) -> None:
        """What an earlier process wrote; nothing, where that cannot be read: then the tracker begins anew."""
        if self._path is None or not self._path.is_file():
            return
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            self._ids = {str(name): str(value) for name, value in kept["ids"].items()}
            self._sent = {str(lane): int(place) for lane, place in kept["sent"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{self._path}: cannot be read ({error}); remove it to begin anew in the tracker") from error

    def _write(self) -> None:
        if self._path is not None:
            plain: dict[str, Any] = {"ids": dict(self._ids), "sent": self._sent}
            write_durable(self._path, (json.dumps(plain, indent=2) + "\n").encode())


def _place(record: CallbackRecord) -> tuple[str, int]:
    """Where a record stands: places of a lane grow in the order of the log."""
    if isinstance(record, RoundEnd):
        return _ROUNDS, record.round
    # A copy comes before the report, or the failure, of the round that it begins.
    return str(record.member), 2 * record.round - isinstance(record, Copied)
