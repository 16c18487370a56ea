"""Small torch tasks, in a module of their own so that workers start without pytest."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pbt.pytorch import Data, Split, SupervisedTask, argument, attribute, dropout, loss, optimizer
from pbt.store.codec import digest

BATCH = 16
EXAMPLES = 56
"""Three and a half batches: the last one of an epoch is smaller."""


def make_net():
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.Dropout(), nn.Linear(8, 3)
    )


def make_data():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(EXAMPLES + 40, 6, generator=generator)
    y = (x[:, :3] + 0.5 * torch.randn(len(x), 3, generator=generator)).argmax(dim=1)
    train, held_out = slice(None, EXAMPLES), slice(EXAMPLES, None)
    return Data(train=Split(x[train], y[train]), validation=Split(x[held_out], y[held_out]))


def jitter_inputs(inputs, generator):
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


NET = SupervisedTask(
    model=make_net,
    data=make_data,
    optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    bind={"lr": optimizer("lr"), "p": dropout(), "smoothing": loss("label_smoothing")},
    score="loss",
    batch_size=BATCH,
    augment=jitter_inputs,
    order="member",
)


@dataclass(frozen=True)
class Witness:
    """A task that also reports the digest of the state that each round was handed."""

    task: SupervisedTask

    def check(self, hparams):
        self.task.check(hparams)

    def trainer(self, device, threads):
        return partial(_witnessed, self.task.trainer(device, threads))


def _witnessed(train, hparams, state, steps, ctx):
    found = None if state is None else digest(state)
    state, metrics = train(hparams, state, steps, ctx)
    return state, {**metrics, "handed": found}


class TwoInputs(nn.Module):
    """A network of two inputs whose second one shifts the outputs; hides functional dropout."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.temperature = 1.0

    def forward(self, x, shift):
        x = functional.dropout(x, 0.2, self.training)
        return self.linear(x) / self.temperature + shift


def two_input_data():
    data = make_data()

    def widen(split):
        return Split((split.inputs, torch.arange(len(split)).float().unsqueeze(1) % 2), split.targets)

    return Data(train=widen(data.train), validation=widen(data.validation), test=widen(data.validation))


def mean_output(outputs, targets):
    return outputs.mean()


TWO_INPUTS = SupervisedTask(
    model=TwoInputs,
    data=two_input_data,
    optimizer=partial(torch.optim.AdamW, lr=1e-3),
    bind={
        "lr": optimizer("lr"),
        "temperature": attribute("model.temperature"),
        "momentum": optimizer("betas", index=0),
    },
    metrics={"mean": mean_output},
    score="mean",
    batch_size=BATCH,
)


class Duel:
    """The class form: two networks with an optimizer each, a scheduler, and draws from every global generator."""

    bind: ClassVar = {
        "lr": optimizer("lr", part="first_optimizer"),
        "other_lr": optimizer("lr", part="second_optimizer"),
        "noise": argument(),
    }

    def build(self, hparams, ctx):
        first, second = nn.Linear(4, 2), nn.Linear(2, 1)
        with torch.no_grad():
            second.weight.mul_(float(np.random.random()))  # noqa: NPY002
        first_optimizer = torch.optim.Adam(first.parameters(), lr=0.5)
        return {
            "first": first,
            "second": second,
            "first_optimizer": first_optimizer,
            "second_optimizer": torch.optim.SGD(second.parameters(), lr=0.5),
            "scheduler": torch.optim.lr_scheduler.LambdaLR(first_optimizer, halve),
            "scale": 2.0,
        }

    def train(self, parts, hparams, steps, ctx):
        for _ in range(steps):
            x = torch.randn(8, 4) + hparams["noise"] * float(np.random.random())  # noqa: NPY002
            value = (parts["second"](parts["first"](x)) - parts["scale"]).square().mean()
            for name in ("first_optimizer", "second_optimizer"):
                parts[name].zero_grad()
            value.backward()
            parts["first_optimizer"].step()
            parts["second_optimizer"].step()
            parts["scheduler"].step()

    def evaluate(self, parts, ctx):
        with torch.no_grad():
            value = (parts["second"](parts["first"](torch.ones(1, 4))) - parts["scale"]).square()
        return {"score": -float(value), "rates": parts["scheduler"].base_lrs}


def halve(step):
    return 0.5**step
