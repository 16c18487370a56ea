"""Before a run begins: how much memory a member takes in a program, and which way to train them all is the fastest.

Both are found out on the task itself, with its first batch, in a few steps.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from pbt.errors import PBTError, TaskError
from pbt.executors.seeding import seeded, use_threads
from pbt.executors.worker import Context, WorkerSpec
from pbt.pytorch.supervised import SupervisedTask, SupervisedTrainer
from pbt.pytorch.vectorized.failures import broken
from pbt.pytorch.vectorized.population import Population
from pbt.space import HParams

SHARE = 0.5
"""Of the memory that is free, what a population may take."""
MEMBERS = 32
"""Members in a timed program at most; more only make one program better."""
_STEPS = 3
_CAPTURED = 10
"""Steps that are timed together on an accelerator."""
_TRAINED = 4
"""Numbers per parameter while it is trained: itself, its gradient, and two that most optimizers keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A way to share out the population.

    Args:
        workers: Over so many programs that run at the same time.
        threads: With so many CPU threads each: small programs lose by more than one.
    """

    workers: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was found.

    Args:
        member_bytes: Memory of one member in training.
        free_bytes: Memory that was free.
        room: Members that fit into the share of it that a population may take, at least one.
        layout: The fastest of those that were tried.
        together: Seconds of a step of all members in that layout.
        apart: Seconds of a step of all members in separate workers; 0: not asked.
    """

    member_bytes: int
    free_bytes: int
    room: int
    layout: Layout
    together: float
    apart: float


def probe(
    task: SupervisedTask,
    setup: WorkerSpec,
    births: Sequence[HParams],
    layouts: Sequence[Layout],
    apart: tuple[int, int] | None,
) -> Probe:
    """Try the task.

    One worker is timed, while the others that there will be do nothing: they would share the machine's memory with it.

    Args:
        task: What shall be trained.
        setup: Where.
        births: What the members start with.
        layouts: What programs may be shared out over.
        apart: How many workers would train members one by one, and the threads of each; None: that is not asked.

    Raises:
        TaskError: The task cannot be one program.
    """
    with seeded(0, setup.device):
        try:
            population = Population(setup, task)
            step, size = population.try_out(births[:1])
            # Once without hooks that measure: the network may not have any.
            step(eager=True)
            population.try_evaluation()
            step, size = population.try_out(births[:1])
            member, free = _TRAINED * size + _kept_bytes(step), free_memory(setup.device)
            room = max(1, int(SHARE * free / max(1, member)))
            times = {layout: _step_of_all(population, births, layout, room, setup.device) for layout in layouts}
        except PBTError:
            raise
        except Exception as error:
            raise TaskError(broken(error)) from error
        best = min(times, key=lambda layout: times[layout])
        alone = 0.0
        if apart is not None:
            workers, each = apart
            trainer = SupervisedTrainer(task, setup.device, each)
            context = Context(seed=0, member=0, round=1, first_step=0, device=setup.device, threads=each)
            alone = _timed(lambda: trainer.try_out(births[0], context), each, setup.device) * -(-len(births) // workers)
    return Probe(
        member_bytes=member,
        free_bytes=free,
        room=room,
        layout=best,
        together=times[best],
        apart=alone,
    )


def free_memory(device: str) -> int:
    """Bytes that are free on a device, caches counted as free."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _kept_bytes(step: Callable[..., object]) -> int:
    """Memory that a step keeps for its way back."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step(eager=True)
    # What is kept may be there once more on the way back, as its own gradient.
    return 2 * sum(saved.values())


def _step_of_all(population: Population, births: Sequence[HParams], layout: Layout, room: int, device: str) -> float:
    """Seconds of a step of all members, as long as that of the largest share."""
    share = -(-len(births) // layout.workers)
    some = min(share, room, MEMBERS)
    # Enough for a graph to be captured and replayed, as in a round.
    steps = 1 if device == "cpu" else _CAPTURED
    return _timed(population.try_out(births[:some], steps)[0], layout.threads, device) / steps * share / some


def _timed(step: Callable[[], object], threads: int, device: str) -> float:
    """Seconds of a step."""
    use_threads(threads)
    times = []
    for _ in range(_STEPS + 1):
        started = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return median(times[1:])
