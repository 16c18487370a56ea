"""Unsaved values of a network and its optimizer, which the members of one program share.

Non-persistent buffers, plain attributes, the kinds of layers, frozen parameters, and what an optimizer keeps outside of
its state are in no state. Separate workers build them for each member, under the seed of its founder; one program
builds them once. They must therefore be equal under every seed.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pbt.errors import TaskError
from pbt.pytorch.vectorized.failures import REMEDY

OF_MODULES = vars(nn.Module()).keys()
"""The attributes of every module."""
_OF_OPTIMIZERS = vars(torch.optim.SGD([torch.zeros(1)], lr=0.1)).keys()
Parts = Mapping[str, Any]
"""The network as `model` and the optimizer as `optimizer`."""


class SharedValues:
    """The unsaved values that are the same for all members.

    Args:
        build: Returns the parts built under a seed.
        first: The parts under seed 0.

    Raises:
        TaskError: A value depends on the seed.
    """

    def __init__(self, build: Callable[[int], Parts], first: Parts) -> None:
        self._values = dict(_unsaved(first))
        self._counters: set[str] = set()
        """The numbers that differ under the same seed: counters, as of the networks built so far."""
        other = dict(_unsaved(build(1)))
        differing = self._differing(other)
        if differing and not any(isinstance(self._values[path], (Tensor, np.ndarray)) for path in differing):
            self._counters = set(self._differing(dict(_unsaved(build(0)))))
        self._refuse(other)

    def check(self, parts: Parts) -> None:
        """Raise TaskError if a value of a newly built member differs."""
        self._refuse(dict(_unsaved(parts)))

    def _differing(self, other: Mapping[str, Any]) -> list[str]:
        common = (path for path in self._values if path in other and path not in self._counters)
        return [path for path in common if not _same(self._values[path], other[path])]

    def _refuse(self, other: Mapping[str, Any]) -> None:
        for path in self._differing(other):
            part, _, name = path.partition(":")
            tensor = part == "model" and not isinstance(self._values[path], (str, bool))
            remedy = f"make it a persistent buffer, or {REMEDY}" if tensor else REMEDY
            raise TaskError(
                f"the {'network' if part == 'model' else part}'s '{name}', which its state_dict does not save, depends "
                f"on the seed, and members of one program would share it; {remedy}"
            )


def _unsaved(parts: Parts) -> Iterator[tuple[str, Any]]:
    """Tensors, arrays, numbers, texts and kinds by path, except parameters and saved buffers."""
    model: nn.Module = parts["model"]
    known = {id(part): part for part in (*model.modules(), *model.parameters())}
    for path, module in model.named_modules():
        if path:
            yield f"model:{path}", f"{type(module).__module__}.{type(module).__qualname__}"
        own = {name: value for name, value in vars(module).items() if name not in OF_MODULES}
        buffers = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        yield from leaves(f"model:{path}", {**own, **buffers}, known)
    for name, parameter in model.named_parameters():
        yield f"model:{name}.requires_grad", parameter.requires_grad
    own = {name: value for name, value in vars(parts["optimizer"]).items() if name not in _OF_OPTIMIZERS}
    yield from leaves("optimizer:", own, known)


def leaves(path: str, value: Any, seen: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    """The tensors, arrays, numbers, texts and kinds in an object by path, except objects that were seen, by `id`."""
    if isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float, complex, str)):
        if id(value) not in seen:
            yield path, value
        return
    if isinstance(value, partial):
        yield from leaves(path, {"func": value.func, "args": value.args, **value.keywords}, seen)
        return
    if callable(value) and not isinstance(value, nn.Module):
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
        line = getattr(getattr(value, "__code__", None), "co_firstlineno", "")
        yield path, f"{getattr(value, '__module__', '')}.{name or type(value).__qualname__}:{line}"
        return
    if id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, nn.Module):
        # A module in a plain list, which the network does not register.
        inner: Mapping[str, Any] = {**dict(value.named_parameters()), **dict(value.named_buffers())}
    elif isinstance(value, Mapping):
        inner = {str(key): item for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        inner = {str(i): item for i, item in enumerate(value)}
    else:
        inner = getattr(value, "__dict__", {})
    for name, item in inner.items():
        yield from leaves(f"{path}{'' if path.endswith(':') else '.'}{name}", item, seen)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.tobytes() == other.tobytes())
    if isinstance(one, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        one, other = one.detach(), other.detach().to(one.device)
        return bool(torch.isclose(one, other, rtol=0, atol=0, equal_nan=True).all()) if one.numel() else True
    # Compared as text, so that NaN equals NaN.
    return repr(one) == repr(other)
