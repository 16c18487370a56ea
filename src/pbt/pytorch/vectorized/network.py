"""One network that runs for all members; their tensors are passed as arguments."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pbt.errors import TaskError
from pbt.pytorch.noise import KeyedDropout, Noise
from pbt.pytorch.vectorized.attributes import ModuleAttributes
from pbt.pytorch.vectorized.failures import CHECKPOINTED, REMEDY
from pbt.pytorch.vectorized.layer_chain import chain_of
from pbt.pytorch.vectorized.noise import StackedDropout
from pbt.pytorch.vectorized.settings import Settings
from pbt.pytorch.vectorized.shared import NotShareable
from pbt.pytorch.vectorized.tuning import CPU, Tuning
from pbt.pytorch.vectorized.vmap_rules import Rules, rules_of
from pbt.values import Value

_NONE: Mapping[str, Tensor] = MappingProxyType({})


class StackedNet:
    """A network run by `vmap`, with the parameters, buffers and attributes of members as arguments.

    Args:
        model: The network of one member; it is changed.
        noise: The source of dropout; `noise.at` sets one key per member.
        device: The device.
        tuning: The choices for the kind of device.

    Raises:
        TaskError: A parameter or a layer has a gradient hook, which would not run for members.
    """

    def __init__(self, model: nn.Module, noise: Noise, device: str, tuning: Tuning = CPU) -> None:
        self._model = model
        self._device = device
        self._dropouts = _stack_dropouts(model, noise)
        self._own = dict(model.named_parameters())
        _check_hooks(model, self._own)
        self._dtype = next((p.dtype for p in self._own.values() if p.is_floating_point()), torch.get_default_dtype())
        names = {id(tensor): name for name, tensor in [*self._own.items(), *model.named_buffers()]}
        holders: list[dict[str, Any]] = [of for m in model.modules() for of in (m._parameters, m._buffers)]
        self._trained = {name: parameter.requires_grad for name, parameter in self._own.items()}
        self._absent = [
            (f"{path}.{key}" if path else key, module._buffers, key)
            for path, module in model.named_modules()
            for key, tensor in module._buffers.items()
            if tensor is None
        ]
        """The registered buffers without a tensor."""
        self._places = [
            (names[id(tensor)], holder, key)
            for holder in holders
            for key, tensor in holder.items()
            if tensor is not None
        ]
        self._rules = rules_of(tuning.convolutions, wide_norms=tuning.wide_norms)
        self._chain = chain_of(model, names, self._rules)
        self._usual: dict[str, Any] = {}
        self._plain = ModuleAttributes(model)
        self.attributes: dict[str, Tensor] = {}
        """The attributes in which members differ, by path: (members,)."""

    @property
    def plain(self) -> ModuleAttributes:
        """The network's attributes that no state holds."""
        return self._plain

    def buffer_of(self, path: str) -> str | None:
        """The name of the buffer at the path of an attribute; None: the attribute is no buffer."""
        owner, key = self._owner(path)
        tensor = owner._buffers.get(key) if isinstance(owner, nn.Module) else None
        if tensor is None:
            return None
        return next(name for name, holder, of in self._places if holder[of] is tensor)

    def _check_buffer(self, path: str) -> None:
        """Raise TaskError if the tensor at the path is no buffer; `Program.bind_buffers` fills buffers."""
        if self.buffer_of(path) is None:
            raise TaskError(
                f"attribute('model.{path}'): a tensor that is no buffer cannot differ between members of one program; "
                f"make it a buffer, or {REMEDY}"
            )

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

    def configure(self, settings: Sequence[Settings], *, stacked: Collection[str] | None = None) -> None:
        """Set each member's dropout and attributes, and reset the network's plain attributes to those as built.

        Args:
            settings: The settings of each member.
            stacked: The paths of attributes in which members may differ, whether they do now or not; None: those in
                which they do.

        Raises:
            TaskError: Members differ in an attribute that is not a number.
        """
        for layer, own in zip(self._dropouts, zip(*(own.dropout for own in settings), strict=True), strict=True):
            layer.set(own, self._device)
        self._plain.reset()
        held, self.attributes = self.attributes, {}
        for path in {path: None for own in settings for path in own.attributes} | dict.fromkeys(self._usual):
            owner, name = self._owner(path)
            usual = self._usual.setdefault(path, getattr(owner, name))
            values = [own.attributes.get(path, usual) for own in settings]
            if isinstance(usual, Tensor):
                self._check_buffer(path)
                continue
            setattr(owner, name, values[0])
            if any(value != values[0] for value in values) if stacked is None else path in stacked:
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
        plain = self._plain.plain()
        kinds = [(path, str(tensor.dtype)) for path, tensor in self.attributes.items()]
        return [layer.drops for layer in self._dropouts], plain, kinds

    def _stacked(self, path: str, values: Sequence[Value]) -> Tensor:
        if not all(type(value) in (int, float) for value in values):
            raise TaskError(
                f"attribute('model.{path}'): {sorted(set(map(str, values)))} cannot differ between members of one "
                f"program; {REMEDY}"
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
                    f"members of one program cannot have separate values; {REMEDY}"
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
        given = {**params, **buffers, **shared}
        for name in self._trained:
            given[name]._is_param = True  # for isinstance(..., nn.Parameter)
        trained = {id(given[name]): flag for name, flag in self._trained.items()}
        with self._holding(given), self._having(attributes), Rules(self._rules, trained), self._unhooked():
            outputs = self._model(*inputs)
            replaced = {name: holder[key] for name, holder, key in self._places if holder[key] is not given[name]}
            made = next((name for name, holder, key in self._absent if holder[key] is not None), None)
        changed = replaced.keys() & shared.keys()
        if changed:
            raise NotShareable(changed, "are not trained, but change in training")
        _check_replaced(replaced, buffers, made)
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
            for _, holder, key in self._absent:
                holder[key] = None

    @contextmanager
    def _unhooked(self) -> Iterator[None]:
        """Refuse saved-tensor hooks in training: in the backward pass they run outside of `vmap`.

        Not while such hooks measure the memory of a step, because this disables them.
        """
        hooks = torch._C._autograd
        if not self._model.training or hooks._top_saved_tensors_default_hooks(True) is not None:
            yield
            return
        hooks._saved_tensors_hooks_disable(CHECKPOINTED, False)
        try:
            yield
        finally:
            hooks._saved_tensors_hooks_enable()

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


def _check_hooks(model: nn.Module, params: Mapping[str, nn.Parameter]) -> None:
    """Raise TaskError for hooks in the backward pass, which runs outside of `vmap`."""
    for name, parameter in params.items():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise TaskError(f"the network has a hook on the gradient of '{name}'; {REMEDY}")
    for path, module in model.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            layer = f"its layer '{path}' ({type(module).__name__})" if path else "itself"
            raise TaskError(
                f"the network has a backward hook on {layer}, which would see all members at once; {REMEDY}"
            )


def _check_replaced(replaced: Mapping[str, Any], buffers: Mapping[str, Tensor], made: str | None) -> None:
    """Raise TaskError unless replaced tensors are buffers of the same shape."""
    for name, value in replaced.items():
        if name not in buffers:
            raise TaskError(f"the network replaces its parameter '{name}' in forward; change it in place")
        shapes = [tuple(getattr(tensor, "shape", ())) for tensor in (buffers[name], value)]
        if not isinstance(value, Tensor) or shapes[0] != shapes[1]:
            raise TaskError(
                f"the network replaces its buffer '{name}' of shape {shapes[0]} by one of shape {shapes[1]}; a buffer "
                "must keep its shape, so that a state fits the network as built"
            )
    if made is not None:
        raise TaskError(
            f"the network makes its buffer '{made}' in forward, and a state with it would not fit the network as "
            "built; register it with a tensor in __init__"
        )


def _stack_dropouts(model: nn.Module, noise: Noise) -> list[StackedDropout]:
    """Replace every keyed dropout layer; returns the new layers in the order of `Settings.dropout`."""
    ones = [module for module in model.modules() if isinstance(module, KeyedDropout)]
    stacked = {one: StackedDropout(one, noise) for one in ones}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, KeyedDropout):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, stacked[module])
    return list(stacked.values())
