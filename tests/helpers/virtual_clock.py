"""A virtual clock: an executor that finishes its tasks in simulated time, in the order of their ends."""

import heapq
from collections.abc import Callable, Sequence

from pbt.closing import Closing
from pbt.core.rng import Rng
from pbt.executors.base import Incident, Outcome, RoundTask
from pbt.executors.inline import InlineExecutor
from pbt.executors.worker import WorkerSpec


class Clock:
    """Makes executors for `pbt.Placement(executor=...)`.

    Args:
        cost: Simulated seconds of a step of this task.
        workers: Tasks at once; None: as many as there are.
    """

    def __init__(self, cost: Callable[[RoundTask], float], workers: int | None = None) -> None:
        self.cost = cost
        self.workers = workers
        self.now = 0.0
        self.steps = 0
        """Steps trained in all."""

    def __call__(self, setup: WorkerSpec) -> "ClockedExecutor":
        return ClockedExecutor(self, InlineExecutor(setup))


class ClockedExecutor(Closing):
    """Trains each task in this process, when its simulated time is over."""

    def __init__(self, clock: Clock, inner: InlineExecutor) -> None:
        self._clock = clock
        self._inner = inner
        self._running: list[tuple[float, int, RoundTask]] = []
        self._waiting: list[RoundTask] = []
        self._started = 0

    @property
    def slots(self) -> int:
        return self._clock.workers or 1

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        self._waiting.extend(tasks)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and (self._clock.workers is None or len(self._running) < self._clock.workers):
            task = self._waiting.pop(0)
            self._started += 1
            # A little unevenness, or members of one speed would end at the same instant, in the order of their ids.
            uneven = 0.95 + 0.1 * Rng(task.seed, "time", task.member, task.round).random()
            ends = self._clock.now + self._clock.cost(task) * task.steps * uneven
            heapq.heappush(self._running, (ends, self._started, task))

    def wait(self) -> list[Outcome]:
        if not self._running:
            return []
        self._clock.now, _, task = heapq.heappop(self._running)
        self._clock.steps += task.steps
        self._inner.submit([task])
        outcomes = self._inner.wait()
        self._fill()
        return outcomes

    def incidents(self) -> list[Incident]:
        return []

    def close(self) -> None:
        self._inner.close()
