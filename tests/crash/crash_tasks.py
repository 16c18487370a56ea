"""Runs that are killed. Started as a program: `python crash_tasks.py RUN_DIR TASK EXECUTOR`."""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from pbt import Experiment, Float, Placement, Plan, truncation

SECONDS = 0.03
"""How long a round of the torch-free task takes."""


def walk(hparams, state, steps, ctx):
    """A keyed walk that takes its time, with a state that is worth a file; one round of one member fails."""
    time.sleep(SECONDS)
    place = np.zeros(5000) if state is None else state["place"]
    for step in range(ctx.first_step, ctx.first_step + steps):
        place += hparams["lr"] * np.random.default_rng(ctx.key("walk", ctx.member, step)).standard_normal(5000)
    if (ctx.member, ctx.round) == (2, 3):
        raise ValueError("meant to fail")
    # Drawn from a global generator, which is seeded for each round.
    return {"place": place, "luck": float(np.random.random())}, -float(np.abs(place).mean())  # noqa: NPY002


def net():
    from torch import nn

    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def data():
    import torch

    from pbt.pytorch import Data, Split

    x = torch.randn(96, 4)
    y = (x.sum(dim=1) > 0).long()
    return Data(train=Split(x[:64], y[:64]), validation=Split(x[64:], y[64:]))


def network():
    import torch

    from pbt.pytorch import SupervisedTask, dropout, optimizer

    adam = partial(torch.optim.Adam, lr=0.01)
    return SupervisedTask(
        model=net, data=data, optimizer=adam, bind={"lr": optimizer("lr"), "p": dropout()}, score="loss", batch_size=10
    )


def experiment(task, executor):
    """The run that is killed and resumed."""
    space = {"lr": Float(0.001, 0.1, "log"), **({"p": Float(0.1, 0.6)} if task == "network" else {})}
    return Experiment(
        task=walk if task == "walk" else network(),
        space=space,
        plan=Plan(exploit=truncation(0.4), interval=3),
        population=5,
        rounds=6,
        seed=7,
        placement=Placement(executor=executor, workers=2, threads=1),
    )


if __name__ == "__main__":
    experiment(*sys.argv[2:]).run(Path(sys.argv[1]), resume=True)
