"""A task as a class with `build`, `train` and `evaluate` over ordinary PyTorch.

The parts are built anew at the start of every round. Members therefore share nothing: neither values that `build`
derived from another member's hyperparameters, nor buffers, attributes, modes or hooks that no state holds.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.optim import Optimizer

from pbt.errors import TaskError
from pbt.executors.base import Scratch, State
from pbt.executors.base_values import KIND, MARK, is_number
from pbt.executors.context import trial_round
from pbt.executors.fingerprint import HasFingerprint
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.pytorch.bind import (
    ArgumentBinding,
    AugmentBinding,
    Binding,
    LossBinding,
    SettingBinding,
    bind_all,
    check_bound,
    check_disjoint,
)
from pbt.pytorch.frozen import FrozenParts, warn_if_drawn
from pbt.pytorch.kept_states import on_host
from pbt.pytorch.live import Live
from pbt.pytorch.networks import only_network
from pbt.pytorch.state import EXTRAS, AsBuilt, capture, restore, restore_extras, threads_of
from pbt.space import HParams
from pbt.store.codec import digest

_PLAIN = (
    bool, int, float, str, bytes, type, FunctionType, BuiltinFunctionType, MethodType, torch.device, torch.dtype
)  # fmt: skip
"""Types of parts that training cannot change."""


@runtime_checkable
class Buildable(Protocol):
    """The class form of a task, with an attribute `bind`: the binding of each hyperparameter by name.

    The class attribute `keep_evaluation = False` excludes the changes that `evaluate` makes to the parts from the
    state.
    """

    def build(self, hparams: HParams, ctx: Context) -> Mapping[str, Any]:
        """Build new parts by name, `{"model": ..., "optimizer": ...}`, at the start of every round of every member.

        Parts with `state_dict` and `load_state_dict` are saved and copied between members. Other parts are refused,
        except plain values, functions and parts declared with `pbt.scratch(part)`. Global generators are seeded by
        the run's seed and the founder of the lineage, so that the draws of `build` belong to the weights; in `train`
        they are seeded by (seed, member, round).
        """

    def train(self, parts: Mapping[str, Any], hparams: HParams, steps: int, ctx: Context) -> None:
        """Train the parts for `steps` steps, after the first `ctx.first_step`."""

    def evaluate(self, parts: Mapping[str, Any], ctx: Context) -> Metrics:
        """The score on validation data, or a mapping with `score` and other metrics to report."""


class BoundTask(Buildable, Protocol):
    """The class form with its bindings.

    `Buildable` leaves them out: pyright accepts an attribute of a class in place of one of an object, or the other way
    round, for no protocol.
    """

    bind: Mapping[str, Binding]


class ModuleTask:
    """A `Buildable` as a task for workers.

    Args:
        task: The user's object.
    """

    def __init__(self, task: BoundTask) -> None:
        self.task = task
        # Workers find the user's module by this attribute.
        self.__module__ = type(task).__module__
        if isinstance(task, HasFingerprint):
            self.fingerprint = task.fingerprint

    def check(self, hparams: HParams) -> None:
        """Build the parts once, on the CPU, to detect errors that every round would raise.

        Raises:
            TaskError: A name has no binding, or one that only a `SupervisedTask` has; or a part is refused.
            StateError: The state holds a value that cannot be stored.
        """
        check_bound(hparams, self.task.bind)
        for name in hparams:
            if isinstance(self.task.bind[name], (AugmentBinding, LossBinding, SettingBinding)):
                raise TaskError(
                    f"the hyperparameter '{name}' has no effect: loss(), augment(), clip_norm(), batch_size(), "
                    "accumulate() and ema() are for a SupervisedTask; this task has its own training loop, so bind "
                    "argument() and read hparams"
                )
        with trial_round(hparams, "build failed before the start") as ctx:
            live, built = _build(self.task, hparams, ctx)
            check_disjoint(hparams, live, self.task.bind)
            bind_all(live, hparams, self.task.bind)
            digest(capture(live.stateful, built))
            warn_if_drawn(live.stateful, lambda: _build(self.task, hparams, replace(ctx, seed=1))[0].parts)

    def restored(self, hparams: HParams, state: State) -> nn.Module:
        """The network of a state, in evaluation mode.

        Raises:
            TaskError: No part is named `model`, and there is not exactly one network among the parts.
        """
        with trial_round(hparams, "the parts cannot be built") as ctx:
            live, _ = _build(self.task, hparams, ctx)
            network = only_network(live.parts)
            _load(live, state)
            bind_all(live, hparams, self.task.bind)
            return network.eval()

    def trainer(self, device: str, threads: int) -> TrainFunction:  # noqa: ARG002 (the device is in the context)
        """The function that trains rounds in this worker."""
        return _ModuleTrainer(self.task, threads)


class _ModuleTrainer:
    def __init__(self, task: BoundTask, threads: int) -> None:
        self._task = task
        self._threads = threads

    def __call__(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        task = self._task
        with threads_of(self._threads):
            live, built = _build(task, hparams, ctx)
            if state is not None:
                _load(live, state)
            bind_all(live, hparams, task.bind, ctx)
            frozen = FrozenParts(live.stateful)
            # Seeded here, so that training does not depend on the draws of `build`.
            with seeded(ctx.key("train", ctx.member, ctx.round), ctx.device):
                task.train(live.parts, hparams, steps, ctx)
                if getattr(task, "keep_evaluation", True):
                    metrics = task.evaluate(live.parts, ctx)
                    return on_host(capture(live.stateful, built, frozen), ctx.device), metrics
                trained = on_host(copy.deepcopy(capture(live.stateful, built, frozen)), ctx.device)
                return trained, task.evaluate(live.parts, ctx)


def _build(task: BoundTask, hparams: HParams, ctx: Context) -> tuple[Live, AsBuilt]:
    with seeded(ctx.init_key, ctx.device):
        built = task.build(hparams, ctx)
    if not isinstance(built, Mapping):
        raise TaskError(f"build: expected parts by name, as in {{'model': model}}, got {type(built).__name__}")
    _check_parts(built)
    parts = {name: part.part if isinstance(part, Scratch) else part for name, part in built.items()}
    scratch = frozenset(name for name, part in built.items() if isinstance(part, Scratch))
    # `build` may read hparams, and so make another optimizer for another member.
    reads = any(isinstance(binding, ArgumentBinding) for binding in task.bind.values())
    live = Live(parts=parts, scratch=scratch, marked=reads)
    return live, AsBuilt.of(live.stateful)


def _check_parts(parts: Mapping[Any, Any]) -> None:
    for name in parts:
        if not isinstance(name, str) or name == EXTRAS:
            raise TaskError(f"build: expected names of parts that are strings other than {EXTRAS!r}, got {name!r}")
    lost = [
        name
        for name, part in parts.items()
        if not (isinstance(part, Scratch) or _is_plain(part))
        and not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict"))
    ]
    if lost:
        listed = ", ".join(f"'{name}' ({type(parts[name]).__name__})" for name in lost)
        raise TaskError(
            f"build: no state_dict and load_state_dict in {listed}, so their state would be lost at every round; "
            "add both methods, or declare that every round starts with the parts as built, as in "
            f"{{'{lost[0]}': pbt.scratch({lost[0]})}}"
        )


def _is_plain(part: Any) -> bool:
    """Whether training cannot change a part."""
    if isinstance(part, (tuple, frozenset)):
        return all(map(_is_plain, part))
    return part is None or isinstance(part, _PLAIN)


def _load(live: Live, state: State) -> None:
    """Load a state, except the state of an optimizer that `build` has now made of another class."""
    state = dict(state)
    restore_extras(live.stateful, state.get(EXTRAS, {}))
    for name, built in live.built.items():
        groups = state[name]["param_groups"] if live.marked and name in state else []
        if groups and groups[0].get(MARK, {}).get(KIND, built.kind) != built.kind:
            state[name] = _settings_alone(live.parts[name], groups)
    restore(live.stateful, state)


def _settings_alone(optimizer: Optimizer, groups: list[Any]) -> dict[str, Any]:
    """The state of a fresh optimizer with the numbers of another optimizer's groups that both have."""
    fresh = optimizer.state_dict()
    for group, other in zip(fresh["param_groups"], groups, strict=False):
        group.update({key: value for key, value in other.items() if is_number(value) and is_number(group.get(key))})
        own = group.get(MARK, {})
        group[MARK] = {**own, **{key: mark for key, mark in other.get(MARK, {}).items() if key in own and key != KIND}}
    return fresh
