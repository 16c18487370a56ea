"""Checks of a task and a population before a run is created."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pbt.errors import PBTError, TaskError, UsageError
from pbt.executors.transport import check_sendable
from pbt.executors.worker import ChecksData, ChecksDevice, Task, TrainFunction
from pbt.runs.disk_space import sized
from pbt.runs.placement import ResolvedPlacement
from pbt.space import HParams, Space

MOST_MEMBERS = 1_000_000
MOST_MEMBERS_VARIABLE = "PBT_MAX_POPULATION"
"""The environment variable that raises the bound."""
_MEMBER_BYTES, _ROUND_SECONDS = 4000, 2e-4
"""Measured overhead of a member: memory in bytes, and seconds per round besides training."""


def check_population(population: int) -> None:
    """Reject implausibly large populations.

    Raises:
        UsageError: The population exceeds the bound.
    """
    bound = os.environ.get(MOST_MEMBERS_VARIABLE, "")
    if population > (int(bound) if bound.isdecimal() else MOST_MEMBERS):
        raise UsageError(
            f"population: expected at most {MOST_MEMBERS:,} members, got {population:,}, which take about "
            f"{sized(population * _MEMBER_BYTES)} of memory, and {population * _ROUND_SECONDS / 60:,.0f} minutes per "
            f"round besides training; if this is intended, set {MOST_MEMBERS_VARIABLE}={population}"
        )


def check_task(
    task: TrainFunction | Task, births: Sequence[HParams], space: Space, *, sent: bool
) -> Mapping[str, Any] | None:
    """Check everything about a task that can be checked without training; returns what is recorded of its data.

    Args:
        task: The task, as `trainable` returned it.
        births: The initial hyperparameters of all members.
        space: The space of the hyperparameters.
        sent: Whether the task is sent to worker processes.

    Raises:
        TaskError: The task cannot be set up or sent.
        UsageError: The task refuses the space or the population.
    """
    if isinstance(task, Task):
        _try_out(task, births)
    given: Any = task
    record = given.check_data(len(births), space) if isinstance(given, ChecksData) else None
    if sent:
        check_sendable(task)
    return record


def check_devices(task: TrainFunction | Task, each: int | None) -> None:
    """Check that a task can use several devices per member.

    Args:
        task: The task, as `trainable` returned it.
        each: The requested number of devices per member.

    Raises:
        TaskError: It trains on one device.
    """
    if each is not None and each > 1 and isinstance(task, Task) and not getattr(task, "many_devices", False):
        raise TaskError(
            f"devices_per_member={each}: {type(task).__name__} trains a member on one device; leave it out, or use a "
            "pbt.Command or a function that reads ctx.devices"
        )


def check_placed(task: TrainFunction | Task, resolved: ResolvedPlacement) -> None:
    """Check that the devices of a placement have what a task needs; workers on Ray check their own.

    Raises:
        TaskError: One does not.
    """
    given: Any = task
    if isinstance(given, ChecksDevice) and resolved.executor != "ray":
        for device in dict.fromkeys(resolved.devices):
            given.check_device(device)


_TRIES = 4
"""Number of members whose values are tried before the start: a task may refuse some combinations of values."""


def _try_out(task: Task, births: Sequence[HParams]) -> None:
    """Raise TaskError unless the task can be set up with the values of one of the first members."""
    for i, hparams in enumerate(births[:_TRIES]):
        try:
            task.check(hparams)
        except TaskError as error:
            # An exception in the user's code may be due to these values alone.
            own = error.__cause__ is not None and not isinstance(error.__cause__, PBTError)
            if not own or i == min(_TRIES, len(births)) - 1:
                raise
        else:
            return
