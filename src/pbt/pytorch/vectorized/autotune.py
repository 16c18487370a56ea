"""Measurements before a run: the memory of a member in a program, and the fastest layout of the population.

Both are measured on the task itself, with its first batch, in a few steps.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from pbt.errors import PBTError, TaskError
from pbt.executors.base import CONVOLUTIONS, Convolutions
from pbt.executors.seeding import seeded, use_threads
from pbt.executors.worker import Context, WorkerSpec
from pbt.pytorch.precision import matrix_products
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.trainer import SupervisedTrainer
from pbt.pytorch.vectorized.check import check, sound
from pbt.pytorch.vectorized.failures import broken
from pbt.pytorch.vectorized.population import Population
from pbt.space import HParams
from pbt.store.system import physical_memory

log = logging.getLogger("pbt")

SHARE = 0.5
"""Maximum fraction of the free memory for a population."""
MEMBERS = 32
"""Maximum number of members in a timed program; a program only gains from more."""
_STEPS = 3
_CAPTURED = 10
"""Steps that are timed together on an accelerator."""
_TRAINED = 4
"""Numbers per parameter in training: the parameter, its gradient, and two in the state of most optimizers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A division of the population among workers.

    Args:
        workers: Number of programs that run at the same time.
        threads: CPU threads of each program; small programs are slower with more than one.
    """

    workers: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The measurements of a task.

    Args:
        member_bytes: Memory of one member in training, bytes.
        free_bytes: Free memory, bytes.
        room: Number of members that fit into a fraction `SHARE` of the free memory, at least one.
        layout: The fastest layout.
        together: Seconds of a step of all members in that layout.
        convolutions: Seconds of such a step by the way in which convolutions run; empty: not measured.
        apart: Seconds of a step of all members in separate workers; 0: not measured.
    """

    member_bytes: int
    free_bytes: int
    room: int
    layout: Layout
    together: float
    apart: float
    convolutions: Mapping[Convolutions, float] = field(default_factory=dict)


def probe(
    task: SupervisedTask,
    setup: WorkerSpec,
    births: Sequence[HParams],
    layouts: Sequence[Layout],
    apart: tuple[int, int] | None,
    convolutions: Convolutions | None = None,
) -> Probe:
    """Measure the task.

    One worker is timed alone; the workers of a run also share the machine's memory bandwidth.

    Args:
        task: The task.
        setup: The specification of a worker.
        births: The initial hyperparameters of all members.
        layouts: The candidate layouts.
        apart: Number of workers that train members one by one, and the threads of each; None: not measured.
        convolutions: How convolutions run on an accelerator; None: all ways are timed.

    Raises:
        TaskError: The task cannot be one program.
    """
    with seeded(0, setup.device), matrix_products(task.precision, setup.device):
        try:
            measured = _measured(task, setup, births, layouts, convolutions)
        except Exception as error:
            # A member that fails alone, too, is no reason against one program.
            some = sound(task, setup, births[:MEMBERS])
            if len(some) == len(births[:MEMBERS]):
                raise error if isinstance(error, PBTError) else TaskError(broken(error)) from error
            same = [some[i % len(some)] for i in range(len(births))]
            measured = _measured(task, setup, same, layouts, convolutions)
        alone = 0.0
        if apart is not None:
            workers, each = apart
            trainer = SupervisedTrainer(task, setup.device, each)
            context = Context(seed=0, member=0, round=1, first_step=0, device=setup.device, threads=each)
            alone = _timed(lambda: trainer.try_out(births[0], context), each, setup.device) * -(-len(births) // workers)
    return replace(measured, apart=alone)


def _measured(
    task: SupervisedTask,
    setup: WorkerSpec,
    births: Sequence[HParams],
    layouts: Sequence[Layout],
    convolutions: Convolutions | None,
) -> Probe:
    """The measurements of one program."""
    population = Population(setup, task, convolutions)
    check(population, task, setup, births)
    step, size = population.try_out(births[:1])
    member, free = _TRAINED * size + _kept_bytes(step, size), free_memory(setup.device)
    room = max(1, int(SHARE * free / max(1, member)))
    times = {layout: _step_of_all(population, births, layout, room, setup.device) for layout in layouts}
    best = min(times, key=lambda layout: times[layout])
    ways: dict[Convolutions, float] = {}
    if convolutions is None and population.convolves:
        ways = _ways(population, births, best, room, setup.device)
    return Probe(
        member_bytes=member,
        free_bytes=free,
        room=room,
        layout=best,
        together=min(ways.values(), default=times[best]),
        apart=0.0,
        convolutions=ways,
    )


def free_memory(device: str) -> int:
    """Free memory of a device in bytes; caches count as free."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return physical_memory() or 1 << 33


def _kept_bytes(step: Callable[..., object], size: int) -> int:
    """Bytes that a step saves for the backward pass; a guess by the network's bytes if they cannot be measured."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            step(eager=True)
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
        # A gradient inside the network, by `torch.func`.
        return _TRAINED * size
    # Saved tensors may have a gradient of the same size in the backward pass.
    return 2 * sum(saved.values())


def _step_of_all(population: Population, births: Sequence[HParams], layout: Layout, room: int, device: str) -> float:
    """Seconds of a step of all members: that of the largest share."""
    share = -(-len(births) // layout.workers)
    some = min(share, room, MEMBERS)
    # Enough for a graph to be captured and replayed, as in a round.
    steps = 1 if device == "cpu" else _CAPTURED
    return _timed(population.try_out(births[:some], steps)[0], layout.threads, device) / steps * share / some


def _ways(
    population: Population, births: Sequence[HParams], layout: Layout, room: int, device: str
) -> dict[Convolutions, float]:
    """Seconds of a step of all members by the way in which convolutions run; a way that fails is left out."""
    times: dict[Convolutions, float] = {}
    for way in CONVOLUTIONS:
        population.use(way)
        try:
            times[way] = _step_of_all(population, births, layout, room, device)
        except Exception as error:
            # The first is the default, without which there is no program; the others may take more memory.
            if way == CONVOLUTIONS[0]:
                raise
            log.info("convolutions '%s' are left out: %s: %s", way, type(error).__name__, error)
    return times


def _timed(step: Callable[[], object], threads: int, device: str) -> float:
    """The median seconds of a step."""
    use_threads(threads)
    times = []
    for _ in range(_STEPS + 1):
        started = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return median(times[1:])
