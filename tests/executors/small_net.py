"""A small network with dropout and batch normalization, for workers that need torch."""

from functools import partial

import torch
from torch import nn

from pbt.pytorch import Data, Split, SupervisedTask, dropout, optimizer


def make_net():
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 3)
    )


def make_data():
    # Drawn from the global generator on purpose: every worker has to see the same examples.
    x = torch.randn(120, 6)
    y = (x[:, :3] + 0.5 * torch.randn(120, 3)).argmax(dim=1)
    return Data(train=Split(x[:80], y[:80]), validation=Split(x[80:], y[80:]))


TASK = SupervisedTask(
    model=make_net,
    data=make_data,
    optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    bind={"lr": optimizer("lr"), "p": dropout()},
    score="loss",
    batch_size=16,
)
