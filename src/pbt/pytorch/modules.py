"""A task as a class with `build`, `train` and `evaluate` over ordinary PyTorch."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from pbt.errors import TaskError
from pbt.executors.base import State
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context, Metrics, Train
from pbt.pytorch.bind import Binding, ClipBinding, Live, LossBinding, bind_all, check_bound
from pbt.pytorch.state import capture, restore, threads_of
from pbt.space import HParams


@runtime_checkable
class Buildable(Protocol):
    """What the user writes. `bind` says where each hyperparameter takes effect."""

    bind: Mapping[str, Binding]

    def build(self, hparams: HParams, ctx: Context) -> Mapping[str, Any]:
        """Fresh parts by name: `{"model": ..., "optimizer": ...}`. Whatever has a `state_dict` is handed over.

        Global generators are seeded by (seed, member) here and by (seed, member, round) in `train`.
        """

    def train(self, parts: Mapping[str, Any], hparams: HParams, steps: int, ctx: Context) -> None:
        """Train the parts for that many steps; `ctx.first_step` were done before."""

    def evaluate(self, parts: Mapping[str, Any], ctx: Context) -> Metrics:
        """The score on validation data, or a mapping with `score` and whatever else shall be reported."""


class ModuleTask:
    """Makes a `Buildable` trainable.

    Args:
        task: The user's object.
    """

    def __init__(self, task: Buildable) -> None:
        self.task = task
        # Workers look for the user's module here.
        self.__module__ = type(task).__module__

    def check(self, hparams: HParams) -> None:
        """Raise TaskError unless every name is bound to something that a task of this form has."""
        check_bound(hparams, self.task.bind)
        for name in hparams:
            if isinstance(self.task.bind[name], (ClipBinding, LossBinding)):
                raise TaskError(
                    f"the hyperparameter '{name}' has no effect: loss() and clip_norm() are for a SupervisedTask; "
                    "here the task computes its own loss, so bind argument() and read hparams"
                )

    def trainer(self, device: str, threads: int) -> Train:  # noqa: ARG002 (the device is in the context)
        """What trains rounds in this worker."""
        return _ModuleTrainer(self.task, threads)


class _ModuleTrainer:
    def __init__(self, task: Buildable, threads: int) -> None:
        self._task = task
        self._threads = threads
        self._live: Live | None = None
        self._names: set[str] = set()

    def __call__(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        task = self._task
        with threads_of(self._threads):
            # Values that the member before had, and this one has not, must not stay in effect.
            if state is None or self._live is None or self._names != set(hparams):
                with seeded(ctx.key("init", ctx.member), ctx.device):
                    self._live, self._names = Live(parts=task.build(hparams, ctx)), set(hparams)
            live = self._live
            if state is not None:
                restore(live.parts, state)
            bind_all(live, hparams, task.bind)
            # Seeded here, so that what is drawn does not tell whether something was built just now.
            with seeded(ctx.key("train", ctx.member, ctx.round), ctx.device):
                task.train(live.parts, hparams, steps, ctx)
                return capture(live.parts), task.evaluate(live.parts, ctx)
