"""What a run records of its data, to notice other data when it is resumed, without reading all of it."""

import hashlib
from typing import Any

import torch

from pbt.pytorch.data import Data
from pbt.pytorch.sources import ExampleSource

SAMPLE = 8
"""Number of examples of each split that are compared, evenly spaced."""


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
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    forms = [f"{str(x.dtype).removeprefix('torch.')} {list(x.shape[1:])}" for x in (*inputs, targets)]
    return {"examples": count, "inputs": forms[:-1], "targets": forms[-1], "sample": digest.hexdigest()[:12]}
