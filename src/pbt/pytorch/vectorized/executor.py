"""The executor that trains all members in this process as one program, and its grouping of rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from pbt.core.rng import seed_of
from pbt.errors import TaskError
from pbt.executors.base import Convolutions, RoundTask, TaskBatch
from pbt.executors.inline import InlineExecutor
from pbt.executors.seeding import seeded
from pbt.executors.worker import Worker, WorkerSpec
from pbt.pytorch.bind import SettingBinding
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.vectorized.population import Population, parts_of


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorizedWorkerSpec(WorkerSpec):
    """The specification of workers that each train their share of the population as one program.

    Args:
        members_per_program: Maximum number of members in one program; None: no limit.
        convolutions: How convolutions run on a GPU; None: grouped.

    Raises:
        TaskError: The task is no `SupervisedTask`.
    """

    members_per_program: int | None = None
    convolutions: Convolutions | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.task, SupervisedTask):
            raise TaskError(refusal(self.task))

    @classmethod
    def of(cls, setup: WorkerSpec, members_per_program: int | None, convolutions: Convolutions | None = None) -> Self:
        """The same specification, for programs instead of single members."""
        return cls(
            **{field.name: getattr(setup, field.name) for field in fields(WorkerSpec)},
            members_per_program=members_per_program,
            convolutions=convolutions,
        )

    def shares(self, tasks: Sequence[RoundTask]) -> list[TaskBatch]:
        """Group rounds that can share a program, in their order, in as few parts of equal size as possible."""
        together: dict[tuple[Any, ...], list[RoundTask]] = {}
        for task in tasks:
            sizes = [task.hparams.get(name) for name in self._sizes()]
            together.setdefault((task.first_step, task.steps, task.seed, *sizes), []).append(task)
        return [share for wave in together.values() for share in parts_of(wave, self.members_per_program or len(wave))]

    def _sizes(self) -> list[str]:
        """The hyperparameters that set the examples of a step, which must be equal within a program."""
        task: Any = self.task
        return [
            name
            for name, binding in task.bind.items()
            if isinstance(binding, SettingBinding) and binding.name in ("batch_size", "accumulate")
        ]

    def open(self) -> Worker:
        """Open a worker."""
        task: Any = self.task
        with seeded(seed_of("open"), self.device):
            return Population(self, task, self.convolutions)


class VectorizedExecutor(InlineExecutor):
    """Trains all members of a wave together, in this process.

    Args:
        setup: The specification; its task must be a `SupervisedTask`.
        members_per_program: Maximum number of members in one program; None: no limit.
        convolutions: How convolutions run on a GPU; None: grouped.

    Raises:
        TaskError: The task has another form.
    """

    def __init__(
        self, setup: WorkerSpec, members_per_program: int | None = None, convolutions: Convolutions | None = None
    ) -> None:
        super().__init__(VectorizedWorkerSpec.of(setup, members_per_program, convolutions))
        self._members_per_program = members_per_program

    @property
    def slots(self) -> int:
        """The maximum number of members in a program; without a limit 2**31."""
        return self._members_per_program or 2**31


def refusal(task: Any) -> str:
    """The error message for a task of another form."""
    return (
        f"expected a SupervisedTask for the executor 'vectorized', got {type(task).__name__}, which runs its own loop; "
        "use the executor 'processes'"
    )
