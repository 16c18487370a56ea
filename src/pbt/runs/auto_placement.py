"""Which executor `"auto"` means for a task on this machine, and why."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pbt.errors import TaskError
from pbt.executors.machine import cores_here
from pbt.executors.ray import check_room, connected
from pbt.executors.transport import check_sendable, pickled
from pbt.executors.worker import Task, TrainFunction, WorkerSpec
from pbt.runs.placement import Placement
from pbt.space import HParams
from pbt.store.files import StateFiles

if TYPE_CHECKING:
    from pbt.pytorch.vectorized.autotune import Layout, Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementChoice:
    """A placement without anything left to be measured, and what there is to say about it."""

    placement: Placement
    why: str = ""


def choose(wanted: Placement, task: TrainFunction | Task, births: Sequence[HParams]) -> PlacementChoice:
    """Settle the executor, and how many members one program holds.

    By rule where it is clear: one member, or a task that has its own loop. Else both ways are tried for a few steps.

    Args:
        wanted: What the user asks for.
        task: What shall be trained.
        births: What the members start with, all of them.

    Raises:
        TaskError: One program was asked for, and the task cannot be one.
        DeviceError: A device was named that is not there, or a cluster has no room for a single worker.
        WorkerError: No cluster can be reached.
    """
    if wanted.executor != "auto":
        return _as_asked(wanted, task, births)
    apart, why = _apart(wanted, task, len(births))
    if 1 in (len(births), wanted.members_per_program) or not _is_supervised(task):
        return PlacementChoice(placement=apart, why=why)
    together = replace(wanted, executor="vectorized", workers=None)
    try:
        most = wanted.workers if apart.executor == "processes" else 1
        found = _probe(together, task, births, _layouts(together, len(births), most), apart)
    except TaskError as error:
        return PlacementChoice(placement=apart, why=f"{why}; {error}")
    programs = found.layout.workers
    way = "as one program" if programs == 1 else f"as {programs} programs at once"
    rates = f"a step of all members takes {1000 * found.together:,.1f} ms {way}, {1000 * found.apart:,.1f} apart"
    if found.together >= found.apart:
        return PlacementChoice(placement=apart, why=f"{why}; {rates}")
    fitted, room = _fitted(together, found, len(births))
    return PlacementChoice(placement=fitted, why="; ".join(filter(None, [f"vectorized: {rates}", room])))


def _as_asked(wanted: Placement, task: TrainFunction | Task, births: Sequence[HParams]) -> PlacementChoice:
    """The executor is known; for programs it is left to be measured how many, and of how many members."""
    if wanted.executor == "ray":
        return _on_ray(wanted, task)
    if wanted.executor != "vectorized":
        return PlacementChoice(placement=wanted)
    _check_one_program(task)
    if wanted.workers is not None and wanted.workers > 1:
        check_sendable(task)
    layouts = _layouts(wanted, len(births), None if _is_sendable(task) else 1)
    fitted, why = _fitted(wanted, _probe(wanted, task, births, layouts), len(births))
    return PlacementChoice(placement=fitted, why=why)


def _on_ray(wanted: Placement, task: TrainFunction | Task) -> PlacementChoice:
    """Connect, so that what is wrong with the cluster is told before anything is written."""
    if (wanted.members_per_program or 1) > 1:
        _check_one_program(task)
    pickled(task)
    check_room(connected(wanted.cluster), wanted.cluster)
    return PlacementChoice(placement=wanted)


def _check_one_program(task: TrainFunction | Task) -> None:
    if not _is_supervised(task):
        from pbt.pytorch.vectorized.executor import refusal

        raise TaskError(refusal(task))


def _apart(wanted: Placement, task: TrainFunction | Task, population: int) -> tuple[Placement, str]:
    """Where members are trained one by one."""
    inline = replace(wanted, executor="inline")
    workers = len(replace(wanted, executor="processes").resolve(population).devices)
    if population == 1:
        return inline, "inline: there is one member"
    if workers == 1:
        return inline, "inline: there is room for one worker"
    if not _is_sendable(task):
        return inline, "inline: the task cannot be sent to other processes"
    return replace(wanted, executor="processes"), f"processes: {workers} workers"


def _is_sendable(task: Any) -> bool:
    try:
        check_sendable(task)
    except TaskError:
        return False
    return True


def _fitted(wanted: Placement, found: "Probe", population: int) -> tuple[Placement, str]:
    """With as many workers and threads as pay, and as many members in one program as memory has room for."""
    layout = found.layout
    share, room = -(-population // layout.workers), max(1, found.room // layout.workers)
    fitted = replace(
        wanted,
        workers=layout.workers,
        threads=layout.threads,
        members_per_program=min(share, wanted.members_per_program or min(room, share)),
    )
    if room >= share or wanted.members_per_program:
        return fitted, ""
    return fitted, (
        f"{population} members take {found.member_bytes / 2**20:.3g} MiB each, {found.free_bytes / 2**30:.3g} GiB are "
        f"free: {room} in one program"
    )


def _probe(
    wanted: Placement,
    task: Any,
    births: Sequence[HParams],
    layouts: "Sequence[Layout]",
    apart: Placement | None = None,
) -> "Probe":
    from pbt.pytorch.vectorized.autotune import probe

    setup = WorkerSpec(task=task, states=StateFiles(None), device=wanted.resolve(len(births)).devices[0])
    alone = None if apart is None else apart.resolve(len(births))
    return probe(task, setup, births, layouts, None if alone is None else (len(alone.devices), alone.threads))


def _layouts(wanted: Placement, population: int, most: int | None = None) -> "list[Layout]":
    """The ways to share out the population that can be the fastest, as far as they were left open.

    Args:
        wanted: What the user asks for.
        population: How many members there are.
        most: Workers at most; None: no limit.
    """
    from pbt.pytorch.vectorized.autotune import Layout

    resolved = wanted.resolve(population)
    if wanted.workers is not None or resolved.devices[0] != "cpu":
        return [Layout(workers=min(len(resolved.devices), most or population), threads=resolved.threads)]
    # On the CPU: one program on one core, one on all cores, or one on each core.
    counts = {1, resolved.threads} if wanted.threads is None else {resolved.threads}
    each = max(1, min(cores_here() // min(counts), population, most or population))
    layouts = [Layout(workers=1, threads=count) for count in sorted(counts)]
    return layouts if each == 1 else [*layouts, Layout(workers=each, threads=min(counts))]


def _is_supervised(task: Any) -> bool:
    # Not imported for this: a task of that kind has imported it, and others shall start without torch.
    module = sys.modules.get("pbt.pytorch.supervised")
    return module is not None and isinstance(task, module.SupervisedTask)
