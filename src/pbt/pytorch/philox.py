"""Random bits as a function of a key and a counter: Philox 4x32-10.

Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3. The generator has no
state, so one operation draws the noise of all members, and the step may be a tensor on the device. Torch's operations
and the Triton kernel give the same bits on every device.
"""

import functools
from typing import Any

import torch
from torch import Tensor

_WORD = 2**32 - 1
_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85


def bits(keys: Tensor, step: Tensor, stream: int, count: int) -> Tensor:
    """Sixteen random bits for each of `count` elements of every key.

    Args:
        keys: (keys,), int64; all 64 bits are used.
        step: (), int64; its lower 32 bits are used.
        stream: From 0 to 2**32 - 1; different streams of equal keys and steps have independent bits.
        count: At most 2**35.

    Returns:
        Int16 (keys, count).
    """
    return words(keys, step, stream, -(-count // 8)).view(torch.int16)[:, :count]


def words(keys: Tensor, step: Tensor, stream: int, groups: int) -> Tensor:
    """Four words of 32 bits for each group of every key: int32 (keys, 4 * groups)."""
    if keys.is_cuda and (kernel := _kernel()) is not None:
        filled = torch.empty((len(keys), 4 * groups), dtype=torch.int32, device=keys.device)
        kernel(filled, keys, step, stream, groups)
        return filled
    return _words(keys, step, stream, groups)


def _words(keys: Tensor, step: Tensor, stream: int, groups: int) -> Tensor:
    """`words` by torch's operations: int32 (keys, 4 * groups)."""
    group = torch.arange(groups, device=keys.device).expand(len(keys), groups)
    counter = [group, (step & _WORD).expand_as(group), torch.full_like(group, stream), torch.zeros_like(group)]
    words = scrambled(counter, [(keys & _WORD).unsqueeze(1), (keys >> 32 & _WORD).unsqueeze(1)])
    stacked = torch.stack(words, dim=2).flatten(1)
    # From 0 .. 2**32 - 1 to the int32 with the same bits.
    return (stacked - ((stacked >> 31) << 32)).to(torch.int32)


def scrambled(counter: list[Tensor], key: list[Tensor]) -> list[Tensor]:
    """Encrypt four words of counter under two words of key, all of one shape; int64 from 0 to 2**32 - 1."""
    for _ in range(_ROUNDS):
        (high0, low0), (high1, low1) = (_product(counter[2 * i], by) for i, by in enumerate(_MULTIPLIERS))
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [word + add & _WORD for word, add in zip(key, _WEYL, strict=True)]
    return counter


def _product(word: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """The upper and lower 32 bits of a product of two words; the whole product exceeds int64."""
    upper, lower = (word >> 16) * by, (word & 0xFFFF) * by
    middle = upper + (lower >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (lower & 0xFFFF)


@functools.cache
def _kernel() -> Any:
    """The Triton kernel; None if Triton or its compiler is missing."""
    try:
        from pbt.pytorch.philox_triton import fill

        probe = torch.empty((1, 4), dtype=torch.int32, device="cuda")
        fill(probe, torch.zeros(1, dtype=torch.int64, device="cuda"), torch.tensor(0, device="cuda"), 0, 1)
    except Exception:  # noqa: BLE001 (torch's operations give the same bits)
        return None
    return fill
