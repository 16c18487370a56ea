"""Placement of a run: executor, workers, devices and threads."""

import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict, get_args

from pbt.errors import DeviceError, UsageError, nearest
from pbt.executors.base import CONVOLUTIONS, Convolutions, Executor
from pbt.executors.machine import cores_here, version_of
from pbt.executors.ray.cluster import Cluster
from pbt.executors.retry import Limits
from pbt.executors.worker import WorkerSpec
from pbt.installed import DISTRIBUTION

ExecutorFactory = Callable[[WorkerSpec], Executor]
ExecutorName = Literal["auto", "inline", "processes", "vectorized", "ray"]
EXECUTORS: tuple[ExecutorName, ...] = get_args(ExecutorName)


class PlacementFields(TypedDict, total=False):
    """The fields of a `Placement`, as keyword arguments of `pbt.run`."""

    executor: ExecutorName | ExecutorFactory
    workers: int | None
    threads: int | None
    device: str | None
    members_per_program: int | None
    devices_per_member: int | None
    convolutions: Convolutions | None
    limits: Limits
    cluster: Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Requested placement; fields left None are resolved and recorded with the run.

    Args:
        executor: `"inline"`: in this process, one member after another; `"processes"`: in worker processes;
            `"vectorized"`: many members as one program, for a `SupervisedTask`; `"ray"`: on a Ray cluster; `"auto"`:
            the fastest of the local ones for this task; or a function that makes an executor from a `WorkerSpec`.
        workers: Worker processes. Default: as many as there is room for, and no more than members; for
            `"vectorized"` one per GPU, each with its share of the members, and on the CPU one or several, whichever
            is faster; for `"ray"` as many as the cluster can hold, also on nodes added later.
        threads: CPU threads per round. Default: for programs the cores divided over the programs, else the cores
            divided over the population, at least one, and independent of the number of workers, because results
            depend on it in their last bits; for `"ray"` the cores of a worker.
        members_per_program: Maximal number of members in one program, for `"vectorized"` and `"ray"`. Default: a
            worker's share of the population, or fewer if memory is short; for `"ray"` one.
        device: `"cpu"`, `"cuda"` (all devices, assigned round robin), `"cuda:1"`, or several joined by commas.
            Default: CUDA if torch is loaded and finds it, else the CPU; for `"ray"` CUDA if a worker reserves a GPU.
        devices_per_member: Devices that each member trains on at once, as `ctx.devices` and to its program as
            `CUDA_VISIBLE_DEVICES` and `PBT_DEVICES`; not for `"vectorized"`. On `"ray"` a worker reserves so many GPUs.
        convolutions: How a program on a GPU runs convolutions: `"grouped"`, `"separate"` (a call per member, on several
            streams) or `"unfolded"` (patches and a batched product); results depend on it in their last bits. Default:
            the fastest for this network, timed before the start and recorded; grouped on `"ray"`. The CPU has one way.
        limits: When a worker counts as lost.
        cluster: Address of Ray, and resources per worker.
    """

    executor: ExecutorName | ExecutorFactory = "inline"
    workers: int | None = None
    threads: int | None = None
    device: str | None = None
    members_per_program: int | None = None
    devices_per_member: int | None = None
    convolutions: Convolutions | None = None
    limits: Limits = field(default_factory=Limits)
    cluster: Cluster = field(default_factory=Cluster)

    @classmethod
    def of(cls, given: "Placement | ExecutorName", fields: PlacementFields) -> "Placement":
        """The placement that `pbt.run` is called with.

        Args:
            given: A placement, or the name of an executor.
            fields: Fields that replace those of `given`.

        Raises:
            UsageError: A value is invalid.
        """
        if not isinstance(given, (Placement, str)):
            raise UsageError(f"expected placement to be a Placement or the name of an executor, got {given!r}")
        return replace(cls(executor=given) if isinstance(given, str) else given, **fields)

    def __post_init__(self) -> None:
        if isinstance(self.executor, str) and self.executor not in EXECUTORS:
            raise UsageError(f"unknown executor '{self.executor}'{nearest(self.executor, EXECUTORS)}")
        if self.convolutions is not None and self.convolutions not in CONVOLUTIONS:
            raise UsageError(f"expected convolutions of {', '.join(CONVOLUTIONS)}, got {self.convolutions!r}")
        for name in ("workers", "threads", "members_per_program", "devices_per_member"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"expected at least 1 of {name}, got {value}")
        if self.executor == "vectorized" and (self.devices_per_member or 1) > 1:
            raise UsageError(
                f"devices_per_member={self.devices_per_member}: the executor 'vectorized' trains many members on one "
                "device; use 'processes' or 'ray'"
            )

    @property
    def ray_cluster(self) -> Cluster:
        """The cluster; a worker reserves as many GPUs as a member trains on.

        Raises:
            UsageError: Another number of GPUs per worker is requested.
        """
        each = self.devices_per_member or 1
        if each == 1:
            return self.cluster
        if self.cluster.gpus not in (0, each):
            raise UsageError(
                f"devices_per_member={each}: a worker on Ray needs as many GPUs, got {self.cluster.gpus:g} per worker; "
                "leave them out, or set the same number"
            )
        return replace(self.cluster, gpus=float(each))

    def resumed(self, recorded: Mapping[str, Any]) -> "Placement":
        """This placement for a run that was started before: fields left open are as recorded.

        Args:
            recorded: The placement recorded with the run (`ResolvedPlacement.record`).
        """
        executor = self.executor
        if executor == "auto" and recorded.get("executor") in EXECUTORS:
            executor = recorded["executor"]
        same = executor == recorded.get("executor")
        # A run started on a GPU resumes on any available GPU, or on the CPU if there is none.
        device = self.device or ("cpu" if recorded.get("device") == "cpu" else None)
        return replace(
            self,
            executor=executor,
            # Results depend on these in their last bits; with another executor they differ in any case.
            threads=self.threads or (recorded.get("threads") if same else None),
            members_per_program=self.members_per_program or (recorded.get("members_per_program") if same else None),
            workers=self.workers or (recorded.get("workers") if same else None),
            devices_per_member=self.devices_per_member or recorded.get("devices_per_member"),
            # Never timed again: another way has other bits.
            convolutions=self.convolutions or (recorded.get("convolutions") if same else None),
            device=None if executor == "ray" else device,
            cluster=self.cluster.asking(recorded.get("need") or {}),
        )

    def resolve(self, population: int) -> "ResolvedPlacement":
        """Resolve the open fields, for a given executor.

        Raises:
            DeviceError: A requested device does not exist.
        """
        if self.executor == "ray":
            return _resolve_on_ray(self)
        cores, each = cores_here(), self.devices_per_member or 1
        devices, members_per_program = _grouped(_devices(self.device), each), self.members_per_program
        if self.executor == "vectorized":
            workers = min(self.workers or len(devices), population)
            threads = self.threads or max(1, cores // workers)
            share = -(-population // workers)
            members_per_program = members_per_program if workers == 1 else min(members_per_program or share, share)
        else:
            threads = self.threads or max(1, cores // min(population, cores))
            room = max(1, cores // threads) if devices[0].startswith("cpu") else len(devices)
            workers = min(self.workers or room, population)
        return ResolvedPlacement(
            executor=self.executor,
            threads=threads,
            devices=tuple(devices[i % len(devices)] for i in range(workers)),
            limits=self.limits,
            members_per_program=members_per_program,
            devices_per_member=each,
            convolutions=self.convolutions,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPlacement:
    """A placement with all fields resolved."""

    executor: ExecutorName | ExecutorFactory
    threads: int
    devices: tuple[str, ...]
    """One per worker, or several joined by commas; for `"ray"` the common one."""
    limits: Limits
    members_per_program: int | None = None
    cluster: Cluster = field(default_factory=Cluster)
    devices_per_member: int = 1
    convolutions: Convolutions | None = None
    most: int | None = None
    """Maximal number of workers, if their number is only known during the run."""

    def open(self, setup: WorkerSpec) -> Executor:
        """The executor, not yet started; only this one is imported."""
        if callable(self.executor):
            return self.executor(setup)
        from pbt.executors.processes import ProcessExecutor

        if self.executor == "vectorized":
            from pbt.pytorch.vectorized import VectorizedExecutor, VectorizedWorkerSpec

            if len(self.devices) == 1:
                return VectorizedExecutor(setup, self.members_per_program, self.convolutions)
            spec = VectorizedWorkerSpec.of(setup, self.members_per_program, self.convolutions)
            return ProcessExecutor(spec, self.devices, self.limits)
        if self.executor == "processes":
            return ProcessExecutor(setup, self.devices, self.limits)
        if self.executor == "ray":
            from pbt.executors.ray.executor import RayExecutor

            if self.members_per_program is not None and self.members_per_program > 1:
                from pbt.pytorch.vectorized import VectorizedWorkerSpec

                setup = VectorizedWorkerSpec.of(setup, self.members_per_program, self.convolutions)
            return RayExecutor(setup, self.cluster, self.most, self.limits)
        from pbt.executors.inline import InlineExecutor

        return InlineExecutor(setup)

    def record(self) -> dict[str, Any]:
        """All that the last bits of results depend on, and the workers that programs were made for, as plain values."""
        return {
            "executor": self.executor if isinstance(self.executor, str) else "custom",
            "threads": self.threads,
            "members_per_program": self.members_per_program,
            # As runs of earlier versions recorded it.
            "devices_per_member": self.devices_per_member if self.devices_per_member > 1 else None,
            "convolutions": self.convolutions,
            "workers": len(self.devices) if self.executor == "vectorized" else None,
            "need": self.cluster.need if self.executor == "ray" else None,
            "device": self.devices[0].partition(":")[0],
            "python": platform.python_version(),
            "torch": version_of("torch"),
            "pbt": version_of(DISTRIBUTION),
            "machine": platform.machine(),
        }


def _resolve_on_ray(requested: Placement) -> ResolvedPlacement:
    cluster, each = requested.ray_cluster, requested.devices_per_member or 1
    device = "cuda:0" if cluster.gpus else "cpu"  # Ray shows each worker its own GPU as the first
    if requested.device is not None and not device.startswith(requested.device):
        raise DeviceError(
            f"device '{requested.device}' with the executor 'ray': a worker has '{device}', because it reserves "
            f"{cluster.gpus:g} GPU; omit the device, and set the number of GPUs per worker"
        )
    return ResolvedPlacement(
        executor="ray",
        threads=requested.threads or max(1, int(cluster.cpus)),
        devices=(",".join(f"cuda:{i}" for i in range(each)) if each > 1 else device,),
        limits=requested.limits,
        members_per_program=requested.members_per_program,
        devices_per_member=each,
        convolutions=requested.convolutions,
        cluster=cluster,
        most=requested.workers,
    )


def _grouped(devices: list[str], each: int) -> list[str]:
    """The devices in groups for one member, joined by commas; a rest that fills no group is left out.

    Raises:
        DeviceError: There are fewer.
    """
    if each == 1:
        return devices
    if devices == ["cpu"]:
        devices = ["cpu"] * each
    if len(devices) < each:
        raise DeviceError(
            f"devices_per_member={each}: expected at least {each} devices, got {len(devices)} ({', '.join(devices)})"
        )
    return [",".join(devices[i : i + each]) for i in range(0, len(devices) - each + 1, each)]


def _devices(requested: str | None) -> list[str]:
    if requested == "cpu":
        return ["cpu"]
    if requested is None:
        # Torch is not imported for this: a task that needs it has imported it already.
        loaded: Any = sys.modules.get("torch")
        count = loaded.cuda.device_count() if loaded is not None else 0
        return [f"cuda:{i}" for i in range(count)] or ["cpu"]
    import torch

    available = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    named = [name.strip() for name in requested.split(",")]
    devices = [device for name in named for device in (available if name == "cuda" else [name])]
    missing = [device for device in devices if device not in (*available, "cpu")]
    if missing or not devices:
        raise DeviceError(f"device '{requested}' does not exist: expected one of {', '.join(['cpu', *available])}")
    return devices
