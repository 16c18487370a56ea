"""Numeric precision of training: float32, TensorFloat-32, or bfloat16 with float32 weights and optimizers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils._pytree import tree_map  # as in `evaluation`: outputs of any structure

from pbt.errors import TaskError

Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_TF32_CAPABILITY = 8
"""The first compute capability with TensorFloat-32 and bfloat16 units (Ampere)."""
_FP32_BACKENDS = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)  # type: ignore[attr-defined]


def check_precision(precision: Precision, device: str) -> None:
    """Raise TaskError if a device does not have this precision."""
    if precision == "float32" or (precision == "bf16" and device == "cpu"):
        return
    if device == "cpu":
        raise TaskError("precision='tf32' needs an NVIDIA GPU, got the device 'cpu'; use 'float32' or 'bf16'")
    major, minor = torch.cuda.get_device_capability(device)
    if major < _TF32_CAPABILITY:
        raise TaskError(
            f"precision='{precision}' needs a GPU of compute capability {_TF32_CAPABILITY}.0 or higher, got "
            f"{torch.cuda.get_device_name(device)} with {major}.{minor}; use 'float32'"
        )


@contextmanager
def matrix_products(precision: Precision, device: str) -> Iterator[None]:
    """Set how float32 products are computed on a GPU, and restore it at the end of the block.

    By default torch computes convolutions in TensorFloat-32. With `"float32"` and `"bf16"` all float32 operations keep
    their 24 bits.
    """
    if device == "cpu":
        yield
        return
    backends: Any = _FP32_BACKENDS
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


@contextmanager
def forward_pass(precision: Precision, device: str) -> Iterator[None]:
    """Compute a network's forward pass with bfloat16 products under `"bf16"`, by torch's autocast.

    Weights, gradients of weights and optimizer states stay float32.
    """
    if precision != "bf16":
        yield
        return
    kind = device.partition(":")[0]
    fused = torch.backends.mha.get_fastpath_enabled()
    # The fused evaluation of transformer layers does not convert its weights, and is left out for CUDA's autocast only.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # The cache of converted weights would outlive a step in a captured graph, and mix members under vmap.
        with torch.autocast(kind, torch.bfloat16, cache_enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def in_float32(outputs: Any, precision: Precision) -> Any:
    """The outputs of a network for losses and metrics, which are computed in float32."""
    if precision != "bf16":
        return outputs
    halves = (torch.bfloat16, torch.float16)
    return tree_map(lambda leaf: leaf.float() if isinstance(leaf, Tensor) and leaf.dtype in halves else leaf, outputs)
