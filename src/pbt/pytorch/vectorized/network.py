"""One network that runs for all members; their tensors are passed as arguments."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pbt.errors import TaskError
from pbt.pytorch.noise import KeyedDropout, Noise
from pbt.pytorch.vectorized.failures import CHECKPOINTED
from pbt.pytorch.vectorized.layer_chain import chain_of
from pbt.pytorch.vectorized.noise import StackedDropout
from pbt.pytorch.vectorized.settings import Settings
from pbt.pytorch.vectorized.shared import NotShareable
from pbt.pytorch.vectorized.tuning import CPU, Tuning
from pbt.pytorch.vectorized.vmap_rules import Rules, rules_of
from pbt.space import Value

_NONE: Mapping[str, Tensor] = MappingProxyType({})


class StackedNet:
    """A network run by `vmap`, with the parameters, buffers and attributes of members as arguments.

    Args:
        model: The network of one member; it is changed.
        noise: The source of dropout; `noise.at` sets one key per member.
        device: The device.
        tuning: The choices for the kind of device.

    Raises:
        TaskError: A parameter has a gradient hook, which would not run for members.
    """

    def __init__(self, model: nn.Module, noise: Noise, device: str, tuning: Tuning = CPU) -> None:
        self._model = model
        self._device = device
        self._dropouts = _stack_dropouts(model, noise)
        self._own = dict(model.named_parameters())
        for name, parameter in self._own.items():
            if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
                raise TaskError(f"the network has a hook on the gradient of '{name}'; use the executor 'processes'")
        self._dtype = next((p.dtype for p in self._own.values() if p.is_floating_point()), torch.get_default_dtype())
        names = {id(tensor): name for name, tensor in [*self._own.items(), *model.named_buffers()]}
        holders: list[dict[str, Any]] = [of for m in model.modules() for of in (m._parameters, m._buffers)]
        self._places = [
            (names[id(tensor)], holder, key)
            for holder in holders
            for key, tensor in holder.items()
            if tensor is not None
        ]
        self._rules = rules_of(tuning.convolutions, wide_norms=tuning.wide_norms)
        self._chain = chain_of(model, names, self._rules)
        self._usual: dict[str, Any] = {}
        self._as_built = _plain_attributes(model)
        self._tried = False
        self.attributes: dict[str, Tensor] = {}
        """The attributes in which members differ, by path: (members,)."""

    @property
    def draws(self) -> bool:
        """Whether the network has dropout layers."""
        return bool(self._dropouts)

    def train(self) -> None:
        """Set training mode."""
        self._model.train()

    def eval(self) -> None:
        """Set evaluation mode."""
        self._model.eval()

    def configure(self, settings: Sequence[Settings]) -> None:
        """Set each member's dropout and attributes, and reset the network's plain attributes to those as built.

        Raises:
            TaskError: Members differ in an attribute that is not a number.
        """
        for layer, own in zip(self._dropouts, zip(*(own.dropout for own in settings), strict=True), strict=True):
            layer.set(own, self._device)
        for module, name, value in self._as_built:
            setattr(module, name, copy.deepcopy(value))
        held, self.attributes = self.attributes, {}
        for path in {path: None for own in settings for path in own.attributes} | dict.fromkeys(self._usual):
            owner, name = self._owner(path)
            usual = self._usual.setdefault(path, getattr(owner, name))
            values = [own.attributes.get(path, usual) for own in settings]
            setattr(owner, name, values[0])
            if any(value != values[0] for value in values):
                stacked = self._stacked(path, values)
                before = held.get(path)
                if before is not None and (before.shape, before.dtype) == (stacked.shape, stacked.dtype):
                    # In place, because a captured graph reads this tensor.
                    self.attributes[path] = before.copy_(stacked)
                else:
                    self.attributes[path] = stacked.to(self._device)

    @property
    def signature(self) -> Sequence[Any]:
        """The values that a graph of the network depends on, except tensors changed in place."""
        plain = [(name, repr(getattr(module, name))) for module, name, _ in self._as_built]
        kinds = [(path, str(tensor.dtype)) for path, tensor in self.attributes.items()]
        return [layer.drops for layer in self._dropouts], plain, kinds

    def _stacked(self, path: str, values: Sequence[Value]) -> Tensor:
        if not all(type(value) in (int, float) for value in values):
            raise TaskError(
                f"attribute('model.{path}'): {sorted(set(map(str, values)))} cannot differ between members of one "
                "program; use the executor 'processes'"
            )
        whole = all(type(value) is int for value in values)
        return torch.tensor(values, dtype=torch.int64 if whole else self._dtype)

    def check_reached(self) -> None:
        """After a backward pass, raise TaskError if the network used one of its own parameters.

        A network can reach its own parameters by a reference outside its modules' attributes, such as a list.
        """
        for name, parameter in self._own.items():
            if parameter.grad is not None:
                raise TaskError(
                    f"the network uses its parameter '{name}' by a reference other than an attribute of a module, so "
                    "members of one program cannot have separate values; use the executor 'processes'"
                )

    @property
    def is_chain(self) -> bool:
        """Whether `run_chain` supports the network with the current settings."""
        return self._chain is not None and not self.attributes

    def run_chain(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The outputs of all members, from tensors by name and x (members, ...); buffers are changed in place."""
        for layer in self._chain or ():
            x = layer(x, tensors)
        return x

    def run(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        attributes: Mapping[str, Tensor],
        row: Tensor,
        *inputs: Tensor,
        shared: Mapping[str, Tensor] = _NONE,
    ) -> tuple[Any, dict[str, Tensor]]:
        """The outputs, and the buffers that the network replaced instead of changing in place.

        Raises:
            NotShareable: It replaced a shared tensor.
        """
        for layer in self._dropouts:
            layer.row = row
        with (
            self._holding({**params, **buffers, **shared}),
            self._having(attributes),
            Rules(self._rules),
            self._unhooked(),
        ):
            outputs = self._model(*inputs)
            replaced = {
                name: holder[key]
                for name, holder, key in self._places
                if name in buffers and holder[key] is not buffers[name]
            }
            changed = {name for name, holder, key in self._places if name in shared and holder[key] is not shared[name]}
        if changed:
            raise NotShareable(changed, "are not trained, but change in training")
        return outputs, replaced

    @contextmanager
    def _holding(self, given: Mapping[str, Tensor]) -> Iterator[None]:
        """Replace the parameters and buffers in the block. `functional_call` would discard replaced buffers."""
        before = [holder[key] for _, holder, key in self._places]
        try:
            for name, holder, key in self._places:
                holder[key] = given[name]
            yield
        finally:
            for (_, holder, key), tensor in zip(self._places, before, strict=True):
                holder[key] = tensor

    @contextmanager
    def _unhooked(self) -> Iterator[None]:
        """Refuse saved-tensor hooks in the first training step: in the backward pass they run outside of `vmap`.

        Only in the first step, and not while such hooks measure the memory of a step, because this disables them.
        """
        hooks = torch._C._autograd
        if self._tried or not self._model.training or hooks._top_saved_tensors_default_hooks(True) is not None:
            yield
            return
        hooks._saved_tensors_hooks_disable(CHECKPOINTED, False)
        try:
            yield
        finally:
            hooks._saved_tensors_hooks_enable()
        self._tried = True

    @contextmanager
    def _having(self, attributes: Mapping[str, Tensor]) -> Iterator[None]:
        owners = [self._owner(path) for path in attributes]
        before = [getattr(owner, name) for owner, name in owners]
        try:
            for (owner, name), value in zip(owners, attributes.values(), strict=True):
                setattr(owner, name, value)
            yield
        finally:
            for (owner, name), value in zip(owners, before, strict=True):
                setattr(owner, name, value)

    def _owner(self, path: str) -> tuple[Any, str]:
        *names, last = path.split(".")
        owner: Any = self._model
        for name in names:
            owner = getattr(owner, name)
        return owner, last


def _plain_attributes(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """The plain attributes of modules: no state holds them, and every round starts with their values as built."""
    own = vars(nn.Module()).keys()
    return [
        (module, name, copy.deepcopy(value))
        for module in model.modules()
        if not isinstance(module, StackedDropout)
        for name, value in vars(module).items()
        if name not in own and _is_plain(value)
    ]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


def _stack_dropouts(model: nn.Module, noise: Noise) -> list[StackedDropout]:
    """Replace every keyed dropout layer; returns the new layers in the order of `Settings.dropout`."""
    ones = [module for module in model.modules() if isinstance(module, KeyedDropout)]
    stacked = {one: StackedDropout(one, noise) for one in ones}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, KeyedDropout):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, stacked[module])
    return list(stacked.values())
