"""The frozen tensors of networks: those that a round does not train and does not change, stored once for all members.

This is a property of a state, not of the executor that made it: a parameter with `requires_grad=False` at the beginning
and the end of a round, or a large buffer that is not a running statistic, whose values are the same at both.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from pbt.pytorch.average import Average
from pbt.store.frozen import Frozen, packed
from pbt.text import listed

log = logging.getLogger("pbt")

LEAST = 32768
"""Bytes of frozen parameters, and of a buffer, from which they are stored apart from the state."""

_CARRIERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def candidates(module: nn.Module, *, unsaved: bool = False) -> dict[str, Tensor]:
    """The parameters that are not trained now, and the large buffers that are no running statistics, by name.

    Args:
        module: The network.
        unsaved: Include non-persistent buffers, which no state contains.
    """
    layers = list(module.modules())
    left_out = {id(b) for layer in layers if isinstance(layer, _NormBase) for b in layer.buffers(recurse=False)}
    if not unsaved:
        left_out |= {id(layer._buffers[name]) for layer in layers for name in layer._non_persistent_buffers_set}
    found: dict[str, Tensor] = {name: p for name, p in module.named_parameters() if not p.requires_grad}
    buffers = {name: b for name, b in module.named_buffers() if b.nbytes >= LEAST and id(b) not in left_out}
    every = {**found, **buffers}
    return {name: tensor for name, tensor in every.items() if not is_lazy(tensor) and tensor.layout == torch.strided}


def enough(tensors: Mapping[str, Tensor]) -> bool:
    """Whether frozen tensors are so large that they are stored apart."""
    return sum(tensor.nbytes for tensor in tensors.values()) >= LEAST


def fingerprints(tensors: Iterable[Tensor]) -> list[int]:
    """A number for each tensor that changes if one of its values changes, by one pass and one read from the device."""
    sums = [_sum(_as_integers(tensor)) for tensor in tensors]
    return [] if not sums else [int(value) for value in torch.stack([value.cpu() for value in sums])]


def _sum(whole: Tensor) -> Tensor:
    """The sum of integers; of eight bytes at a time where that is possible, which is faster."""
    each = 8 // whole.element_size()
    flat = whole.reshape(-1) if whole.is_contiguous() else None
    if flat is None or flat.storage_offset() % each or flat.numel() < each:
        return whole.sum(dtype=torch.int64)
    count = flat.numel() // each * each
    return flat[:count].view(torch.int64).sum() + flat[count:].sum(dtype=torch.int64)


def warn_if_drawn(parts: Mapping[str, Any], build: Callable[[], Mapping[str, Any]]) -> None:
    """Name the tensors that are not trained but that members cannot share, because their values depend on the seed.

    Args:
        parts: New parts.
        build: Builds them under another seed.
    """
    first = {name: found for name, p in parts.items() if isinstance(p, nn.Module) and enough(found := candidates(p))}
    if not first:
        return
    before = {name: fingerprints(found.values()) for name, found in first.items()}
    others = build()
    differing = []
    for name, found in first.items():
        now = candidates(others[name])
        same = [key in now and _print(now[key]) == was for key, was in zip(found, before[name], strict=True)]
        differing += [f"'{name}.{key}'" for key, is_same in zip(found, same, strict=True) if not is_same]
    if differing:
        log.warning(
            "not trained, but different for each member, because drawn from the member's seed: %s; each member holds "
            "and stores its own; load them from a file, or draw them from a fixed seed, to share one",
            listed(differing),
        )


def _print(tensor: Tensor) -> int:
    return fingerprints([tensor])[0]


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether both have the same bits, on any devices."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride() and one.device == other.device:
        return True
    return torch.equal(_as_integers(one), _as_integers(other.to(one.device)))


def _as_integers(tensor: Tensor) -> Tensor:
    plain = tensor.detach()
    plain = torch.view_as_real(plain) if plain.is_complex() else plain
    return plain.view(_CARRIERS[plain.element_size()])


class FrozenParts:
    """The tensors of parts that may be frozen, with their fingerprints at the beginning of a round.

    Args:
        parts: The parts by name, with the state of the beginning.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._before = {
            name: dict(zip(found, fingerprints(found.values()), strict=True))
            for name, part in parts.items()
            if isinstance(part, nn.Module) and enough(found := candidates(part))
        }

    def mark(self, parts: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        """The state, with the tensors that are still frozen and have not changed replaced by `Frozen` ones."""
        marked = dict(state)
        for name, before in self._before.items():
            now = {key: tensor for key, tensor in candidates(parts[name]).items() if key in before}
            same = [print_ == before[key] for key, print_ in zip(now, fingerprints(now.values()), strict=True)]
            frozen = {key: tensor for (key, tensor), unchanged in zip(now.items(), same, strict=True) if unchanged}
            if not enough(frozen):
                continue
            marks = packed(frozen)
            marked[name] = replaced(state[name], frozen, marks)
            for other, part in parts.items():
                if isinstance(part, Average):
                    marked[other] = _averaged(marked[other], marks)
        return marked


def _averaged(weights: Mapping[str, Any], marks: Mapping[str, Frozen]) -> dict[str, Any]:
    """Averaged weights, with the frozen ones, whose average is their value, stored with the network's."""
    same = {name for name, mark in marks.items() if name in weights and torch.equal(weights[name], mark.tensor)}
    return {name: marks[name] if name in same else weight for name, weight in weights.items()}


def replaced(state: Any, frozen: Mapping[str, Tensor], marks: Mapping[str, Frozen]) -> Any:
    """A copy of a network's `state_dict` with `marks` in place of frozen tensors; tied ones have several keys."""
    of = {_place(tensor): marks[name] for name, tensor in frozen.items()}
    copied = copy.copy(state)
    for key, value in state.items():
        mark = of.get(_place(value)) if isinstance(value, Tensor) else None
        if mark is not None:
            copied[key] = mark
    return copied


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def whole(state: Any) -> Any:
    """The state of a part with the tensors themselves."""
    if not isinstance(state, dict) or not any(isinstance(value, Frozen) for value in state.values()):
        return state
    copied = copy.copy(state)
    for key, value in state.items():
        if isinstance(value, Frozen):
            copied[key] = value.tensor
    return copied
