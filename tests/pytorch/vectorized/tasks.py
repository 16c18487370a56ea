"""Tasks for runs as one program, and a run that can be killed."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from pbt import Experiment, Float, Placement, Plan, truncation
from pbt.pytorch import Data, Split, SupervisedTask, clip_norm, dropout, loss, optimizer
from pbt.pytorch.vectorized import VectorizedExecutor


def make_net():
    """In double precision, so that decisions hang on no rounding; without a bias whose gradient is nothing else."""
    return nn.Sequential(
        nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 8), nn.Tanh(),
        nn.Linear(8, 3),
    ).double()  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.drop, self.head = nn.LSTM(6, 4).double(), nn.Dropout(0.2), nn.Linear(4, 3).double()

    def forward(self, x):
        return self.head(self.drop(self.inner(x.unsqueeze(0))[0][0]))


def make_data():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(130, 6, generator=generator, dtype=torch.float64)
    y = (x[:, :3] + 0.5 * torch.randn(130, 3, generator=generator)).argmax(dim=1)
    return Data(train=Split(x[:90], y[:90]), validation=Split(x[90:], y[90:]))


def single_net():
    return make_net().float()


def single_data():
    data = make_data()
    train, validation = (Split(split.inputs.float(), split.targets) for split in (data.train, data.validation))
    return Data(train=train, validation=validation)


def negative_loss(outputs, targets):
    return -nn.functional.cross_entropy(outputs, targets)


TASK = SupervisedTask(
    model=make_net,
    data=make_data,
    optimizer=partial(torch.optim.Adam, lr=0.01),
    bind={"lr": optimizer("lr"), "decay": optimizer("weight_decay"), "p": dropout(), "clip": clip_norm()},
    # Not the accuracy: equal scores would hide differences.
    metrics={"score": negative_loss},
    score="score",
    batch_size=16,
    order="member",
)
SINGLE = replace(TASK, model=single_net, data=single_data)
SPACE = {
    "lr": Float(1e-3, 1e300, "log", prior=(1e-3, 0.1)),
    "decay": Float(0.0, 0.1),
    "p": Float(0.0, 0.6),
    "clip": Float(0.1, 5.0, "log"),
}


def deadly(outputs, targets, fatal=0.0, *, marks, deaths):
    """A loss that kills its worker where it is told to, so many times."""
    in_worker = multiprocessing.parent_process() is not None
    if fatal > 0.5 and in_worker and len(list(marks.iterdir())) < deaths:
        (marks / f"{time.time_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.functional.cross_entropy(outputs, targets)


def deadly_task(marks, deaths):
    """The task with this loss; deaths are marked in the folder."""
    made = partial(deadly, marks=marks, deaths=deaths)
    return replace(TASK, loss=made, bind={**TASK.bind, "fatal": loss("fatal")})


def experiment(executor=VectorizedExecutor, rounds=6, **fields):
    """A population of five."""
    given = {"task": TASK, "space": SPACE, "plan": Plan(exploit=truncation(0.4), interval=7), "population": 5}
    placement = Placement(executor=executor, workers=2, threads=1)
    return Experiment(**(given | {"rounds": rounds, "seed": 3, "placement": placement} | fields))


def train(path):
    """Begin the run that is killed, or go on with it."""
    experiment(rounds=30).run(path, resume=True)
