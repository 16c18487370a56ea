"""A training step of whole populations on a CUDA device, where there is one.

Left: `vectorized`, all members in one program. Right: the members one after the other, each in a bare PyTorch loop,
eager and as a captured graph; and the step's arithmetic at the rates of the device. `PBT_BENCH_WORKLOADS` names some
of the workloads, separated by semicolons; `PBT_BENCH_BASE` is the size of the base of `LoRA x 16` in parameters.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.accelerator_workloads import WORKLOADS, Workload
from benchmarks.arithmetic import DEVICE_SIZE, product_rate, synchronize
from benchmarks.bare_loop import BareLoop, captured
from benchmarks.base import Options, Row, times_faster
from pbt.executors.worker import WorkerSpec
from pbt.pytorch.vectorized.population import Population
from pbt.store.files import StateFiles

ROUND, SECONDS = 50, 0.3
"""Steps of a round, and the time that a turn should take."""


class Limits(NamedTuple):
    """What the device can do at most, as measured on it."""

    flop: float
    """Float32 operations per second of a large matrix product."""
    bytes: float
    """Bytes per second, read and written, of a large copy."""


def measure(options: Options) -> Iterator[Row]:
    """Each workload, row by row as it is measured."""
    if not torch.cuda.is_available():
        yield Row.missing("training steps on an accelerator", "no accelerator here")
        return
    device, name = "cuda:0", torch.cuda.get_device_name()
    limits = limits_of(device, DEVICE_SIZE)
    yield Row(
        work=f"limits of {name}",
        measured=f"{limits.flop / 1e12:.1f} TFLOP/s (float32), {limits.bytes / 1e12:.2f} TB/s",
        against="a matrix product and a copy, in torch",
        value=None,
    )
    chosen = os.environ.get("PBT_BENCH_WORKLOADS", ";".join(WORKLOADS)).split(";")
    for one in chosen:
        yield from measure_on(device, WORKLOADS[one](), limits, options.repeats)
        torch.cuda.empty_cache()


def measure_on(device: str, workload: Workload, limits: Limits, repeats: int) -> Iterator[Row]:
    """The rows of one workload.

    Args:
        device: Where it is trained.
        workload: What is trained.
        limits: Of the device.
        repeats: Turns of each side.
    """
    spec = WorkerSpec(task=workload.task, states=StateFiles(None), device=device)
    # A round of so many steps: gathering its batches and reading its losses is part of it.
    together, _ = Population(spec, workload.task).try_out(workload.births(), ROUND)
    alone = BareLoop(workload, device)
    sides: dict[str, Callable[[], float]] = {
        "together": lambda: seconds(together, device, ROUND),
        "eager": lambda: seconds(alone.step, device),
    }
    if device != "cpu":
        replay = captured(workload, device)
        sides["captured"] = lambda: seconds(replay, device)
    turns = [{name: side() for name, side in sides.items()} for _ in range(repeats)]
    ours = median(turn["together"] for turn in turns)
    needed = flop_of(alone) * workload.members / limits.flop
    work = f"{workload.name}, a step of all"
    for name in [name for name in sides if name != "together"]:
        theirs = median(turn[name] for turn in turns) * workload.members
        yield Row(
            work=work if name == "eager" else "the same",
            measured=f"{1000 * ours:.2f} ms",
            against=f"one member after the other, {name}: {1000 * theirs:.1f} ms ({theirs / ours:.1f} times)",
            value=median(turn["together"] / (turn[name] * workload.members) for turn in turns),
            limit=None if workload.floor is None or name != "eager" else times_faster(workload.floor),
            aim=None if workload.moonshot is None or name != "eager" else times_faster(workload.moonshot),
        )
    yield Row(
        work="the same",
        measured=f"{1000 * ours:.2f} ms",
        against=f"its matrix products at the device's float32 rate: {1000 * needed:.2f} ms",
        value=ours / needed,
    )
    if workload.with_memory:
        del together, alone, sides
        every, one = (memory_of(spec, workload, count) for count in (workload.members, 1))
        yield Row(
            work="the same, memory",
            measured=f"{every / 2**20:,.0f} MiB",
            against=f"one member in a program: {one / 2**20:,.0f} MiB",
            value=every / one,
        )


def memory_of(spec: WorkerSpec, workload: Workload, members: int) -> int:
    """Bytes of tensors that a program takes at most; on the CPU those of the whole process after a step."""
    task = workload.task
    gc.collect()
    if spec.device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = in_use(spec.device) if spec.device != "cpu" else 0
    step, _ = Population(spec, task).try_out(workload.births()[:members], 1)
    step(eager=True)
    return in_use(spec.device) - before


def in_use(device: str) -> int:
    """Bytes of tensors: the most since the last reset on a device, those that are there on the CPU."""
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated())
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor) and not _in_vmap(thing)]
    held = {thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes() for thing in tensors}
    return sum(held.values())


def _in_vmap(tensor: torch.Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def flop_of(loop: BareLoop) -> int:
    """Floating-point operations of one member's step, as torch counts those of products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        loop.step()
    return int(counter.get_total_flops())


def limits_of(device: str, size: int) -> Limits:
    """Measure what the device can do, with matrices (size, size)."""
    source = torch.ones(size, size, 4, device=device)
    target = torch.empty_like(source)
    copies = seconds(lambda: target.copy_(source), device)
    return Limits(flop=product_rate(device, size, 1), bytes=2 * source.numel() * source.element_size() / copies)


def seconds(run: Callable[[], object], device: str, steps: int = 1) -> float:
    """Of one step, where a call runs so many; after a few calls that are not counted."""
    for _ in range(3 if steps == 1 else 1):
        run()
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    count = max(1, min(500, int(SECONDS / (time.perf_counter() - started))))
    started = time.perf_counter()
    for _ in range(count):
        run()
    synchronize(device)
    return (time.perf_counter() - started) / (count * steps)
