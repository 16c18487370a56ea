"""One share at a time, in this process."""

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from pbt.executors.base import Incident, Outcome, RoundTask, TaskBatch
from pbt.executors.places import Interrupts
from pbt.executors.seeding import preserved
from pbt.executors.worker import Worker, WorkerSpec


class InlineExecutor:
    """Trains in the calling process, each share when it is waited for. The reference that all others must equal."""

    def __init__(self, setup: WorkerSpec) -> None:
        self._setup = setup
        self._worker: Worker | None = None
        self._queue: deque[TaskBatch] = deque()
        self._outside = ExitStack()
        self._interrupts = Interrupts()

    @property
    def slots(self) -> int:
        """One: there is one process."""
        return 1

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        """Put the tasks behind those that wait."""
        self._queue.extend(self._setup.shares(tasks))

    def wait(self) -> list[Outcome]:
        """Train the next share.

        Raises:
            KeyboardInterrupt: It was interrupted, also where the task caught that and went on.
        """
        if not self._queue:
            return []
        if self._worker is None:
            self._outside.enter_context(preserved())
            self._outside.enter_context(self._interrupts)
            self._worker = self._setup.open()
        with self._interrupts.watched():
            return self._worker.run(self._queue.popleft())

    def incidents(self) -> list[Incident]:
        """None: there is no worker that could be lost."""
        return []

    def close(self) -> None:
        """Drop what was not trained."""
        self._queue.clear()
        self._outside.close()
        self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
