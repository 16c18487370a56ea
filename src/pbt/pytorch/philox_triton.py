"""Philox as one Triton kernel: one launch and one pass over the result; torch's operations need about 150 launches.

Imported on machines with a CUDA device only: PyTorch for CUDA depends on Triton.
"""

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 512


@triton.jit  # type: ignore[untyped-decorator]
def _fill(words, keys, step, stream, groups, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(1)
    group = tl.program_id(0) * block + tl.arange(0, block)
    zeros = tl.zeros([block], tl.uint32)
    first, second, third, fourth = tl.philox(
        tl.load(keys + row), group.to(tl.uint32), zeros + tl.load(step).to(tl.uint32), zeros + stream, zeros
    )
    start = words + row.to(tl.int64) * groups * 4 + group * 4
    inside = group < groups
    tl.store(start, first.to(tl.int32, bitcast=True), mask=inside)
    tl.store(start + 1, second.to(tl.int32, bitcast=True), mask=inside)
    tl.store(start + 2, third.to(tl.int32, bitcast=True), mask=inside)
    tl.store(start + 3, fourth.to(tl.int32, bitcast=True), mask=inside)


def fill(words: Tensor, keys: Tensor, step: Tensor, stream: int, groups: int) -> None:
    """Write the words of all keys in place: int32 (keys, 4 * groups), as defined in `pbt.pytorch.philox`."""
    _fill[triton.cdiv(groups, _BLOCK), len(keys)](words, keys, step, stream, groups, block=_BLOCK)
