"""The observer that calls the callbacks, and keeps the run going when one raises."""

import contextlib
import logging
import sys
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from pbt.core.events import Born, Event, MemoryUpdated
from pbt.errors import PBTError, UsageError
from pbt.executors.base import Outcome
from pbt.runs.callbacks.base import Callback
from pbt.runs.callbacks.records import (
    Copied,
    MemberFailure,
    MemberReport,
    Records,
    RoundEnd,
    RunEnd,
    RunOutcome,
    RunStart,
)
from pbt.runs.engine import Engine, Observer
from pbt.runs.results import Run

log = logging.getLogger("pbt")

_HOOK: Mapping[type, str] = {
    MemberReport: "on_member_reported",
    MemberFailure: "on_member_failed",
    Copied: "on_exploit",
    RoundEnd: "on_round_end",
}


class Callbacks(Observer):
    """Calls callbacks at the events of a run.

    Args:
        callbacks: The callbacks, in the order of their calls.
        known: Number of events logged before this process, which are not reported; None: all events present at the
            start.

    Raises:
        UsageError: An object that is not an instance of `Callback`.
    """

    def __init__(self, callbacks: Sequence[Callback], known: int | None = None) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise UsageError(f"callbacks: expected instances of pbt.Callback subclasses, got {callback!r}")
        self._callbacks = tuple(callbacks)
        self._known = known
        self._engine: Engine | None = None
        self._run: Run | None = None
        self._reported = 0
        self._records = Records(1)
        self._points: dict[tuple[int, int], Any] = {}
        """Of the rounds that are not logged yet."""
        self._calls: deque[tuple[Callback, str, Any]] = deque()
        self._started: deque[Callback] = deque()
        self._raised: set[tuple[int, str]] = set()

    def on_start(self, engine: Engine) -> None:
        """Report the start, and the decisions made on resuming."""
        events = engine.history()
        self._reported = len(events) if self._known is None else self._known
        before = events[: self._reported]
        self._records = Records(engine.view.sign)
        for _ in self._records.take(before):
            pass
        self._engine, self._run = engine, _run(engine)
        start = RunStart(
            run=self._run,
            rounds=engine.course.rounds,
            rounds_done=self._records.rounds_done,
            resumed=bool(before)
            and not (self._known is None and all(isinstance(e, Born | MemoryUpdated) for e in before)),
        )
        for callback in self._callbacks:
            self._started.append(callback)
            self._call(callback, "on_run_start", start)
        self.on_commit(engine, events[self._reported :])

    def on_outcome(self, engine: Engine, outcome: Outcome) -> None:  # noqa: ARG002 (an observer's form)
        """Keep the points of the round until it is logged."""
        self._points[outcome.member, outcome.round] = outcome.points

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:  # noqa: ARG002 (an observer's form)
        """Report the logged events."""
        self._reported += len(events)
        for record in self._records.take(events, self._points):
            if isinstance(record, MemberReport | MemberFailure):
                self._points.pop((record.member, record.round), None)
            self._calls.extend((callback, _HOOK[type(record)], record) for callback in self._started)
        while self._calls:
            callback, hook, record = self._calls.popleft()
            # One copy per callback: none can change the engine's records or those of another callback.
            self._call(callback, hook, deepcopy(record))

    def on_end(self, engine: Engine) -> None:  # noqa: ARG002 (an observer's form)
        """Report the end."""
        self._end("finished", None)

    def close(self) -> None:
        """Report unreported events and the stop, if the run stops before its end."""
        if self._engine is None or not self._started:
            return
        # The engine closes its observers while the exception propagates.
        error = sys.exception()
        with contextlib.suppress(PBTError):  # an unreadable log has nothing to report
            self.on_commit(self._engine, self._engine.store.events(self._reported))
        self._end("failed" if isinstance(error, Exception) else "interrupted", error)

    def _end(self, outcome: RunOutcome, error: BaseException | None) -> None:
        if self._engine is not None:
            with contextlib.suppress(PBTError):  # the records then stay as at the start
                self._run = _run(self._engine)
        while self._started and self._run is not None:
            # Removed before the call: a callback interrupted in it is not called again.
            callback = self._started.popleft()
            self._call(callback, "on_run_end", RunEnd(run=self._run, outcome=outcome, error=error))

    def _call(self, callback: Callback, hook: str, record: Any) -> None:
        try:
            getattr(callback, hook)(record)
        except Exception as error:  # noqa: BLE001 (no error of a callback is the run's)
            self._report(callback, hook, error)

    def _report(self, callback: Callback, hook: str, error: Exception) -> None:
        if (id(callback), hook) in self._raised:
            return
        self._raised.add((id(callback), hook))
        name, what = type(callback).__qualname__, "".join(traceback.format_exception_only(error)).strip()
        log.warning("callback %s raised in %s: %s; the run continues, and this is reported once", name, hook, what)
        if self._engine is not None:
            trace = "".join(traceback.format_exception(error))
            with contextlib.suppress(PBTError):  # the run itself reports a disk that cannot be written
                self._engine.store.note("callback", callback=name, hook=hook, message=what, traceback=trace)


def _run(engine: Engine) -> Run:
    """The run's current results, readable after its writer is closed."""
    path = engine.store.path
    return Run(engine.store) if path is None else Run.open(path)
