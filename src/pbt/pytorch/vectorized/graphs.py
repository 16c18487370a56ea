"""Capture of operations as a CUDA graph: the one place to exchange for another backend."""

from collections.abc import Callable

import torch


def capture(body: Callable[[], None], device: str) -> Callable[[], None]:
    """Record the operations of `body` without running them; returns a function that runs them again.

    The current stream must not be the default one. All tensors that `body` reads or writes must stay where they are.

    Raises:
        Exception: `body` reads a value from the device, or does anything else that a graph cannot hold.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(device)):
            body()
    except Exception:
        torch.cuda.synchronize(device)
        raise
    replay: Callable[[], None] = graph.replay
    return replay
