"""Tasks that train with Lightning: the user's LightningModule and Trainer, one `fit` per round."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from pbt.errors import MissingExtraError, TaskError
from pbt.executors.base import State
from pbt.executors.context import trial_round
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.pytorch.bind import Binding
from pbt.pytorch.live import Live
from pbt.space import HParams
from pbt.store.folder import Folder
from pbt.tasks.loaders import ResumableLoader, resumable
from pbt.tasks.trainers import (
    Build,
    bind_attributes,
    bind_live,
    built,
    check_device,
    check_fields,
    generators,
    metrics_of,
    report_curves,
    restore_generators,
    silenced,
    sow,
    tried,
    with_threads,
)

try:
    from lightning.pytorch import LightningDataModule, LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback, Checkpoint, ModelSummary, ProgressBar
    from lightning.pytorch.trainer.states import TrainerStatus
    from lightning.pytorch.utilities.model_helpers import is_overridden
except ImportError as error:
    raise MissingExtraError("pbt.tasks.lightning", "lightning") from error

_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric")
_WARNINGS = (
    # A round is one `fit` call: its trainer has no directory, logger or checkpoints of its own.
    r"Checkpoint directory .* exists and is not empty",
    r"The number of training batches .* is smaller than the logging interval",
    r"`max_epochs` was not set",
    # Lightning's own use of torch.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningTask:
    """Train members with `lightning.pytorch.Trainer.fit`.

    A round is one call of `fit` that ends when `trainer.global_step` has grown by the steps of the round. The state is
    Lightning's checkpoint, given to the next round as `ckpt_path`, with the state of the global generators.

    Args:
        build: `(hparams, ctx) -> (trainer, module, ...)`: makes the user's Trainer and LightningModule, and what else
            is passed to `fit`: nothing, a LightningDataModule, or the training and validation data loaders. Called at
            the start of every round.
        score: The logged metric that is the score, such as `"val_acc"`.
        bind: The binding of each hyperparameter: `optimizer("lr")`, `attribute("module.temperature")`,
            `attribute("trainer.gradient_clip_val")`, `attribute("data.batch_size")`, or `argument()` if `build` reads
            the value. The parts are `module`, `trainer`, `data`, `optimizer` and `scheduler` (`optimizer_0`, ... if
            there are several).
        quiet: Remove the trainer's loggers, checkpoints, progress bar and summary.
    """

    returns_series: ClassVar[bool] = False
    build: Build
    score: str
    bind: Mapping[str, Binding]
    quiet: bool = True

    def __post_init__(self) -> None:
        check_fields(self.build, self.bind, (), "(trainer, module, data)")

    def check(self, hparams: HParams) -> None:
        """Raise TaskError unless every value is bound and takes effect; calls `build`, and trains nothing."""
        tried(hparams, self.bind, lambda ctx: _FitRound(self, hparams, None, 0, ctx).rehearse())

    def restored(self, hparams: HParams, state: State) -> Any:
        """The LightningModule of a state, in evaluation mode, as `run.model()` returns it."""
        hidden = (_LOGGERS if self.quiet else (), _WARNINGS)
        with trial_round(hparams, "the module cannot be built") as ctx, silenced(*hidden), kept_signals():
            _, module, _ = _taken_apart(built(self.build, hparams, ctx))
            saved = torch.load(state["checkpoint"].path, map_location="cpu", weights_only=True)
            module.load_state_dict(saved["state_dict"])
            bind_attributes({"module": module}, hparams, self.bind)
        return module.eval()

    def trainer(self, device: str, threads: int) -> TrainFunction:  # noqa: ARG002 (the device is in the context)
        """The function that trains rounds in this worker."""
        return with_threads(threads, lambda *given: _FitRound(self, *given).train())


class _FitRound(Callback):
    """One round: a callback of the user's trainer."""

    def __init__(self, task: LightningTask, hparams: HParams, state: State, steps: int, ctx: Context) -> None:
        self._task, self._hparams, self._start, self._ctx = task, hparams, state, ctx
        self._target = ctx.first_step + steps
        self._rehearsal = steps == 0
        self._live: Live
        self._state: State = None
        self._validated = False
        with silenced(*self._hidden), kept_signals():
            self._trainer, self._module, self._data = _taken_apart(built(task.build, hparams, ctx))
        self._prepare()

    @property
    def _hidden(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return _LOGGERS if self._task.quiet else (), _WARNINGS

    def train(self) -> tuple[State, Metrics]:
        """Train and evaluate; returns the state as it was after the last step."""
        with silenced(*self._hidden), kept_signals():
            self._fit()
            if self._state is None or self._trainer.global_step != self._target:
                raise TaskError(
                    f"expected the trainer to end the round at step {self._target}, but it stopped at step "
                    f"{self._trainer.global_step}; remove callbacks that stop training early, and if a batch takes "
                    "several optimizer steps, make the plan's interval a multiple of them"
                )
            return self._state, metrics_of(self._evaluated(), self._task.score, "; log it with self.log")

    def rehearse(self) -> None:
        """Bind the values as in a round, without a step."""
        with silenced(*self._hidden), kept_signals():
            self._fit()

    # Before training.

    def _prepare(self) -> None:
        trainer, module = self._trainer, self._module
        parts = {"module": module, "trainer": trainer, **self._named_data()}
        bind_attributes(parts, self._hparams, self._task.bind)
        check_device(trainer.strategy.root_device, self._ctx, "build the Trainer with accelerator and devices for it")
        if self._task.quiet:
            trainer.loggers = []
            noise = (Checkpoint, ModelSummary, ProgressBar)
            trainer.callbacks = [callback for callback in trainer.callbacks if not isinstance(callback, noise)]
        trainer.callbacks.append(self)
        trainer.num_sanity_val_steps = 0
        self._wrap_loaders()
        self._extend(module)

    def _named_data(self) -> dict[str, Any]:
        return {"data": self._data[0]} if len(self._data) == 1 else {}

    def _wrap_loaders(self) -> None:
        """Make the loaders resumable; validation, too, leaves the global generators untouched."""

        def wrap(loader: Any) -> ResumableLoader:
            progress = self._trainer.fit_loop.epoch_progress.current
            return ResumableLoader(loader, self._order, lambda: int(progress.processed), self._is_over)

        owner = self._data[0] if self._data and isinstance(self._data[0], LightningDataModule) else self._module
        if not self._data or owner is self._data[0]:
            for name in ("train_dataloader", "val_dataloader"):
                if is_overridden(name, owner):
                    original = getattr(owner, name)
                    setattr(owner, name, lambda original=original: resumable(original(), wrap))
        else:
            self._data = tuple(resumable(loaders, wrap) for loaders in self._data)

    def _order(self, epoch: int) -> int:
        """The seed of an epoch's order, shared by all members: their scores are comparable."""
        return self._ctx.key("order", epoch)

    def _is_over(self) -> bool:
        return bool(self._trainer.is_last_batch)

    def _extend(self, module: Any) -> None:
        """End the round after the module's own `on_train_batch_end`, which comes after all callbacks."""
        original = module.on_train_batch_end

        def on_train_batch_end(*args: Any, **kwargs: Any) -> Any:
            returned = original(*args, **kwargs)
            self._after_batch()
            return returned

        module.on_train_batch_end = on_train_batch_end

    def _fit(self) -> None:
        path = None if self._start is None else str(self._start["checkpoint"].path)
        try:
            self._trainer.fit(self._module, **self._arguments("fit"), ckpt_path=path, weights_only=True)
        except SystemExit as stop:
            if self._trainer.state.status == TrainerStatus.INTERRUPTED:
                raise KeyboardInterrupt from stop
            raise

    def _arguments(self, call: str) -> dict[str, Any]:
        if not self._data or isinstance(self._data[0], LightningDataModule):
            return {"datamodule": self._data[0]} if self._data else {}
        names = ("train_dataloaders", "val_dataloaders") if call == "fit" else ("", "dataloaders")
        return {name: loaders for name, loaders in zip(names, self._data, strict=False) if name}

    # During training, called by Lightning.

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Optimizers are built, and no state is loaded yet: take their settings as built."""
        parts = {"module": pl_module, "trainer": trainer, **self._named_data()}
        parts |= _numbered("optimizer", trainer.optimizers)
        parts |= _numbered("scheduler", [config.scheduler for config in trainer.lr_scheduler_configs])
        self._live = Live(parts=parts, marked=True)
        # Only now: `configure_optimizers` may read the limits, as the length of its schedule.
        trainer.fit_loop.max_epochs = -1
        trainer.fit_loop.min_epochs = 0
        trainer.fit_loop.epoch_loop.max_steps = -1
        trainer.fit_loop.epoch_loop.min_steps = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """The state is loaded: set the values and the generators."""
        bind_live(self._live, self._hparams, self._task.bind, self._ctx)
        if self._rehearsal:
            trainer.should_stop = True
        elif self._start is None:
            sow(self._ctx)
        else:
            restore_generators(self._start["generators"])

    def _after_batch(self) -> None:
        trainer = self._trainer
        if trainer.global_step % max(trainer.log_every_n_steps, 1) == 0 or trainer.global_step >= self._target:
            report_curves(self._ctx, trainer.global_step, trainer.callback_metrics)
        if trainer.global_step >= self._target:
            trainer.should_stop = True
            if not trainer.is_last_batch:
                self._save()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Lightning validated the state of the end of the round by itself."""
        self._validated = trainer.global_step >= self._target

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Step plateau schedulers after an epoch that began in an earlier round, too, if their metric is there."""
        monitors = {config.monitor for config in trainer.lr_scheduler_configs if config.reduce_on_plateau}
        if monitors <= trainer.callback_metrics.keys():
            trainer.fit_loop.restarting = False

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """The round ended with an epoch: its state includes what the hooks of the epoch's end did."""
        if self._state is None and trainer.global_step >= self._target and not self._rehearsal:
            self._save()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Keep only hyperparameters of the module that load without executing code."""
        for name in ("hyper_parameters", "datamodule_hyper_parameters"):
            if name in checkpoint:
                checkpoint[name] = {key: value for key, value in checkpoint[name].items() if _is_plain(value)}

    def _save(self) -> None:
        path = Path(self._ctx.scratch) / "lightning.ckpt"
        drawn = generators()
        self._trainer.save_checkpoint(path, weights_only=False)
        if self._start is None:
            _check_loads(path)
        self._state = {"checkpoint": Folder(path), "generators": drawn}

    # After training.

    def _evaluated(self) -> dict[str, Any]:
        trainer, module = self._trainer, self._module
        found = dict(trainer.callback_metrics)
        owner = self._data[0] if self._data and isinstance(self._data[0], LightningDataModule) else module
        has_data = len(self._data) > 1 or (is_overridden("val_dataloader", owner) and len(self._data) < 2)
        if not self._validated and has_data and is_overridden("validation_step", module):
            with seeded(self._ctx.key("evaluate"), self._ctx.device):
                trainer.validate(module, **self._arguments("validate"), verbose=False)
            found |= trainer.callback_metrics
        return found


def _taken_apart(returned: Any) -> tuple[Any, Any, tuple[Any, ...]]:
    given = tuple(returned) if isinstance(returned, (tuple, list)) else (returned,)
    if len(given) < 2 or not isinstance(given[0], Trainer) or not isinstance(given[1], LightningModule):
        found = ", ".join(type(item).__name__ for item in given)
        raise TaskError(
            f"expected build to return (trainer, module, ...) with a lightning.pytorch Trainer and LightningModule and "
            f"the data that fit takes, got ({found})"
        )
    return given[0], given[1], given[2:]


def _numbered(name: str, parts: list[Any]) -> dict[str, Any]:
    return {name: parts[0]} if len(parts) == 1 else {f"{name}_{i}": part for i, part in enumerate(parts)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _check_loads(path: Path) -> None:
    """Raise TaskError if a checkpoint contains objects that only code could restore."""
    try:
        torch.load(path, weights_only=True, mmap=True)
    except Exception as error:
        raise TaskError(
            "the checkpoint of the module contains an object that cannot be loaded without executing code; keep only "
            f"tensors and plain values in state_dict and on_save_checkpoint ({str(error).splitlines()[0]:.200})"
        ) from error


@contextmanager
def kept_signals() -> Iterator[None]:
    """Restore the signal handlers that a trainer replaces, some of them for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
