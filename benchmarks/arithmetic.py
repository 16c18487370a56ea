"""Operations required by training, and the machine's rate of them."""

import time
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from pbt.pytorch.state import threads_of

SIZE, PRODUCTS = 2000, 10
"""Size and number of the matrix products timed on the CPU."""
DEVICE_SIZE = 8192


def training_flop(model: nn.Module, example: Tensor) -> int:
    """Operations for one example: forward pass, gradients of weights, and of inputs if needed.

    Counts twice the products of linear and convolutional layers; element-wise operations are ignored.

    Args:
        model: Sequential layers; the first needs no gradient of its input.
        example: (1, ...).
    """
    forward = layers_flop(model, example)
    return 2 * sum(forward) + sum(forward[1:])


def layers_flop(model: nn.Module, example: Tensor) -> list[int]:
    """Operations of the forward pass of one example (1, ...), by layer."""
    found: list[int] = []

    def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001 (the form of a hook)
        weight: Any = layer.weight
        # Each output is a sum over all weights that lead to it.
        found.append(2 * output.numel() * weight[0].numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    was = model.training
    with torch.no_grad():
        model.eval()(example)
    model.train(was)
    for hook in hooks:
        hook.remove()
    return found


class Products:
    """The rate of a matrix product, as a side of a comparison: a turn takes as long as these operations.

    Args:
        flop: Number of operations.
        threads: CPU threads.
    """

    def __init__(self, flop: float, threads: int) -> None:
        self._flop, self._threads = flop, threads

    def turn(self) -> float:
        """Seconds for these operations at the currently measured rate."""
        return self._flop / product_rate("cpu", SIZE, self._threads)


def product_rate(device: str, size: int, threads: int) -> float:
    """Operations per second of a (size, size) float32 product."""
    with threads_of(threads):
        left, right = torch.randn(2, size, size, device=device)
        times = []
        for _ in range(PRODUCTS + 1):
            started = time.perf_counter()
            left @ right
            synchronize(device)
            times.append(time.perf_counter() - started)
    return 2 * size**3 / median(times[1:])


def synchronize(device: str) -> None:
    """Wait for pending work of a device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
