"""Selection of the executor for `"auto"` on this machine, with the reasons."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pbt.errors import TaskError
from pbt.executors.base import Convolutions
from pbt.executors.devices import mps_is_on
from pbt.executors.machine import cores_here
from pbt.executors.ray.connection import check_room, connected
from pbt.executors.transport import check_sendable, pickled
from pbt.executors.worker import Task, TrainFunction, WorkerSpec
from pbt.runs.placement import Placement
from pbt.space import HParams
from pbt.store.files import StateFiles

if TYPE_CHECKING:
    from pbt.pytorch.vectorized.autotune import Layout, Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementChoice:
    """A placement ready to be resolved, and the reason for it."""

    placement: Placement
    why: str = ""


def choose(requested: Placement, task: TrainFunction | Task, births: Sequence[HParams]) -> PlacementChoice:
    """Choose the executor, and the number of members per program.

    By rule where it is clear: a single member, or a task with its own loop. Else both ways are timed for a few steps.

    Args:
        requested: The requested placement.
        task: The task.
        births: The initial hyperparameters of all members.

    Raises:
        TaskError: One program was requested, but the task cannot run as one.
        DeviceError: A device does not exist, or a cluster cannot hold a single worker.
        WorkerError: No cluster can be reached.
    """
    if requested.executor != "auto":
        return _as_requested(requested, task, births)
    apart, why = _apart(requested, task, len(births))
    if 1 in (len(births), requested.members_per_program) or not _is_supervised(task):
        return PlacementChoice(placement=apart, why=why)
    together = replace(requested, executor="vectorized", workers=None)
    try:
        most = requested.workers if apart.executor == "processes" else 1
        measured = _probe(together, task, births, _layouts(together, len(births), most), apart)
    except TaskError as error:
        return PlacementChoice(placement=apart, why=f"{why}; {error}")
    programs = measured.layout.workers
    way = "as one program" if programs == 1 else f"as {programs} programs at once"
    rates = f"a step of all members takes {1000 * measured.together:,.1f} ms {way}, {1000 * measured.apart:,.1f} apart"
    if measured.together >= measured.apart:
        return PlacementChoice(placement=apart, why=f"{why}; {rates}")
    fitted, room = _fitted(together, measured, len(births))
    return PlacementChoice(placement=fitted, why="; ".join(filter(None, [f"vectorized: {rates}", room])))


def _as_requested(requested: Placement, task: TrainFunction | Task, births: Sequence[HParams]) -> PlacementChoice:
    """The placement for a given executor; only the layout of programs is left to be measured."""
    if requested.executor == "ray":
        return _on_ray(requested, task)
    if requested.executor != "vectorized":
        return PlacementChoice(placement=requested, why=_sharing(requested, len(births)))
    _check_one_program(task)
    if requested.workers is not None and requested.workers > 1:
        check_sendable(task)
    layouts = _layouts(requested, len(births), None if _is_sendable(task) else 1)
    fitted, why = _fitted(requested, _probe(requested, task, births, layouts), len(births))
    return PlacementChoice(placement=fitted, why=why)


def _sharing(requested: Placement, population: int) -> str:
    """Whether worker processes share GPUs, and how; empty if they do not."""
    if requested.executor != "processes":
        return ""
    devices = requested.resolve(population).devices
    if len(set(devices)) == len(devices) or not devices[0].startswith("cuda"):
        return ""
    how = "at the same time: MPS is on" if mps_is_on() else "in turns: MPS is off"
    return f"processes: {len(devices)} workers share {len(set(devices))} GPU, {how}"


def _on_ray(requested: Placement, task: TrainFunction | Task) -> PlacementChoice:
    """Connect, so that problems of the cluster are reported before anything is written."""
    if (requested.members_per_program or 1) > 1:
        _check_one_program(task)
    pickled(task)
    check_room(connected(requested.cluster, task), requested.ray_cluster)
    return PlacementChoice(placement=requested)


def _check_one_program(task: TrainFunction | Task) -> None:
    if not _is_supervised(task):
        from pbt.pytorch.vectorized.executor import refusal

        raise TaskError(refusal(task))


def _apart(requested: Placement, task: TrainFunction | Task, population: int) -> tuple[Placement, str]:
    """The placement for members trained one by one."""
    inline = replace(requested, executor="inline")
    workers = len(replace(requested, executor="processes").resolve(population).devices)
    if population == 1:
        return inline, "inline: there is one member"
    if workers == 1:
        return inline, "inline: there is room for one worker"
    if not _is_sendable(task):
        return inline, "inline: the task cannot be sent to other processes"
    return replace(requested, executor="processes"), f"processes: {workers} workers"


def _is_sendable(task: Any) -> bool:
    try:
        check_sendable(task)
    except TaskError:
        return False
    return True


def _fitted(requested: Placement, measured: "Probe", population: int) -> tuple[Placement, str]:
    """The fastest number of workers and threads, and as many members per program as fit into memory."""
    layout = measured.layout
    share, room = -(-population // layout.workers), max(1, measured.room // layout.workers)
    way, why = _convolutions(measured)
    fitted = replace(
        requested,
        convolutions=way or requested.convolutions,
        workers=layout.workers,
        threads=layout.threads,
        members_per_program=min(share, requested.members_per_program or min(room, share)),
    )
    if room >= share or requested.members_per_program:
        return fitted, why
    memory = (
        f"{population} members take {measured.member_bytes / 2**20:.3g} MiB each, "
        f"{measured.free_bytes / 2**30:.3g} GiB are free: {room} in one program"
    )
    return fitted, "; ".join(filter(None, [memory, why]))


def _convolutions(measured: "Probe") -> tuple[Convolutions | None, str]:
    """The fastest way for convolutions, and the times of all; None: not measured."""
    times = measured.convolutions
    if not times:
        return None, ""
    way = min(times, key=lambda way: times[way])
    each = ", ".join(f"{name} {1000 * seconds:,.1f} ms" for name, seconds in times.items())
    return way, f"convolutions {way}: a step takes {each}"


def _probe(
    requested: Placement,
    task: Any,
    births: Sequence[HParams],
    layouts: "Sequence[Layout]",
    apart: Placement | None = None,
) -> "Probe":
    from pbt.pytorch.vectorized.autotune import probe

    setup = WorkerSpec(task=task, states=StateFiles(None), device=requested.resolve(len(births)).devices[0])
    alone = None if apart is None else apart.resolve(len(births))
    separate = None if alone is None else (len(alone.devices), alone.threads)
    return probe(task, setup, births, layouts, separate, requested.convolutions)


def _layouts(requested: Placement, population: int, most: int | None = None) -> "list[Layout]":
    """Candidates for the fastest layout of the population, as far as the placement leaves it open.

    Args:
        requested: The requested placement.
        population: Number of members.
        most: Maximal number of workers; None: no limit.
    """
    from pbt.pytorch.vectorized.autotune import Layout

    resolved = requested.resolve(population)
    if requested.workers is not None or resolved.devices[0] != "cpu":
        return [Layout(workers=min(len(resolved.devices), most or population), threads=resolved.threads)]
    # On the CPU: one program on one core, one on all cores, or one on each core.
    counts = {1, resolved.threads} if requested.threads is None else {resolved.threads}
    each = max(1, min(cores_here() // min(counts), population, most or population))
    layouts = [Layout(workers=1, threads=count) for count in sorted(counts)]
    return layouts if each == 1 else [*layouts, Layout(workers=each, threads=min(counts))]


def _is_supervised(task: Any) -> bool:
    # Not imported for this check: such a task has imported it already, and others start without torch.
    module = sys.modules.get("pbt.pytorch.supervised")
    return module is not None and isinstance(task, module.SupervisedTask)
