"""A generation of the MNIST population: with `pbt`, and only its training steps in plain PyTorch."""

import contextlib
import time
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F

from benchmarks.sides import Child, EnoughError, Gate, run_folder
from pbt.mnist.config.record import Config
from pbt.mnist.models import Shape, network
from pbt.mnist.placement import placement_of
from pbt.mnist.task import load_data, normalize
from pbt.mnist.training import prepare

WORKERS = 2
"""Number of processes of the plain loop, with one thread each."""


def with_turns(config: Config, turns: int) -> Config:
    """The configuration with one epoch per turn, one before the first and one after the last.

    Each turn therefore ends with a decision.
    """
    return config.changed(num_epochs_tot=turns + 2, num_epochs=1)


def population(config: Config, executor: str) -> Child:
    """`pbt`: training, evaluation, copies, durable states, tables."""
    return Child(_population, config, executor)


def _population(connection: Connection, config: Config, executor: str) -> None:
    with run_folder() as folder, contextlib.suppress(EnoughError):
        prepared = prepare(config, placement_of(config, executor=executor))
        prepared.train(folder, resume=False, observers=[Gate(connection)])


class BareLoop:
    """Only the training steps, in a plain loop over the members, divided over processes."""

    def __init__(self, config: Config) -> None:
        self._workers = [Child(_bare, config, i) for i in range(WORKERS)]
        self._open = contextlib.ExitStack()

    def turn(self) -> float:
        """Train one generation; return the seconds."""
        return run_at_once(self._workers)

    def __enter__(self) -> "BareLoop":
        for worker in self._workers:
            self._open.enter_context(worker)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


def run_at_once(workers: list[Child]) -> float:
    """Seconds until all sides finished a turn, started at the same time."""
    started = time.perf_counter()
    for worker in workers:
        worker.begin()
    for worker in workers:
        worker.end()
    return time.perf_counter() - started


def _bare(connection: Connection, config: Config, index: int) -> None:
    torch.set_num_threads(1)
    train = config.train
    data = load_data(train.data_dir, train.num_val, (train.num_channels, train.height, train.width), train.num_classes)
    assert isinstance(data.train.inputs, torch.Tensor)
    images, labels = normalize(data.train.inputs), data.train.targets
    _epoch(config, images, labels, steps=20)
    connection.send("ready")
    with contextlib.suppress(EOFError):
        while connection.recv():
            started = time.perf_counter()
            for _ in range(index, train.num_worker_tot, WORKERS):
                _epoch(config, images, labels)
            connection.send(time.perf_counter() - started)


def _epoch(config: Config, images: torch.Tensor, labels: torch.Tensor, steps: int | None = None) -> None:
    train = config.train
    model = network(Shape.of(train, train.keep_prob)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=True)
    order = torch.randperm(len(labels))
    for batch in torch.split(order, train.batch_size)[:steps]:
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
