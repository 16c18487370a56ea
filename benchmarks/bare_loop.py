"""One network alone, trained by a bare PyTorch loop: eager, or as a captured CUDA graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.accelerator_workloads import Workload
from pbt.pytorch.losses import training_loss


class BareLoop:
    """The step of one member of a workload: batch, forward, loss, backward, fused optimizer, and nothing else.

    Args:
        workload: What is trained.
        device: Where.
        capturable: Whether the optimizer can be captured, for which it keeps its count of steps on the device.
    """

    def __init__(self, workload: Workload, device: str, *, capturable: bool = False) -> None:
        task = workload.task
        self._model: nn.Module = task.model().to(device).train()
        options: dict[str, Any] = {"capturable": True} if capturable else {}
        self._optimizer = task.optimizer(self._model.parameters())
        for group in self._optimizer.param_groups:
            group.update(options)
        self._loss, self._prepare = training_loss(task.loss, device), task.prepare
        self._data, self._index = task.data().train.to(device), torch.arange(task.batch_size, device=device)

    @property
    def numbers(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self._model.parameters() if parameter.requires_grad)

    def step(self) -> None:
        """One step on the first examples."""
        (inputs,), targets = self._data.take(self._index)
        if self._prepare is not None:
            inputs = self._prepare(inputs)
        self._optimizer.zero_grad(set_to_none=True)
        self._loss(self._model(inputs), targets).backward()
        self._optimizer.step()


def captured(workload: Workload, device: str) -> Callable[[], None]:
    """The step of one member as a CUDA graph that is replayed."""
    loop = BareLoop(workload, device, capturable=True)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            loop.step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loop.step()

    def replay() -> None:
        # The graph reads and writes what the loop holds.
        assert loop is not None
        graph.replay()

    return replay
