"""Unsaved values of a network, which the members of one program share.

Non-persistent buffers and plain attributes are in no state. Separate workers build them for each member, under the
seed of its founder; one program builds them once. They must therefore be equal under every seed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pbt.errors import TaskError

_OF_MODULES = vars(nn.Module()).keys()


def check_shareable(build: Callable[[int], nn.Module], first: nn.Module) -> None:
    """Refuse a network with unsaved random values.

    Args:
        build: Returns the network built under a seed.
        first: The network under seed 0.

    Raises:
        TaskError: A non-persistent buffer, or a tensor, array or number in an attribute, depends on the seed.
    """
    one, other = dict(_unsaved(first)), dict(_unsaved(build(1)))
    differing = [path for path in one if path in other and not _same(one[path], other[path])]
    if all(not isinstance(one[path], (Tensor, np.ndarray)) for path in differing) and differing:
        # A number that differs under the same seed is a counter, as of the networks built so far.
        again = dict(_unsaved(build(0)))
        differing = [path for path in differing if path in again and _same(one[path], again[path])]
    if differing:
        raise TaskError(
            f"the network's '{differing[0]}', which its state_dict does not save, depends on the seed, and members of "
            "one program would share it; make it a persistent buffer, or use the executor 'processes'"
        )


def _unsaved(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Tensors, arrays, numbers and texts by path, except parameters and saved buffers."""
    for path, module in model.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in _OF_MODULES}
        buffers = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        yield from _leaves(path, {**own, **buffers}, set())


def _leaves(path: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, nn.Parameter):
        return
    if isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float, complex, str)):
        yield path, value
        return
    if id(value) in seen or isinstance(value, (nn.Module, type)) or callable(value):
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        inner = {str(key): item for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        inner = {str(i): item for i, item in enumerate(value)}
    else:
        inner = getattr(value, "__dict__", {})
    for name, item in inner.items():
        yield from _leaves(f"{path}.{name}" if path else name, item, seen)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.tobytes() == other.tobytes())
    if isinstance(one, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return bool(torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all()) if one.numel() else True
    # Compared as text, so that NaN equals NaN.
    return repr(one) == repr(other)
