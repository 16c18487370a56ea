"""A member on a device of its own: the number of values that a round reads back does not depend on its length."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pbt.executors.worker import Context
from pbt.pytorch import Data, Split, SupervisedTask, accuracy, clip_norm, dropout, loss, optimizer
from pbt.pytorch.noise import CounterNoise, Noise
from pbt.pytorch.trainer import SupervisedTrainer

READS = ("_local_scalar_dense", "equal", "is_nonzero", "item", "masked_select", "nonzero", "unique")
"""Operations for which a device must have finished."""
METHODS = ("__bool__", "__float__", "__index__", "__int__", "cpu", "item", "numpy", "tolist")
"""Methods of a tensor that copy it to the CPU: there they dispatch nothing."""


class Methods(TorchFunctionMode):
    """Counts the methods that read a tensor."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in METHODS:
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Counts the operations that read a tensor, in the backward pass, too."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        if name in READS:
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


def net():
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3)]
    return nn.Sequential(*layers)


def data(held_out=40):
    generator = torch.Generator().manual_seed(0)

    def split(count):
        return Split(torch.randn(count, 6, generator=generator), torch.randint(3, (count,), generator=generator))

    return Data(train=split(30), validation=split(held_out), test=split(held_out))


def spread(outputs, targets):
    """No mean over examples."""
    return outputs.std()


TASK = SupervisedTask(
    model=net,
    data=data,
    optimizer=partial(torch.optim.AdamW, lr=1e-2, fused=True),
    bind={"lr": optimizer("lr"), "p": dropout(), "clip": clip_norm(), "s": loss("label_smoothing")},
    metrics={"accuracy": accuracy, "spread": spread},
    batch_size=10,
)
HPARAMS = {"lr": 1e-3, "p": 0.2, "clip": 1.0, "s": 0.1}
VARIETIES = {
    "adamw": {},
    "momentum": {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9, foreach=True)},
    "an average": {"ema": 0.99},
    "accumulated": {"accumulate": 2},
    "a scheduler": {"scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=2)},
    "a plateau": {"scheduler": partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=1)},
    "bfloat16": {"precision": "bf16"},
    "an order of its own": {"order": "member"},
}


def reads(task, steps):
    """The reads of a member's second round."""
    trainer = SupervisedTrainer(task, "cpu", 1)
    state, _ = trainer(HPARAMS, None, 2, Context(seed=0, member=0, round=1, first_step=0))
    with Methods() as methods, Operations() as operations:
        trainer(HPARAMS, state, steps, Context(seed=0, member=0, round=2, first_step=2))
    return methods.names + operations.names


@pytest.mark.parametrize("variety", VARIETIES)
def test_a_round_reads_nothing_within(variety, monkeypatch):
    """Longer rounds and evaluations in more batches read as often as short ones: once, after training."""
    # As on a GPU.
    monkeypatch.setattr(Noise, "of", staticmethod(CounterNoise))
    task = replace(TASK, **VARIETIES[variety])
    short = reads(replace(task, data=partial(data, 10), evaluation_batch=20), 1)
    long = reads(replace(task, data=partial(data, 60), evaluation_batch=5), 9)
    # The report reads each loss, but from the CPU.
    assert long == short


def test_it_counts():
    """A metric that reads its outputs is counted, once in every batch."""
    found = [
        reads(replace(TASK, metrics={"accuracy": accuracy, "read": reading}, means=("read",), evaluation_batch=n), 1)
        for n in (40, 10)
    ]
    # Six more batches, of two splits.
    assert (found[1] - found[0])["item"] == 6


def reading(outputs, targets):
    return outputs.mean().item()
