"""What training cannot do without: its multiplications and additions, and how fast the machine does such."""

import time
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from pbt.pytorch.state import threads_of

SIZE, PRODUCTS = 2000, 10
"""The matrices whose product is timed on the CPU, and how often."""
DEVICE_SIZE = 8192


def training_flop(model: nn.Module, example: Tensor) -> int:
    """Of one example: the forward pass, the gradients of the weights, and those of inputs where they are needed.

    Twice the products of the linear and convolutional layers; what is done element by element is not counted.

    Args:
        model: Layers that follow each other: the first needs no gradient of its input.
        example: (1, ...).
    """
    forward = layers_flop(model, example)
    return 2 * sum(forward) + sum(forward[1:])


def layers_flop(model: nn.Module, example: Tensor) -> list[int]:
    """Of the forward pass of one example (1, ...), by layer."""
    found: list[int] = []

    def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG001 (the form of a hook)
        weight: Any = layer.weight
        # Each number that comes out is a sum over all weights that lead to it.
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
    """The rate of a matrix product, as a side that takes turns: a turn is as long as that many operations last.

    Args:
        flop: How many.
        threads: Of the CPU.
    """

    def __init__(self, flop: float, threads: int) -> None:
        self._flop, self._threads = flop, threads

    def turn(self) -> float:
        """Seconds of so many operations at the rate that is measured now."""
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
    """Wait for what was handed to a device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
