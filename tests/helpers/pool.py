"""Started worker processes that several tests use one after another.

The processes, their pipes and their rounds are those of `ProcessExecutor`; only the task is sent with each batch.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pbt.closing import Closing
from pbt.executors.base import Incident, Outcome, RoundTask, TaskBatch
from pbt.executors.processes import ProcessExecutor
from pbt.executors.transport import pickled
from pbt.executors.worker import Worker, WorkerSpec
from tests.helpers.warm import warm_workers


class Batch(tuple[RoundTask, ...]):  # noqa: SLOT001 (it carries an attribute)
    """A batch with the specification of the worker that is to train it."""

    setup: bytes


@dataclass
class AnySpec:
    """The specification of a worker that opens the task of each batch, and keeps it until another one comes."""

    device: str = "cpu"
    setup: bytes = b""
    shared: Callable[[Sequence[RoundTask]], list[TaskBatch]] | None = None

    def shares(self, tasks: Sequence[RoundTask]) -> list[TaskBatch]:
        assert self.shared is not None
        batches = [Batch(share) for share in self.shared(tasks)]
        for batch in batches:
            batch.setup = self.setup
        return list(batches)

    def on(self, devices: str) -> "AnySpec":
        return replace(self, device=devices)

    def __reduce__(self) -> tuple[type["AnySpec"], tuple[str]]:
        # What a worker opens comes with each batch.
        return AnySpec, (self.device,)

    def open(self) -> Worker:
        return AnyWorker()


class AnyWorker:
    """Trains batches of any task."""

    def __init__(self) -> None:
        self._setup = b""
        self._worker: Any = None

    def run(self, share: TaskBatch) -> list[Outcome]:
        assert isinstance(share, Batch)
        if share.setup != self._setup:
            self._setup, self._worker = share.setup, pickle.loads(share.setup).open()
        outcomes: list[Outcome] = self._worker.run(share)
        return outcomes


class Pool:
    """Worker processes, started by the first round; call it to get an executor for a run, as `executor=pool`."""

    def __init__(self, workers: int = 2) -> None:
        self.spec = AnySpec()
        self.executor = ProcessExecutor(self.spec, ["cpu"] * workers)  # type: ignore[arg-type]

    def __call__(self, setup: WorkerSpec) -> "PoolExecutor":
        return PoolExecutor(self, setup)

    def close(self) -> None:
        self.executor.close()


class PoolExecutor(Closing):
    """The executor of one run on a pool."""

    def __init__(self, pool: Pool, setup: WorkerSpec) -> None:
        self._pool, self._setup, self._pending = pool, pickled(setup), 0
        self._shared = setup.shares

    @property
    def slots(self) -> int:
        return self._pool.executor.slots

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        self._pool.spec.setup, self._pool.spec.shared = self._setup, self._shared
        with warm_workers():
            self._pool.executor.submit(tasks)
        self._pending += len(tasks)

    def wait(self) -> list[Outcome]:
        with warm_workers():
            outcomes = self._pool.executor.wait() if self._pending else []
        self._pending -= len(outcomes)
        return outcomes

    def incidents(self) -> list[Incident]:
        return self._pool.executor.incidents()

    def close(self) -> None:
        """Let the workers finish what the run no longer waits for."""
        while self._pending:
            self.wait()
