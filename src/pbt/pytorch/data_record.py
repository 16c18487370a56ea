"""Digests of data.

A run records one of a sample, to notice other data when it is resumed; the machines of a cluster compare one of all
that is in memory.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch

from pbt.core.rng import seed_of
from pbt.executors.seeding import seeded
from pbt.pytorch.data import Data
from pbt.pytorch.sources import ExampleSource

SAMPLE = 8
"""Number of examples of each split that are compared, evenly spaced."""
MOST = 256 << 20
"""Bytes of each split in memory that a fingerprint covers; of a larger one, as many examples, evenly spaced."""
_PIECE = 4 << 20


def record_of(data: Data) -> dict[str, Any]:
    """The number, the form and a sample's digest of the examples of each split, as plain values.

    Raises:
        ExampleError: An example of the sample cannot be read.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: _record(split) for name, split in splits.items() if split is not None}


def _record(split: ExampleSource) -> dict[str, Any]:
    count = len(split)
    if not count:
        return {"examples": 0}
    few = min(SAMPLE, count)
    inputs, targets = split.take(torch.arange(few) * count // few)
    digest = hashlib.sha256()
    for x in (*inputs, targets):
        digest.update(_bytes(x))
    forms = [f"{str(x.dtype).removeprefix('torch.')} {list(x.shape[1:])}" for x in (*inputs, targets)]
    return {"examples": count, "inputs": forms[:-1], "targets": forms[-1], "sample": digest.hexdigest()[:12]}


def fingerprint_of(data: Data) -> dict[str, str]:
    """The digest of each split, over all examples in memory up to `MOST`, else over a sample, with number and form."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    with seeded(seed_of("fingerprint")):
        return {f"the {name} data": _fingerprint(split) for name, split in splits.items() if split is not None}


def _fingerprint(split: ExampleSource) -> str:
    digest = hashlib.sha256(repr(_record(split)).encode())
    if len(split) and not split.streamed:
        for index in _pieces(split):
            inputs, targets = split.take(index)
            for x in (*inputs, targets):
                digest.update(_bytes(x))
    return digest.hexdigest()[:16]


def _pieces(split: ExampleSource) -> Iterator[torch.Tensor]:
    """The indices of the examples that are read, evenly spaced, a few MiB at a time."""
    inputs, targets = split.take(torch.arange(1))
    each, count = max(1, sum(x.nbytes for x in (*inputs, targets))), len(split)
    number = min(count, max(SAMPLE, MOST // each))
    yield from torch.split(torch.arange(number) * count // number, max(1, _PIECE // each))


def _bytes(x: torch.Tensor) -> bytes:
    return x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
