"""Many small networks, 64-32-10 with batches of 50, whose overhead per step exceeds the arithmetic.

Compares `vectorized` with `processes`. Almost only training steps: long rounds, no evaluation, a log in memory.
"""

import contextlib
import functools
from collections.abc import Sequence
from multiprocessing.connection import Connection
from statistics import median

import torch
from torch import nn

import pbt
from benchmarks.base import Options, Row, times_faster
from benchmarks.sides import Child, EnoughError, Gate, take_turns
from pbt.pytorch import Data, Split, SupervisedTask, optimizer

STEPS = {64: 400, 512: 100}
"""Steps per round, by number of members."""
LIMITS = {64: 3, 512: 6}
"""Least factor of speed."""
BATCH, EXAMPLES, FEATURES, CLASSES = 50, 5000, 64, 10
SPACE = {"lr": pbt.Float(1e-4, 1e-2, scale="log")}


def mlp() -> nn.Module:
    """The network."""
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def examples() -> Data:
    """Random examples, without validation data."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(EXAMPLES, FEATURES, generator=generator)
    targets = torch.randint(0, CLASSES, (EXAMPLES,), generator=generator)
    return Data(train=Split(inputs, targets), validation=Split(inputs[:0], targets[:0]))


def task() -> SupervisedTask:
    """The task."""
    return SupervisedTask(
        model=mlp,
        data=examples,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-3),
        bind={"lr": optimizer("lr")},
        batch_size=BATCH,
    )


def measure(options: Options) -> Sequence[Row]:
    """Measure seconds per round, by number of members."""
    return [_row(members, options.repeats) for members in STEPS]


def _row(members: int, repeats: int) -> Row:
    with Child(_train, members, "vectorized", repeats) as ours, Child(_train, members, "processes", repeats) as theirs:
        together, apart = take_turns([ours, theirs], repeats)
    steps = STEPS[members]
    return Row(
        work=f"MLP 64-32-10, batch {BATCH}, {members} members, `vectorized`",
        measured=f"{1000 * median(together) / steps:.2f} ms per step of all members",
        against=f"`processes`: {1000 * median(apart) / steps:.2f} ms",
        value=median(mine / other for mine, other in zip(together, apart, strict=True)),
        limit=times_faster(LIMITS[members]),
        aim=times_faster(10),
    )


def _train(connection: Connection, members: int, executor: str, turns: int) -> None:
    with contextlib.suppress(EnoughError):
        pbt.run(
            task(),
            SPACE,
            plan=pbt.Plan(interval=STEPS[members]),
            population=members,
            rounds=turns + 2,
            placement=pbt.Placement(executor=executor, device="cpu"),
            observers=[Gate(connection)],
        )
