"""The settings of each member, read from a live network and optimizer after its hyperparameters were bound.

One network and optimizer serves all members in turn, so that bindings and their checks are the same for every executor.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pbt.errors import TaskError
from pbt.executors.base import State
from pbt.pytorch.bind import (
    AttributeBinding,
    AugmentBinding,
    DropoutBinding,
    LossBinding,
    OptimizerBinding,
    SettingBinding,
    bind_all,
)
from pbt.pytorch.live import Live
from pbt.pytorch.noise import KeyedDropout, Noise
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.vectorized.unsaved import SharedValues
from pbt.space import HParams
from pbt.values import Value

_KNOWN = (AttributeBinding, AugmentBinding, DropoutBinding, LossBinding, OptimizerBinding, SettingBinding)
Groups = list[dict[str, Any]]
"""An optimizer's `param_groups`, without the parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one member."""

    groups: Groups
    dropout: tuple[float, ...]
    """The probability of each dropout layer, in order."""
    loss: Mapping[str, Value]
    augment: Mapping[str, Value]
    task: Mapping[str, Any]
    """`clip_norm`, `batch_size`, `accumulate` and `ema`."""
    attributes: Mapping[str, Value]
    """Bound attributes of the model, by path."""
    schedule: Any
    """The state of the scheduler; None: no scheduler."""


class HParamReader:
    """Binds hyperparameters for members without a network of their own, and reads the resulting settings.

    Args:
        task: The task.

    Raises:
        TaskError: The network has unsaved random values, which members cannot share.
    """

    def __init__(self, task: SupervisedTask) -> None:
        self._task = task
        self._lives: dict[frozenset[str], tuple[Live, Groups, Any]] = {}
        # Kept for the first member, because a network may be large.
        self._first: Live | None = self._build()
        parts = self._first.parts
        self.shared = SharedValues(lambda seed: task.build("cpu", Noise(), seed).parts, parts)
        self.stand_in: nn.Module = parts["model"]
        """A network whose parameters serve optimizers that are never stepped."""
        self.names = set(parts)
        """The names of the parts in a state."""
        self._shapes = _shapes(parts["model"].state_dict())
        self.places: Sequence[Sequence[int]] = [
            group["params"] for group in parts["optimizer"].state_dict()["param_groups"]
        ]
        """The numbers of the parameters in each group of the optimizer."""

    def _build(self) -> Live:
        return self._task.build("cpu", Noise(), seed=0)

    def check(self, state: State) -> None:
        """Raise TaskError if a state does not fit the network and the optimizer."""
        parts = sorted(state) if isinstance(state, dict) else type(state).__name__
        if parts != sorted(self.names):
            raise TaskError(f"expected a state of {sorted(self.names)}, got {parts}")
        shapes = _shapes(state["model"])
        names = [name for name in {**self._shapes, **shapes} if self._shapes.get(name) != shapes.get(name)]
        if names:
            raise TaskError(
                f"the state of 'model' does not fit the part that was built ('{names[0]}': expected "
                f"{self._shapes.get(names[0], 'nothing')}, got {shapes.get(names[0], 'nothing')}); a hyperparameter "
                "must not change shapes, and members of one program cannot differ in them; use the executor 'processes'"
            )
        groups = state["optimizer"]["param_groups"]
        if groups is not None and [len(group["params"]) for group in groups] != [len(own) for own in self.places]:
            raise TaskError("the state of 'optimizer' does not fit the part that was built: other parameter groups")

    def settle(self, hparams: HParams, groups: Groups | None, schedule: Any = None) -> Settings:
        """The settings of a member.

        Args:
            hparams: Its hyperparameters.
            groups: The optimizer's settings in its start state; None: freshly built.
            schedule: The scheduler's state in its start state; None: no scheduler, or freshly built.

        Raises:
            TaskError: A value does not take effect, or its binding is not supported in one program.
        """
        # Values of an earlier member that this one lacks must not stay in effect.
        names = frozenset(hparams)
        if names not in self._lives:
            live, self._first = self._first or self._build(), None
            self._lives[names] = live, groups_of(live), schedule_of(live)
        live, fresh, begun = self._lives[names]
        for group, settings in zip(live.parts["optimizer"].param_groups, groups or fresh, strict=True):
            # Neither must entries that an earlier member's optimizer added to its groups.
            for name in group.keys() - settings.keys() - {"params"}:
                del group[name]
            group.update(copy.deepcopy(settings))
        if begun is not None:
            live.parts["scheduler"].load_state_dict(copy.deepcopy(begun if groups is None else schedule))
        bind_all(live, hparams, self._task.bind)
        bound = {name: self._task.bind[name] for name in hparams}
        return Settings(
            groups=groups_of(live),
            dropout=tuple(m.p for m in live.parts["model"].modules() if isinstance(m, KeyedDropout)),
            loss=dict(live.loss),
            augment=dict(live.augment),
            task=dict(live.settings),
            schedule=schedule_of(live),
            attributes={path: hparams[name] for name, path in _attributes(bound, live.parts["model"])},
        )


def groups_of(live: Live) -> Groups:
    """The settings of the live optimizer."""
    groups = live.parts["optimizer"].param_groups
    return [{name: copy.deepcopy(value) for name, value in group.items() if name != "params"} for group in groups]


def schedule_of(live: Live) -> Any:
    """A copy of the state of the live scheduler; None: no scheduler."""
    scheduler = live.parts.get("scheduler")
    return None if scheduler is None else copy.deepcopy(scheduler.state_dict())


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(value, "shape", ())) for name, value in tensors.items()}


def _attributes(bound: Mapping[str, Any], model: nn.Module) -> Sequence[tuple[str, str]]:
    """The names bound to attributes of the model, with the paths of the attributes."""
    dropouts = {f"{path}.p" for path, m in model.named_modules(remove_duplicate=False) if isinstance(m, KeyedDropout)}
    attributes = []
    for name, binding in bound.items():
        if type(binding) not in _KNOWN:
            raise TaskError(
                f"the hyperparameter '{name}' is bound by {type(binding).__name__}, which one program for a population "
                "does not support; use the executor 'processes'"
            )
        if isinstance(binding, AttributeBinding):
            part, _, path = binding.path.partition(".")
            if part == "scheduler":
                continue  # part of the scheduler's state
            if part != "model":
                raise TaskError(
                    f"attribute({binding.path!r}): in one program only attributes of the model and the scheduler can "
                    "differ between members; use the executor 'processes'"
                )
            # `Settings.dropout` includes the probability of every layer.
            if path not in dropouts:
                attributes.append((name, path))
    return attributes
