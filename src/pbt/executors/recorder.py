"""The recorder of the numbers that a task reports during a round."""

import threading
import time
from collections.abc import Mapping
from operator import index
from typing import Any

from pbt.errors import TaskError
from pbt.executors.base_values import as_float
from pbt.store.live import LiveFile
from pbt.store.points import LAST_STEP, NAME, NAMES, PointBuffer, Points

_PAUSE = 0.5
"""Seconds between two writes of the live file."""


class PointRecorder:
    """Records the points of one round, from any thread.

    Args:
        live: The file that shows them while the round runs; None: they are seen at its end.
    """

    def __init__(self, live: LiveFile | None = None) -> None:
        self._live = live
        self._buffers: dict[str, PointBuffer] = {}
        self._lock = threading.Lock()
        self._open = True
        # Rounds that are over by then write nothing.
        self._next_write = time.monotonic() + _PAUSE
        self._shown = False
        if live is not None:
            live.remove()

    def __reduce__(self) -> tuple[Any, ...]:
        # Points reported in another process, such as that of a data loader, have no way back.
        return PointRecorder, ()

    def add(self, step: object, numbers: Mapping[str, object]) -> None:
        """Record a point of each of these curves; after the end of the round nothing is recorded.

        Raises:
            TaskError: The step is no whole number from 0, a name is not allowed, or a value is no number.
        """
        at = step if type(step) is int else _whole(step)
        if not 0 <= at <= LAST_STEP:
            raise _step_error(step)
        if not numbers:
            raise TaskError("ctx.report: expected numbers by name, as in ctx.report(step, loss=0.3), got none")
        values = {name: value if type(value) is float else _number(name, value) for name, value in numbers.items()}
        with self._lock:
            for name in values:
                if name not in self._buffers:
                    self._begin(name)
            if self._open:
                for name, value in values.items():
                    self._buffers[name].add(at, value)
                self._show()

    def close(self) -> Points:
        """End the round; returns its points."""
        with self._lock:
            self._open = False
            if self._shown:
                self._next_write = 0.0
                self._show()
            return self._points()

    def _begin(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise TaskError(
                "ctx.report: expected names of 1 to 64 letters, digits and _ . / - that begin with a letter or _, "
                f"got {name[:80]!r}"
            )
        if len(self._buffers) == NAMES:
            raise TaskError(f"ctx.report: expected at most {NAMES} names in a round, got '{name}' in addition")
        self._buffers[name] = PointBuffer()

    def _show(self) -> None:
        now = time.monotonic()
        if self._live is not None and now >= self._next_write:
            self._live.write(self._points())
            self._next_write = time.monotonic() + _PAUSE
            self._shown = True

    def _points(self) -> Points:
        return {name: buffer.points() for name, buffer in self._buffers.items() if buffer.last is not None}


def _whole(step: object) -> int:
    if isinstance(step, bool):
        raise _step_error(step)
    try:
        return index(step)  # type: ignore[arg-type]
    except TypeError:
        raise _step_error(step) from None


def _step_error(step: object) -> TaskError:
    return TaskError(f"ctx.report(step=...): expected training steps, a whole number from 0, got {step!r:.80}")


def _number(name: str, value: object) -> float:
    found = as_float(value)
    if found is None:
        raise TaskError(f"ctx.report({name}=...): expected a number, got {value!r:.80}")
    return found
