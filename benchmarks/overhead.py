"""What everything around training costs: a whole generation against the bare training steps in it.

Left: `pbt` with `processes`: training, evaluation on 15,000 images, hand-over, durable states, files. Right: a
plain PyTorch loop over the same networks, batches and optimizer in two processes with one thread each, training
steps only. Start-up (imports, data) is left out on both sides, and both take turns on the machine.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.base import Row
from pbt.core.events import Event, Reported
from pbt.engine import Engine, Observer
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.models import Shape, network
from pbt.mnist.population import placement_of, prepare
from pbt.mnist.task import load_data, normalize

WORKERS = 2
GENERATIONS = 2
"""Timed generations of one repeat, after one that starts everything."""


class Clock(Observer):
    """When each round was committed, files included."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Look at the clock."""
        if any(isinstance(event, Reported) for event in events):
            self.times.append(time.perf_counter())


def measure(repeats: int) -> Sequence[Row]:
    """One generation of `config/fc_PBT.json` against its training steps alone."""
    config = load_config("config/fc_PBT.json", overrides={"num_epochs_tot": 1 + GENERATIONS})
    ours, bare = [], []
    for _ in range(repeats):
        ours.append(_generation(config))
        bare.append(_bare_generation(config))
    ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    members = config.train.num_worker_tot
    return [
        Row(
            work=f"fc_PBT generation, {members} workers, `processes`, whole",
            measured=f"{median(ours):.2f} s",
            against=f"bare PyTorch loop, {WORKERS} processes x 1 thread, training steps only: {median(bare):.2f} s",
            value=median(ratios),
            limit=1.25,
        )
    ]


def _generation(config: Config) -> float:
    """Seconds of a generation."""
    clock = Clock()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        prepared = prepare(config, placement_of(config, executor="processes"))
        prepared.train(Path(folder) / "run", resume=False, observers=[clock])
    return (clock.times[-1] - clock.times[0]) / GENERATIONS


def _bare_generation(config: Config) -> float:
    """Seconds of the same training steps in a plain loop."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(WORKERS), context.SimpleQueue()
    processes = [context.Process(target=_bare_worker, args=(config, i, barrier, results)) for i in range(WORKERS)]
    for process in processes:
        process.start()
    spans = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return (max(stop for _, stop in spans) - min(start for start, _ in spans)) / GENERATIONS


def _bare_worker(config: Config, index: int, barrier: Any, results: Any) -> None:
    torch.set_num_threads(1)
    train = config.train
    data = load_data(train.data_dir, train.num_val, (1, 28, 28), 10)
    images, labels = normalize(data.train.inputs), data.train.targets
    _bare_epoch(config, images, labels, steps=20)
    barrier.wait()
    started = time.monotonic()
    for _ in range(GENERATIONS):
        for _ in range(index, train.num_worker_tot, WORKERS):
            _bare_epoch(config, images, labels)
    results.put((started, time.monotonic()))


def _bare_epoch(config: Config, images: torch.Tensor, labels: torch.Tensor, steps: int | None = None) -> None:
    train = config.train
    model = network(Shape.of(train, train.keep_prob)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=True)
    order = torch.randperm(len(labels))
    for batch in order.split(train.batch_size)[:steps]:
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
