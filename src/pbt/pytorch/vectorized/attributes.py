"""Plain attributes of a network, which no state holds, at the start of a round and for groups of members.

Members alone have a network each, built anew for every round. One program has one network, whose `forward` may change
attributes: counters, lists, tensors of the last batch.
"""

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pbt.pytorch.vectorized.noise import StackedDropout
from pbt.pytorch.vectorized.unsaved import OF_MODULES

Values = Sequence[Mapping[str, Any]]
"""The attributes by name, module by module."""


class ModuleAttributes:
    """The attributes of a network's modules besides parameters, buffers, modules and hooks.

    Args:
        model: The network as built.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if not isinstance(module, StackedDropout)]
        # Torch's own layers do not change their attributes.
        self._changing = [module for module in self._modules if not type(module).__module__.startswith("torch.nn.")]
        parts = [*model.modules(), *model.parameters(), *model.buffers()]
        self._memo = {id(part): part for part in parts}
        self._built = [self._own(module, self._copied) for module in self._modules]

    def reset(self) -> None:
        """Set the attributes as built."""
        for module, own in zip(self._modules, self._built, strict=True):
            _set(module, own, self._copied)

    def now(self) -> Values:
        """The current attributes of modules that may change them; tensors are not copied."""
        return [self._own(module, self._spared) for module in self._changing]

    def set(self, values: Values) -> None:
        """Set attributes returned by `now`."""
        for module, own in zip(self._changing, values, strict=True):
            _set(module, own, self._spared)

    def plain(self) -> list[tuple[str, str]]:
        """The current numbers and texts, on which a captured graph depends."""
        return [
            (name, repr(vars(module).get(name)))
            for module, own in zip(self._modules, self._built, strict=True)
            for name, value in own.items()
            if _is_plain(value)
        ]

    def _own(self, module: nn.Module, copied: Callable[[Any], Any]) -> dict[str, Any]:
        return {name: copied(value) for name, value in vars(module).items() if name not in OF_MODULES}

    def _copied(self, value: Any) -> Any:
        if isinstance(value, Tensor) and id(value) not in self._memo and not value.requires_grad:
            return value.clone()
        return self._spared(value)

    def _spared(self, value: Any) -> Any:
        """A copy without copies of tensors and modules."""
        if isinstance(value, (list, tuple, set, deque)) and type(value) in (list, tuple, set, deque):
            return type(value)(map(self._spared, value))
        if type(value) is dict:
            return {key: self._spared(item) for key, item in value.items()}
        if value is None or isinstance(value, (bool, int, float, str, Tensor, nn.Module, type)) or callable(value):
            return value
        try:
            return copy.deepcopy(value, dict(self._memo))
        except Exception:  # noqa: BLE001 (an object that cannot be copied is kept)
            return value


def _set(module: nn.Module, own: Mapping[str, Any], copied: Callable[[Any], Any]) -> None:
    present = vars(module)
    for name in present.keys() - OF_MODULES - own.keys():
        del present[name]
    present.update({name: copied(value) for name, value in own.items()})


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))
