"""Before a run begins: how much memory a member takes in a program, and whether one program is faster than several.

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
from pbt.executors.vectorized.failures import broken
from pbt.executors.vectorized.population import Population
from pbt.executors.worker import Context, Setup
from pbt.pytorch.supervised import SupervisedTask, SupervisedTrainer
from pbt.space import HParams

SHARE = 0.5
"""Of the memory that is free, what a population may take."""
MEMBERS = 32
"""Members in a timed program at most; more only make one program better."""
_STEPS = 3
_TRAINED = 4
"""Numbers per parameter while it is trained: itself, its gradient, and two that most optimizers keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was found.

    Args:
        member_bytes: Memory of one member in training.
        free_bytes: Memory that was free.
        room: Members that fit into the share of it that a population may take, at least one.
        together: Seconds of a step of all members as one program.
        threads: With so many CPU threads: small programs lose by more than one.
        apart: Seconds of a step of all members in separate workers; 0: not asked.
    """

    member_bytes: int
    free_bytes: int
    room: int
    together: float
    threads: int
    apart: float


def probe(
    task: SupervisedTask, setup: Setup, births: Sequence[HParams], threads: Sequence[int], apart: tuple[int, int] | None
) -> Probe:
    """Try the task.

    Args:
        task: What shall be trained.
        setup: Where.
        births: What the members start with.
        threads: The numbers of threads that one program may have.
        apart: How many workers would train instead, and the threads of each; None: that is not asked.

    Raises:
        TaskError: The task cannot be one program.
    """
    with seeded(0, setup.device):
        try:
            population = Population(setup, task)
            step, size = population.try_out(births[:1])
            member, free = _TRAINED * size + _kept_bytes(step), free_memory(setup.device)
            room = _room(member, free, len(births))
            some = births[: min(MEMBERS, room)]
            times = _timed(population.try_out(some)[0], threads)
        except PBTError:
            raise
        except Exception as error:
            raise TaskError(broken(error)) from error
        best = min(times, key=lambda count: times[count])
        alone = 0.0
        if apart is not None:
            workers, each = apart
            trainer = SupervisedTrainer(task, setup.device, each)
            context = Context(seed=0, member=0, round=1, first_step=0, device=setup.device, threads=each)
            alone = _timed(lambda: trainer.try_out(births[0], context), [each])[each] * -(-len(births) // workers)
    return Probe(
        member_bytes=member,
        free_bytes=free,
        room=room,
        together=times[best] * len(births) / len(some),
        threads=best,
        apart=alone,
    )


def _room(member: int, free: int, population: int) -> int:
    """Members that fit into memory at once, at least one."""
    return max(1, min(population, int(SHARE * free / max(1, member))))


def free_memory(device: str) -> int:
    """Bytes that are free on a device, caches counted as free."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _kept_bytes(step: Callable[[], None]) -> int:
    """Memory that a step keeps for its way back."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    # What is kept may be there once more on the way back, as its own gradient.
    return 2 * sum(saved.values())


def _timed(step: Callable[[], None], threads: Sequence[int]) -> dict[int, float]:
    """Seconds of a step, by the number of threads."""
    found = {}
    for count in threads:
        use_threads(count)
        times = []
        for _ in range(_STEPS + 1):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        found[count] = median(times[1:])
    return found
