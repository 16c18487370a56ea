"""When patience with a worker ends, and what becomes of the rounds that it had."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pbt.executors.base import Failure, Incident, TaskBatch

LOST = "worker lost"
BEAT_SECONDS = 1.0
SILENCE_SECONDS = 30.0
PAUSE_SECONDS = 5.0
"""A longer gap between two looks means that this process did not look, not that the workers were silent."""
START_SECONDS = 120.0
"""How much later than usual a new worker may give its first sign of life: it imports the user's program before."""
START_ATTEMPTS = 3
"""How often in a row workers may die before the first one is ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When patience ends.

    Args:
        attempts: How often a round is tried when its workers die or hang; then the member has failed. Members that
            were one program are then tried each by itself, once more, so that one does not take the others along.
        silence: Seconds without a sign of life after which a worker counts as hung.
        task_timeout: Seconds a member's round may take, times the members that a worker trains together; None: as
            long as it likes.
    """

    attempts: int = 3
    silence: float = SILENCE_SECONDS
    task_timeout: float | None = None

    def seconds(self, share: TaskBatch) -> float | None:
        """How long a worker may take for these; None: as long as it likes."""
        return None if self.task_timeout is None else self.task_timeout * len(share)


def incidents_of(share: TaskBatch, how: str) -> list[Incident]:
    """What the journal is told of a lost worker: one line for each round that it had, or one without any."""
    what = f"the worker {how}"
    return [
        Incident(kind=LOST, message=what, member=task.member, round=task.round, attempt=task.attempt) for task in share
    ] or [Incident(kind=LOST, message=what)]


def tried_again(share: TaskBatch, how: str, limits: Limits) -> tuple[Sequence[TaskBatch], Sequence[Failure]]:
    """What is to be trained next of what a lost worker had, in this order, and what is given up."""
    if not share:
        return [], []
    again = tuple(replace(task, attempt=task.attempt + 1) for task in share)
    if share[0].attempt < limits.attempts:
        return [again], []
    if len(share) > 1:
        return [(task,) for task in again], []
    return [], [
        Failure(
            member=task.member,
            round=task.round,
            attempt=task.attempt,
            cause="worker",
            message=f"the worker {how}, {task.attempt} times",
        )
        for task in share
    ]
