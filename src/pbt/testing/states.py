"""Read a stored state, and compare two states within a tolerance."""

# ruff: noqa: S101 (these are assertions)

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pbt.core.population import StateRef, Stored
from pbt.store.files import StateFiles

CLOSE = 1e-10
"""Tolerance between two computations of the same value in double precision."""


def state_of(stored: Stored) -> Any:
    """The state in this record."""
    return StateFiles(None).get(StateRef(0, 0), stored.digest, stored.blob)


def check_close(found: Any, expected: Any, where: str = "state", tolerance: float = CLOSE) -> None:
    """Assert that two nested containers have equal keys and types in equal order, and numbers within the tolerance."""
    assert type(found) is type(expected), f"{where}: {type(found).__name__} instead of {type(expected).__name__}"
    if isinstance(expected, Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), where
        wide = torch.promote_types(expected.dtype, torch.float64)
        apart = (found.to(wide) - expected.to(wide)).abs().max().item() if expected.numel() else 0.0
        assert apart <= tolerance, f"{where}: {apart} apart"
    elif isinstance(expected, Mapping):
        assert list(found) == list(expected), where
        for key, value in expected.items():
            check_close(found[key], value, f"{where}.{key}", tolerance)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for i, value in enumerate(expected):
            check_close(found[i], value, f"{where}.{i}", tolerance)
    elif isinstance(expected, float):
        # Tested for equality first: the difference of two infinities is NaN.
        assert found == expected or abs(found - expected) <= tolerance, f"{where}: {found} instead of {expected}"
    else:
        assert found == expected, f"{where}: {found!r} instead of {expected!r}"
