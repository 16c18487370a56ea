"""Which tasks one program can train together, and the executor that does so in this process."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Self

from pbt.core.rng import seed_of
from pbt.errors import TaskError
from pbt.executors.base import RoundTask, TaskBatch
from pbt.executors.inline import InlineExecutor
from pbt.executors.seeding import seeded
from pbt.executors.worker import Worker, WorkerSpec
from pbt.pytorch.bind import SettingBinding
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.vectorized.population import Population


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorizedWorkerSpec(WorkerSpec):
    """Workers of which each trains its share of the population as one program.

    Args:
        members_per_program: Members in one program at most; None: all that come together.

    Raises:
        TaskError: The task is no `SupervisedTask`.
    """

    members_per_program: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.task, SupervisedTask):
            raise TaskError(refusal(self.task))

    @classmethod
    def of(cls, setup: WorkerSpec, members_per_program: int | None) -> Self:
        """The same setup, with programs in the place of single members."""
        return cls(
            **{field.name: getattr(setup, field.name) for field in fields(WorkerSpec)},
            members_per_program=members_per_program,
        )

    def shares(self, tasks: Sequence[RoundTask]) -> list[TaskBatch]:
        """Those that are at the same step, in the order they came, in as few parts as there is room for, all alike."""
        together: dict[tuple[Any, ...], list[RoundTask]] = {}
        for task in tasks:
            sizes = [task.hparams.get(name) for name in self._sizes()]
            together.setdefault((task.first_step, task.steps, task.seed, *sizes), []).append(task)
        return [share for wave in together.values() for share in _parts(wave, self.members_per_program or len(wave))]

    def _sizes(self) -> list[str]:
        """Hyperparameters that give a step its examples: one program has one number of them."""
        task: Any = self.task
        return [
            name
            for name, binding in task.bind.items()
            if isinstance(binding, SettingBinding) and binding.name in ("batch_size", "accumulate")
        ]

    def open(self) -> Worker:
        """A worker, ready for its first share."""
        task: Any = self.task
        with seeded(seed_of("open"), self.device):
            return Population(self, task)


def _parts(wave: Sequence[RoundTask], size: int) -> list[TaskBatch]:
    """The wave in as many parts as it takes, none larger than another by more than one."""
    count = -(-len(wave) // size)
    ends = [-(-len(wave) * i // count) for i in range(count + 1)]
    return [tuple(wave[start:end]) for start, end in pairwise(ends)]


class VectorizedExecutor(InlineExecutor):
    """Trains all members of a wave together, in this process.

    Args:
        setup: Its task must be a `SupervisedTask`.
        members_per_program: Members in one program at most; None: all that come together.

    Raises:
        TaskError: The task is of another form.
    """

    def __init__(self, setup: WorkerSpec, members_per_program: int | None = None) -> None:
        super().__init__(VectorizedWorkerSpec.of(setup, members_per_program))
        self._chunk = members_per_program

    @property
    def slots(self) -> int:
        """As many as there are, up to the chunk."""
        return self._chunk or 2**31


def refusal(task: Any) -> str:
    """Why a task of another form cannot be one program."""
    return (
        "the executor 'vectorized' trains a SupervisedTask, of which it knows what a step is; got "
        f"{type(task).__name__}, "
        "which runs its own loop: use the executor 'processes'"
    )
