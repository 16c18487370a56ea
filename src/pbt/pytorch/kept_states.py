"""States between a device and the CPU: transfers in one piece, and the last states of a worker, kept on its device."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pbt.executors.base import State
from pbt.store.frozen import Frozen

_SHARE = 1 / 32
"""Maximum fraction of a device's memory for the states that a worker keeps; several workers may share a device."""
_ON_DEVICE = ("model", "ema")
"""Parts whose tensors `load_state_dict` copies to the device from wherever they are."""


class KeptStates:
    """The last states that a worker trained, by digest: the next holder that trains here need not load them.

    The content is that of the stored state, and so are the places: the tensors that loading moves to the device are
    there already, all others are on the CPU. What goes in and what comes out are copies.

    Args:
        room: Maximum number of bytes.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._states: OrderedDict[str, tuple[State, int]] = OrderedDict()

    @classmethod
    def of(cls, device: str) -> "KeptStates | None":
        """Room on a device; None on the CPU, where loading is as fast."""
        if not device.startswith("cuda"):
            return None
        return cls(int(_SHARE * torch.cuda.get_device_properties(device).total_memory))

    def keep(self, digest: str, state: Mapping[str, Any]) -> None:
        """Keep a copy of a stored state of a `SupervisedTask`; the oldest make room.

        A state with frozen tensors is not kept: each would have its own copy of them.
        """
        if any(isinstance(value, Frozen) for name in _ON_DEVICE for value in state.get(name, {}).values()):
            return
        size = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(state))
        if size > self._room:
            return
        try:
            self._states[digest] = _placed(state), size
        except torch.OutOfMemoryError:
            # The state is stored; only the memory for copies is missing.
            self.clear()
        while sum(size for _, size in self._states.values()) > self._room:
            self._states.popitem(last=False)

    def get(self, digest: str) -> State | None:
        """A copy of a state; None: it is not kept."""
        if digest not in self._states:
            return None
        self._states.move_to_end(digest)
        return _mapped(self._states[digest][0], _copied)

    def clear(self) -> bool:
        """Free all of them; returns whether there were any."""
        had = bool(self._states)
        self._states.clear()
        return had


def on_host(state: State, device: str) -> State:
    """A state with its tensors on the CPU, copied from a device at once into pinned memory."""
    if not device.startswith("cuda"):
        return state
    copies: dict[int, Tensor] = {}
    devices: set[torch.device] = set()

    def fetched(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cuda" or tensor.layout != torch.strided:
            return tensor
        if id(tensor) not in copies:
            devices.add(tensor.device)
            copies[id(tensor)] = _pinned_like(tensor).copy_(tensor.detach(), non_blocking=True)
        return copies[id(tensor)]

    fetching = _mapped(state, fetched, lambda value: value)
    for one in devices:
        torch.cuda.current_stream(one).synchronize()
    return fetching


def _pinned_like(tensor: Tensor) -> Tensor:
    """Memory that a device writes to without a copy of the driver's."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True, requires_grad=False)


def _placed(state: Mapping[str, Any]) -> State:
    """A copy in which only tensors that loading moves to the device are there."""

    def host(tensor: Tensor) -> Tensor:
        return _copied(tensor.cpu())

    placed = {name: _mapped(part, _copied if name in _ON_DEVICE else host) for name, part in state.items()}
    if "state" in state["optimizer"]:
        placed["optimizer"]["state"] = _mapped(state["optimizer"]["state"], _copied)
    return placed


def _copied(tensor: Tensor) -> Tensor:
    # Contiguous, as a loaded tensor is.
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _mapped(value: Any, change: Callable[[Tensor], Tensor], other: Callable[[Any], Any] = copy.deepcopy) -> Any:
    """A copy of nested containers with changed tensors and other values; attributes of an OrderedDict are copied."""
    if isinstance(value, Tensor):
        return change(value)
    kind = type(value)
    if kind is dict:
        return {key: _mapped(item, change, other) for key, item in value.items()}
    if kind is OrderedDict:
        ordered = OrderedDict((key, _mapped(item, change, other)) for key, item in value.items())
        vars(ordered).update(copy.deepcopy(vars(value)))
        return ordered
    if kind in (list, tuple):
        return kind(_mapped(item, change, other) for item in value)
    return other(value)


def _tensors(state: State) -> list[Tensor]:
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _mapped(state, note, lambda value: value)
    return found
