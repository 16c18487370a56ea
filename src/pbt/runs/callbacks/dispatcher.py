"""The engine knows observers only, and what an observer raises ends the run: this one tells callbacks, and is safe."""

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
    """Tells callbacks what happens in a run.

    Args:
        callbacks: Whom to tell, in this order.
        known: How many events the log held before the run was taken up, which are not told; None: as many as it holds
            when the observer is told of the start.

    Raises:
        UsageError: Something else than instances of `Callback`.
    """

    def __init__(self, callbacks: Sequence[Callback], known: int | None = None) -> None:
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise UsageError(f"callbacks: expected objects of classes derived from pbt.Callback, got {callback!r}")
        self._callbacks = tuple(callbacks)
        self._known = known
        self._engine: Engine | None = None
        self._run: Run | None = None
        self._told = 0
        self._records = Records(1)
        self._calls: deque[tuple[Callback, str, Any]] = deque()
        self._started: deque[Callback] = deque()
        self._raised: set[tuple[int, str]] = set()

    def on_start(self, engine: Engine) -> None:
        """Tell that the run begins, and what was decided in taking it up."""
        events = engine.store.events()
        self._told = len(events) if self._known is None else self._known
        before = events[: self._told]
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
        self.on_commit(engine, events[self._told :])

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:  # noqa: ARG002 (an observer's form)
        """Tell what was logged."""
        self._told += len(events)
        for record in self._records.take(events):
            self._calls.extend((callback, _HOOK[type(record)], record) for callback in self._started)
        while self._calls:
            callback, hook, record = self._calls.popleft()
            # A copy for each, so that no callback changes what the engine goes on with or what another is told.
            self._call(callback, hook, deepcopy(record))

    def on_end(self, engine: Engine) -> None:  # noqa: ARG002 (an observer's form)
        """Tell that the run is over."""
        self._end("finished", None)

    def close(self) -> None:
        """Where the run stops before its end: tell what was logged and is not told yet, and that it stops."""
        if self._engine is None or not self._started:
            return
        # The engine closes its observers while the error is on its way.
        error = sys.exception()
        with contextlib.suppress(PBTError):  # a log that cannot be read has nothing to tell
            self.on_commit(self._engine, self._engine.store.events()[self._told :])
        self._end("failed" if isinstance(error, Exception) else "interrupted", error)

    def _end(self, outcome: RunOutcome, error: BaseException | None) -> None:
        if self._engine is not None:
            with contextlib.suppress(PBTError):  # then it stays as it was at the start
                self._run = _run(self._engine)
        while self._started and self._run is not None:
            # Taken away before the call: whoever is interrupted in it is not called again.
            callback = self._started.popleft()
            self._call(callback, "on_run_end", RunEnd(run=self._run, outcome=outcome, error=error))

    def _call(self, callback: Callback, hook: str, record: Any) -> None:
        try:
            getattr(callback, hook)(record)
        except Exception as error:  # noqa: BLE001 (whatever a callback does wrong is not the run's fault)
            self._report(callback, hook, error)

    def _report(self, callback: Callback, hook: str, error: Exception) -> None:
        if (id(callback), hook) in self._raised:
            return
        self._raised.add((id(callback), hook))
        name, what = type(callback).__qualname__, "".join(traceback.format_exception_only(error)).strip()
        log.warning("callback %s raised in %s: %s; the run goes on, and this is told once", name, hook, what)
        if self._engine is not None:
            trace = "".join(traceback.format_exception(error))
            with contextlib.suppress(PBTError):  # where nothing can be written the run will find out itself
                self._engine.store.note("callback", callback=name, hook=hook, message=what, traceback=trace)


def _run(engine: Engine) -> Run:
    """The run as it is, to be read also when its writer is closed."""
    path = engine.store.path
    return Run(engine.store) if path is None else Run.open(path)
