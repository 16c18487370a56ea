"""Capture the state of live parts as nested plain containers, and restore it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pbt.errors import TaskError
from pbt.pytorch.frozen import FrozenParts, whole

EXTRAS = "pbt"
"""The entry of a state for changes in training that no `state_dict` holds; absent if there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsBuilt:
    """Properties of parts as built that no `state_dict` holds and a copy between members needs."""

    trainable: Mapping[str, Mapping[str, bool]]
    """`requires_grad` by part and parameter."""
    groups: Mapping[str, int]
    """Number of parameter groups by optimizer."""

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> "AsBuilt":
        """The properties of new parts."""
        return cls(
            trainable={name: _trainable(part) for name, part in parts.items() if isinstance(part, nn.Module)},
            groups={name: len(part.param_groups) for name, part in parts.items() if isinstance(part, Optimizer)},
        )


def _trainable(module: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def capture(
    parts: Mapping[str, Any], built: AsBuilt | None = None, frozen: FrozenParts | None = None
) -> dict[str, Any]:
    """The `state_dict` of every part that has one; tensors are shared with the parts, not copied.

    Args:
        parts: The parts by name.
        built: The parts as built. If given, the state includes the parameters that have been frozen or unfrozen since,
            and the parameter groups that have been added since.
        frozen: The parts at the beginning of the round. If given, `Frozen` stands for tensors that are not trained and
            have not changed since, which are then stored once for all states.

    Raises:
        TaskError: The parameters of an added parameter group belong to none of the parts.
    """
    state = {name: part.state_dict() for name, part in parts.items() if hasattr(part, "state_dict")}
    state = state if frozen is None else frozen.mark(parts, state)
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
    extras = {"trainable": trainable, "groups": groups}
    return {key: value for key, value in extras.items() if value}


def _names_of(params: Iterable[Tensor], parts: Mapping[str, Any], optimizer: str) -> list[list[str]]:
    """The part and the name of each parameter."""
    names = {
        id(tensor): [name, key]
        for name, part in parts.items()
        if isinstance(part, nn.Module)
        for key, tensor in part.named_parameters()
    }
    params = list(params)
    if any(id(tensor) not in names for tensor in params):
        raise TaskError(
            f"training added a parameter group to '{optimizer}' that cannot be saved: its parameters belong to no "
            "module among the parts; return that module from build, too"
        )
    return [names[id(tensor)] for tensor in params]


def restore(parts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Load a state captured by `capture`.

    Raises:
        TaskError: The state does not fit the parts.
    """
    extras = state.get(EXTRAS, {})
    stateful = {name for name, part in parts.items() if hasattr(part, "load_state_dict")}
    saved = set(state) - {EXTRAS}
    if stateful != saved:
        raise TaskError(f"expected a state of {sorted(stateful)}, got one of {sorted(saved)}")
    restore_extras(parts, extras)
    for name in sorted(stateful):
        try:
            parts[name].load_state_dict(whole(state[name]))
        except (RuntimeError, ValueError, KeyError) as error:
            raise TaskError(
                f"the state of '{name}' does not fit the part that was built ({error}); a hyperparameter must not "
                "change shapes"
            ) from error


def restore_extras(parts: Mapping[str, Any], extras: Mapping[str, Any]) -> None:
    """Repeat the freezing, unfreezing and added parameter groups of training; existing groups stay.

    Raises:
        TaskError: The parts lack a recorded parameter or optimizer.
    """
    try:
        for name, flags in extras.get("trainable", {}).items():
            for key, flag in flags.items():
                parts[name].get_parameter(key).requires_grad_(flag)
        for name, groups in extras.get("groups", {}).items():
            present = {id(tensor) for group in parts[name].param_groups for tensor in group["params"]}
            for group in groups:
                if any(id(parts[part].get_parameter(key)) in present for part, key in group):
                    continue
                parts[name].add_param_group({"params": [parts[part].get_parameter(key) for part, key in group]})
    except (AttributeError, KeyError, ValueError) as error:
        raise TaskError(
            f"the state does not fit the parts that were built ({error}); a hyperparameter must not change them"
        ) from error


def seed_global(seed: int, device: str) -> None:
    """Seed torch's global generators of the CPU and of the device.

    `torch.manual_seed` is not used: on a machine without CUDA it keeps every call with its traceback.
    """
    torch.default_generator.manual_seed(seed)
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Set the number of CPU threads of torch, and restore it at the end of the block."""
    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)
