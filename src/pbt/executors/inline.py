"""The inline executor: trains in the calling process."""

import logging
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack

from pbt.closing import Closing
from pbt.executors.base import Incident, Outcome, RoundTask, TaskBatch
from pbt.executors.left_behind import LeftBehind
from pbt.executors.seeding import preserved
from pbt.executors.source_lines import Interrupts
from pbt.executors.worker import Worker, WorkerSpec, incidents_of

log = logging.getLogger("pbt")


class InlineExecutor(Closing):
    """Trains in the calling process, one batch per `wait`. The reference for all other executors."""

    def __init__(self, setup: WorkerSpec) -> None:
        self._setup = setup
        self._worker: Worker | None = None
        self._left: LeftBehind | None = None
        self._queue: deque[TaskBatch] = deque()
        self._outside = ExitStack()
        self._interrupts = Interrupts()

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        """Append the tasks to the queue."""
        self._queue.extend(self._setup.shares(tasks))

    def wait(self) -> list[Outcome]:
        """Train the next batch.

        Raises:
            KeyboardInterrupt: The user pressed Ctrl-C, even if the task caught it and continued.
        """
        if not self._queue:
            return []
        if self._worker is None:
            self._outside.enter_context(preserved())
            self._outside.enter_context(self._interrupts)
            self._left = LeftBehind()
            self._worker = self._setup.open()
        with self._interrupts.watched():
            return self._worker.run(self._queue.popleft())

    def incidents(self) -> list[Incident]:
        """What the worker reports; there are no workers to lose."""
        return [] if self._worker is None else incidents_of(self._worker)

    def close(self) -> None:
        """Drop the queued tasks; threads and processes that the tasks have left running are named in a warning."""
        self._queue.clear()
        self._outside.close()
        self._worker = None
        left, self._left = self._left, None
        if left is not None and (text := left.warning()):
            log.warning("%s", text)
