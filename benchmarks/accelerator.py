"""A training step of 64 conv members on a CUDA device, if there is one.

Compares `vectorized`, all members in one program, with one member after another, as a process would train it, and with
the arithmetic of the step at the rate of a matrix product on the device.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from benchmarks.arithmetic import DEVICE_SIZE, product_rate, synchronize, training_flop
from benchmarks.base import Options, Row
from pbt.core.population import View
from pbt.core.strategy import births
from pbt.executors.worker import Context, WorkerSpec
from pbt.mnist.config.record import load_config
from pbt.mnist.models import Shape, network
from pbt.mnist.task import space, supervised
from pbt.pytorch.supervised import SupervisedTrainer
from pbt.pytorch.vectorized.population import Population
from pbt.store.files import StateFiles

MEMBERS, STEPS = 64, 10
"""STEPS: training steps per turn."""


def measure(options: Options) -> Sequence[Row]:
    """Measure a step of all members, if there is a device."""
    work = f"conv_PBT step, {MEMBERS} members, `vectorized`, accelerator"
    if not torch.cuda.is_available():
        return [Row.missing(work, "no accelerator here")]
    name = torch.cuda.get_device_name()
    return measure_on("cuda:0", f"{work} ({name})", options.repeats, MEMBERS, DEVICE_SIZE)


def measure_on(device: str, work: str, repeats: int, members: int, size: int) -> Sequence[Row]:
    """The rows for a device.

    Args:
        device: Device to measure.
        work: Name of the rows.
        repeats: Turns per side.
        members: Population size.
        size: Size of the timed matrix product.
    """
    config = load_config("config/conv_PBT.json")
    train = config.train
    task = supervised(config)
    setup = WorkerSpec(task=task, states=StateFiles(None), device=device)
    started = [birth.hparams for birth in births(View(seed=0, space=space(config)), members, ())]
    together, _ = Population(setup, task).try_out(started)
    trainer = SupervisedTrainer(task, device, setup.threads)
    context = Context(seed=0, member=0, round=1, first_step=0, device=device)
    model = network(Shape.of(train))
    example = torch.zeros(1, train.num_channels, train.height, train.width)
    flop = training_flop(model, example) * train.batch_size * members
    turns = [
        (
            _seconds(together, device),
            members * _seconds(lambda: trainer.try_out(started[0], context), device),
            flop / product_rate(device, size, setup.threads),
        )
        for _ in range(repeats)
    ]
    ours, alone, needed = (median(of) for of in zip(*turns, strict=True))
    return [
        Row(
            work=work,
            measured=f"{1000 * ours:.2f} ms",
            against=f"one member after another: {1000 * alone:.2f} ms",
            value=median(one / two for one, two, _ in turns),
            limit=1.0,
        ),
        Row(
            work="the same",
            measured=f"{1000 * ours:.2f} ms, {100 * median(two / one for one, _, two in turns):.0f} % of the rate",
            against=f"its arithmetic at the rate of a {size} x {size} float32 product: {1000 * needed:.2f} ms",
            value=median(one / two for one, _, two in turns),
        ),
    ]


def _seconds(step: Callable[[], None], device: str) -> float:
    """Seconds per step, after one warm-up step."""
    step()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    synchronize(device)
    return (time.perf_counter() - started) / STEPS
