"""The executor: takes a wave apart into what one program can train together."""

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from pbt.core.rng import seed_of
from pbt.errors import TaskError
from pbt.executors.base import Incident, Outcome, Task
from pbt.executors.seeding import preserved, seeded, sown, use_threads
from pbt.executors.vectorized.population import Population
from pbt.executors.worker import Setup
from pbt.pytorch.supervised import SupervisedTask


class VectorizedExecutor:
    """Trains all members of a wave together, in this process.

    Args:
        setup: Its task must be a `SupervisedTask`.
        chunk: Members in one program at most; None: all that come together.

    Raises:
        TaskError: The task is of another form.
    """

    def __init__(self, setup: Setup, chunk: int | None = None) -> None:
        if not isinstance(setup.task, SupervisedTask):
            raise TaskError(refusal(setup.task))
        self._setup = setup
        self._task = setup.task
        self._chunk = chunk
        self._queue: list[Task] = []
        self._outside = ExitStack()
        self._trainer: Population | None = None

    @property
    def slots(self) -> int:
        """As many as there are, up to the chunk."""
        return self._chunk or 2**31

    def submit(self, tasks: Sequence[Task]) -> None:
        """Put the tasks behind those that wait."""
        self._queue.extend(tasks)

    def wait(self) -> list[Outcome]:
        """Train the first task, and with it all others that are at the same step, as far as there is room."""
        if not self._queue:
            return []
        if self._trainer is None:
            self._outside.enter_context(preserved())
            use_threads(self._setup.threads)
            with seeded(seed_of("open"), self._setup.device):
                self._trainer = Population(self._setup, self._task)
        first = self._queue[0]
        wave = [task for task in self._queue if _place(task) == _place(first)][: self._chunk]
        taken = {(task.member, task.round) for task in wave}
        self._queue = [task for task in self._queue if (task.member, task.round) not in taken]
        use_threads(self._setup.threads)
        with sown(seed_of(first.seed, "round", first.member, first.round), self._setup.device):
            return self._trainer.run(wave)

    def incidents(self) -> list[Incident]:
        """None: there is no worker that could be lost."""
        return []

    def close(self) -> None:
        """Drop what was not trained."""
        self._queue.clear()
        self._outside.close()
        self._trainer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _place(task: Task) -> tuple[int, int, int]:
    """What the members of one program have in common."""
    return task.first_step, task.steps, task.seed


def refusal(task: Any) -> str:
    """Why a task of another form cannot be one program."""
    return (
        f"executor='vectorized' trains a SupervisedTask, of which it knows what a step is; got {type(task).__name__}, "
        "which runs its own loop: use executor='processes'"
    )
