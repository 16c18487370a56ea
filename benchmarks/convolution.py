"""Training step of the convolutional network: keyed dropout fused with ReLU, relative to plain modules."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.base import Options, Row, times_faster
from pbt.mnist.models import Shape, network
from pbt.pytorch import Noise, key_dropout
from pbt.pytorch.state import threads_of

STEPS = 8
"""Timed steps per turn."""
BATCH, THREADS = 200, 2


def measure(options: Options) -> Sequence[Row]:
    """Seconds per step of `conv`; both sides alternate, on two threads."""
    shape = Shape(model="conv", image=(1, 28, 28), classes=10, sizes=(16, 32), batch_norm=True, keep_prob=0.8)
    noise = Noise()
    plain, keyed = network(shape).train(), network(shape).train()
    key_dropout(keyed, noise)
    images, labels = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    with threads_of(THREADS):
        turns = [
            (_seconds(plain, images, labels), _seconds(keyed, images, labels, noise.at))
            for _ in range(options.repeats + 1)
        ]
    theirs, ours = (median(side) for side in zip(*turns[1:], strict=True))
    return [
        Row(
            work=f"conv step, batch {BATCH}, {THREADS} threads",
            measured=f"{1000 * ours:.1f} ms",
            against=f"the same network with `nn.ReLU`, `nn.Dropout`: {1000 * theirs:.1f} ms",
            value=median(mine / plain_ for plain_, mine in turns[1:]),
            limit=times_faster(1.8),
        )
    ]


def _seconds(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, at: Callable[[int], None] = lambda _: None
) -> float:
    """Median seconds per step."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    times = []
    for step in range(STEPS):
        started = time.perf_counter()
        at(step)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        times.append(time.perf_counter() - started)
    return median(times)
