"""A live network's state as nested plain containers, and back."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pbt.errors import TaskError

EXTRAS = "pbt"
"""The entry of a state for what training changed and no `state_dict` holds; absent where there is nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsBuilt:
    """What `build` made of the parts, as far as no `state_dict` holds it and a hand-over depends on it."""

    trainable: Mapping[str, Mapping[str, bool]]
    """By part and parameter, whether it is trained."""
    groups: Mapping[str, int]
    """By optimizer, its parameter groups."""

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> "AsBuilt":
        """Of parts that were built just now."""
        return cls(
            trainable={name: _trainable(part) for name, part in parts.items() if isinstance(part, nn.Module)},
            groups={name: len(part.param_groups) for name, part in parts.items() if isinstance(part, Optimizer)},
        )


def _trainable(module: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def capture(parts: Mapping[str, Any], built: AsBuilt | None = None) -> dict[str, Any]:
    """The `state_dict` of every part that has one; tensors are shared with the parts, not copied.

    Args:
        parts: The parts by name.
        built: As they were built: where given, parameters that were frozen or unfrozen since and parameter groups
            that were added since are part of the state too.

    Raises:
        TaskError: A parameter group was added whose parameters belong to none of the parts.
    """
    state = {name: part.state_dict() for name, part in parts.items() if hasattr(part, "state_dict")}
    extras = {} if built is None else _extras(parts, built)
    return {**state, EXTRAS: extras} if extras else state


def _extras(parts: Mapping[str, Any], built: AsBuilt) -> dict[str, Any]:
    trainable = {
        name: changed
        for name, before in built.trainable.items()
        if (changed := {key: flag for key, flag in _trainable(parts[name]).items() if flag != before.get(key)})
    }
    groups = {
        name: [_names_of(group["params"], parts, name) for group in parts[name].param_groups[count:]]
        for name, count in built.groups.items()
        if len(parts[name].param_groups) > count
    }
    found = {"trainable": trainable, "groups": groups}
    return {key: value for key, value in found.items() if value}


def _names_of(params: Iterable[Tensor], parts: Mapping[str, Any], optimizer: str) -> list[list[str]]:
    """Part and name of each parameter."""
    names = {
        id(tensor): [name, key]
        for name, part in parts.items()
        if isinstance(part, nn.Module)
        for key, tensor in part.named_parameters()
    }
    params = list(params)
    if any(id(tensor) not in names for tensor in params):
        raise TaskError(
            f"training added a parameter group to '{optimizer}' that cannot be handed over: its parameters belong to "
            "no module among the parts; return that module from build, too"
        )
    return [names[id(tensor)] for tensor in params]


def restore(parts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Load what `capture` returned.

    Raises:
        TaskError: The state does not fit the parts.
    """
    extras = state.get(EXTRAS, {})
    stateful = {name for name, part in parts.items() if hasattr(part, "load_state_dict")}
    found = set(state) - {EXTRAS}
    if stateful != found:
        raise TaskError(f"expected a state of {sorted(stateful)}, got one of {sorted(found)}")
    restore_extras(parts, extras)
    for name in sorted(stateful):
        try:
            parts[name].load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise TaskError(
                f"the state of '{name}' does not fit what was built ({error}); a hyperparameter must not change shapes"
            ) from error


def restore_extras(parts: Mapping[str, Any], extras: Mapping[str, Any]) -> None:
    """Freeze, unfreeze and add parameter groups as training did; what is there already stays.

    Raises:
        TaskError: The parts are others.
    """
    try:
        for name, flags in extras.get("trainable", {}).items():
            for key, flag in flags.items():
                parts[name].get_parameter(key).requires_grad_(flag)
        for name, groups in extras.get("groups", {}).items():
            there = {id(tensor) for group in parts[name].param_groups for tensor in group["params"]}
            for group in groups:
                if any(id(parts[part].get_parameter(key)) in there for part, key in group):
                    continue
                parts[name].add_param_group({"params": [parts[part].get_parameter(key) for part, key in group]})
    except (AttributeError, KeyError, ValueError) as error:
        raise TaskError(
            f"the state does not fit what was built ({error}); a hyperparameter must not change it"
        ) from error


def seed_global(seed: int, device: str) -> None:
    """Seed torch's global generators of the CPU and of this device.

    Unlike `torch.manual_seed`, which on a machine without CUDA remembers every call with its traceback.
    """
    torch.default_generator.manual_seed(seed)
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """This many CPU threads inside, as many as before outside."""
    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)
