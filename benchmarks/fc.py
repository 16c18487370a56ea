"""One generation of `config/fc_PBT.json`, 10 workers on all of MNIST.

Measures a complete generation of `pbt`: training, evaluation on 15,000 images, copies, durable states, files.
References, in the same turns: Ray Tune's PBT; a plain PyTorch loop over the same networks, batches and optimizer in two
processes with one thread each, training steps only; and the time of the arithmetic of these steps at the rate of a
matrix product on two threads, without evaluation.
"""

import contextlib
from collections.abc import Sequence
from statistics import median

import torch

from benchmarks.arithmetic import SIZE, Products, training_flop
from benchmarks.base import Options, Row, times_faster
from benchmarks.generation import WORKERS, BareLoop, population, with_turns
from benchmarks.ray_side import RayTune, UnavailableError
from benchmarks.sides import Side, take_turns
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.models import Shape, network
from pbt.mnist.training import prepare
from pbt.runs.placement import Placement

THREADS = 2


def measure(options: Options) -> Sequence[Row]:
    """Compare a generation, vectorized and with worker processes, with all references."""
    config = with_turns(load_config("config/fc_PBT.json"), options.repeats)
    limit, aim = times_faster(2.3), times_faster(3)
    work = f"fc_PBT generation, {config.train.num_worker_tot} workers, `vectorized`, complete"
    with contextlib.ExitStack() as stack:
        # Started first, because it measures which placement is faster.
        ours = stack.enter_context(population(config, "vectorized"))
        processes = stack.enter_context(population(config, "processes"))
        bare = stack.enter_context(BareLoop(config))
        sides: list[Side] = [ours, processes, bare, Products(generation_flop(config), THREADS)]
        try:
            ray = stack.enter_context(RayTune.of_config(config))
        except UnavailableError as error:
            first = Row.missing(work, str(error), limit=limit, aim=aim)
            one, several, loop, needed = take_turns(sides, options.repeats)
        else:
            one, several, loop, needed, theirs = take_turns([*sides, ray], options.repeats)
            first = _row(work, one, f"{ray.name}, {WORKERS} CPU slots", theirs, limit=limit, aim=aim)
    plain = f"bare PyTorch loop, {WORKERS} processes x 1 thread, training steps only"
    product = f"its arithmetic at the rate of a {SIZE} x {SIZE} float32 product, {THREADS} threads"
    return [
        first,
        _row("the same", one, plain, loop, limit=times_faster(1.15), aim=times_faster(1.4)),
        _row("the same", one, product, needed, limit=times_faster(0.6), aim=times_faster(0.8)),
        _row("the same, `processes`", several, plain, loop, limit=1.25),
    ]


def generation_flop(config: Config) -> float:
    """Operations of the training steps of a generation."""
    train = config.train
    model = network(Shape.of(train))
    example = torch.zeros(1, train.num_channels, train.height, train.width)
    images = len(prepare(config, Placement()).data.train_y)
    return training_flop(model, example) * images * train.num_worker_tot


def _row(work: str, ours: list[float], name: str, theirs: list[float], limit: float, aim: float | None = None) -> Row:
    return Row(
        work=work,
        measured=f"{median(ours):.2f} s",
        against=f"{name}: {median(theirs):.2f} s",
        value=median(mine / other for mine, other in zip(ours, theirs, strict=True)),
        limit=limit,
        aim=aim,
    )
