"""A training step of whole populations on a CUDA device, where there is one.

Left: `vectorized`, all members in one program. Right: the members one after the other, each in a bare PyTorch loop,
eager and as a captured graph; and the step's arithmetic and its least traffic at the rates of the device. Then training
on it against float64 on the CPU, and in each precision, with its time and its loss. `PBT_BENCH_WORKLOADS` names some of
the workloads, separated by semicolons; `PBT_BENCH_BASE` is the size of the base of `LoRA x 16` in parameters. Rows
begin within `PBT_BENCH_SECONDS` (default: 420); the others are named.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.accelerator_workloads import WORKLOADS, Workload
from benchmarks.arithmetic import DEVICE_SIZE, product_rate, synchronize
from benchmarks.bare_loop import BareLoop, captured
from benchmarks.base import Options, Row, times_faster
from pbt.errors import TaskError
from pbt.executors.base import CONVOLUTIONS
from pbt.executors.worker import WorkerSpec
from pbt.pytorch.precision import PRECISIONS, check_precision, matrix_products
from pbt.pytorch.vectorized.population import Population
from pbt.store.files import StateFiles

ROUND, SECONDS = 50, 0.3
"""Steps of a round, and the time that a turn should take."""
BUDGET = 420.0
"""Seconds within which a workload is begun: all of them take under eight minutes."""
EXACT = 1e-3
"""Maximum relative difference of a round's mean loss from that in float64."""
PASSES = 3, 7
"""Least traffic of a step per trained number, in numbers: weights are read in the forward and the backward pass, and
gradients written; the optimizer reads gradients, weights and two moments, and writes the last three."""


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
    yield from measure_all(device, limits, options.repeats)


def measure_all(
    device: str, limits: Limits, repeats: int, workloads: Mapping[str, Callable[[], Workload]] = WORKLOADS
) -> Iterator[Row]:
    """The rows of all chosen workloads, in order, as long as there is time; an error is the result of its rows."""
    begun = time.monotonic()
    budget = float(os.environ.get("PBT_BENCH_SECONDS", BUDGET))
    chosen = os.environ.get("PBT_BENCH_WORKLOADS", ";".join(workloads)).split(";")
    # Speed first; what is correct is tested elsewhere, too.
    parts: list[tuple[str, Callable[[Workload], Iterator[Row]]]] = [
        ("a step of all", lambda workload: in_float32(device, measure_on(device, workload, limits, repeats))),
        ("against float64", lambda workload: agreement(device, workload)),
        ("precisions", lambda workload: precisions(device, workload)),
    ]
    for title, part in parts:
        for name in chosen:
            seconds = time.monotonic() - begun
            if seconds > budget:
                yield Row.missing(f"{name}, {title}", f"{seconds:.0f} s are over; PBT_BENCH_WORKLOADS='{name}' runs it")
                continue
            try:
                yield from part(workloads[name]())
            except Exception as error:  # noqa: BLE001 (the other rows are measured all the same)
                yield Row.missing(f"{name}, {title}", f"{type(error).__name__}: {error}".splitlines()[0])
            free(device)


def in_float32(device: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Rows with float32 products on both sides, as in a run; torch's own default is TF32 in convolutions."""
    with matrix_products("float32", device):
        yield from rows


def free(device: str) -> None:
    """Return the memory of a workload to the device."""
    gc.collect()
    if device != "cpu":
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
    # A round of so many steps: gathering its batches is part of it.
    population = Population(spec, workload.task)
    ways = dict.fromkeys(CONVOLUTIONS if population.convolves else (), 0.0)
    for way in ways:
        population.use(way)
        ways[way] = seconds(population.try_out(workload.births(), ROUND)[0], device, ROUND)
        yield Row(
            work=f"{workload.name}, convolutions {way}",
            measured=f"{1000 * ways[way]:.2f} ms",
            against="",
            value=None,
        )
    population.use(min(ways, key=lambda way: ways[way], default=None))
    together, _ = population.try_out(workload.births(), ROUND)
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
    moved = 4 * sum(PASSES) * alone.numbers * workload.members / limits.bytes
    yield Row(
        work="the same",
        measured=f"{1000 * ours:.2f} ms",
        against=f"weights, gradients and optimizer at the device's bytes per second: {1000 * moved:.2f} ms",
        value=ours / moved,
    )
    yield Row(
        work="the same",
        measured=f"{1000 * ours:.2f} ms",
        against=f"its matrix products at the device's float32 rate: {1000 * needed:.2f} ms",
        value=ours / needed,
    )
    if workload.with_memory:
        del together, alone, sides, population
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
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor) and _has_storage(thing)]
    held = {thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes() for thing in tensors}
    return sum(held.values())


def _has_storage(tensor: torch.Tensor) -> bool:
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor) and tensor.layout is torch.strided


def trained(device: str, workload: Workload, members: int, steps: int) -> tuple[Tensor, Callable[..., Any]]:
    """The loss of each member and step of a first round, (members, steps), and the function that trains it again."""
    spec = WorkerSpec(task=workload.task, states=StateFiles(None), device=device)
    with matrix_products(workload.task.precision, device):
        run, _ = Population(spec, workload.task).try_out(workload.births()[:members], steps)
        losses, _ = run()
    return losses.double().cpu(), run


def agreement(device: str, workload: Workload, members: int = 2, steps: int = 10) -> Iterator[Row]:
    """The first losses of some members on the device, against the same in float64 on the CPU, without dropout.

    With the lowest values of hyperparameters: Adam at a high learning rate amplifies any rounding in a few steps.
    """
    workload = workload if workload.small is None else workload.small()
    quiet = workload.without_dropout()
    quiet = replace(quiet, hparams={name: (low, low) for name, (low, _) in quiet.hparams.items()})
    found, _ = trained(device, quiet, members, steps)
    expected, _ = trained("cpu", quiet.in_float64(), members, steps)
    worst = ((found - expected).abs() / expected.abs()).max().item()
    yield Row(
        work=f"{workload.name}, losses of {steps} steps",
        measured=f"{members} members in float32 on the device",
        against="in float64 on the CPU, the largest relative difference",
        value=worst,
        limit=EXACT,
    )


def precisions(device: str, workload: Workload, steps: int = 100) -> Iterator[Row]:
    """Time and loss of a round in each precision that the device has, against float32."""
    if not workload.precise:
        return
    usual: float | None = None
    for precision in PRECISIONS:
        work = f"{workload.name}, precision {precision}"
        try:
            check_precision(precision, device)
        except TaskError as error:
            yield Row.missing(work, str(error))
            continue
        task = replace(workload.task, precision=precision)
        losses, run = trained(device, replace(workload, task=task), workload.members, steps)
        with matrix_products(precision, device):
            each = seconds(run, device, steps)
        usual = usual or each
        last = losses[:, -steps // 5 :].mean().item()
        yield Row(
            work=work,
            measured=f"{1000 * each:.2f} ms, loss {last:.4f} over the last fifth of {steps} steps",
            against="float32",
            value=each / usual,
        )
        free(device)


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
