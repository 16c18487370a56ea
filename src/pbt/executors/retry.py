"""Worker time-outs, and the retry policy for their rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pbt.executors.base import Failure, Incident, TaskBatch

LOST = "worker lost"
BEAT_SECONDS = 1.0
SILENCE_SECONDS = 30.0
PAUSE_SECONDS = 5.0
"""A longer gap between two checks means that this process was suspended, not that the workers were silent."""
START_SECONDS = 120.0
"""Extra time for the first sign of life of a new worker, which imports the user's program first."""
START_ATTEMPTS = 3
"""Consecutive worker deaths before the first one is ready that end the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on lost workers and their rounds.

    Args:
        attempts: Attempts per round when its workers die or hang; then the member has failed. The members of one
            program are first retried one by one, once more, so that one cannot fail the others.
        silence: Seconds without a sign of life after which a worker counts as hung.
        task_timeout: Seconds for a member's round, multiplied by the number of members that a worker trains together;
            None: unlimited.
    """

    attempts: int = 3
    silence: float = SILENCE_SECONDS
    task_timeout: float | None = None

    def seconds(self, share: TaskBatch) -> float | None:
        """Time-out of a batch; None: unlimited."""
        return None if self.task_timeout is None else self.task_timeout * len(share)


def incidents_of(share: TaskBatch, how: str) -> list[Incident]:
    """Journal entries for a lost worker: one per round it was training, or a single one if it was idle."""
    what = f"the worker {how}"
    return [
        Incident(kind=LOST, message=what, member=task.member, round=task.round, attempt=task.attempt) for task in share
    ] or [Incident(kind=LOST, message=what)]


def tried_again(share: TaskBatch, how: str, limits: Limits) -> tuple[Sequence[TaskBatch], Sequence[Failure]]:
    """The retry of a lost worker's batch: the batches to train next, in this order, and the failures."""
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
