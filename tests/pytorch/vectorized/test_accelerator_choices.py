"""What is chosen for an accelerator, on the CPU: the same results, and launches that do not grow with members."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.accelerator_workloads import MNIST_HPARAMS, Workload, mnist, transformer
from pbt.executors.base import Executor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import optimizer, philox
from pbt.pytorch.noise import CounterNoise, Noise
from pbt.pytorch.vectorized import VectorizedExecutor
from pbt.pytorch.vectorized.population import Population
from pbt.pytorch.vectorized.tuning import ACCELERATOR, Tuning
from pbt.store.files import StateFiles
from tests.helpers.varieties import NetworksContract

EAGER = replace(ACCELERATOR, capture=False)
"""The choices for an accelerator, as far as the CPU has them."""
VIEWS = {
    "_unsafe_view", "alias", "as_strided", "detach", "empty", "empty_like", "empty_strided", "expand",
    "new_empty_strided", "permute", "reshape", "select", "slice", "split", "squeeze", "t", "transpose", "unbind",
    "unsqueeze", "view",
}  # fmt: skip
"""Operations that start nothing on a device."""


@pytest.fixture(autouse=True)
def _accelerator(monkeypatch):
    monkeypatch.setattr(Tuning, "of", classmethod(lambda cls, device: EAGER))
    monkeypatch.setattr(Noise, "of", staticmethod(CounterNoise))


class TestChoices(NetworksContract):
    """All networks, optimizers and laws."""

    exact = False

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return VectorizedExecutor(setup)


class Launches(TorchDispatchMode):
    """Counts the operations that are dispatched inside."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        if name not in VIEWS:
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


def perceptron():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10)
    )  # fmt: skip


LR = {"lr": (1e-4, 1e-2)}
FC, CONV = (partial(mnist, kind, batches=3) for kind in ("fc", "conv"))
OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, lr=1e-3),
    "AdamW": partial(torch.optim.AdamW, lr=1e-3),
    "SGD": partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
    "RMSprop": partial(torch.optim.RMSprop, lr=1e-3),
}
TASKS = {
    "mlp": lambda: (replace(FC(), model=perceptron, bind={"lr": optimizer("lr")}, batch_size=4), LR),
    "fc": lambda: (replace(FC(), batch_size=4), MNIST_HPARAMS),
    "conv": lambda: (replace(CONV(), batch_size=2), MNIST_HPARAMS),
    "transformer": lambda: (transformer(width=8, length=4, batch=2), LR),
}


def one_launch(keys, step, stream, groups):
    """The Triton kernel in the count: one operation, whose bits do not matter here."""
    return torch.full((len(keys), 4 * groups), 5, dtype=torch.int32)


def launches(task, hparams, members):
    """The operations of one training step."""
    workload = Workload(name="", task=task, members=members, hparams=hparams)
    population = Population(WorkerSpec(task=task, states=StateFiles(None)), task)
    train, _ = population.try_out(workload.births(), steps=2)
    train()
    steps = population._steps
    steps._start.zero_()
    steps._column.zero_()
    with Launches() as counted:
        steps._gathered(task.batch_size)
    return counted.names


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("name", TASKS)
def test_launches_do_not_grow_with_members(name, rule, monkeypatch):
    """A training step dispatches the same operations for few members as for many."""
    task, hparams = TASKS[name]()
    task = replace(task, optimizer=OPTIMIZERS[rule])
    monkeypatch.setattr(philox, "words", one_launch)
    few, many = (launches(task, hparams, members) for members in (2, 7))
    assert few == many
    assert 40 < few.total() < 500
