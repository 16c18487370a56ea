"""Tasks that train with Hugging Face's Trainer: the user's Trainer, one `train` per round."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pbt.errors import MissingExtraError, TaskError
from pbt.executors.base import State
from pbt.executors.context import trial_round
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.pytorch.bind import Binding, OptimizerBinding
from pbt.pytorch.live import Live
from pbt.space import HParams
from pbt.store.folder import Folder
from pbt.tasks.trainers import (
    Build,
    bind_attributes,
    bind_live,
    built,
    check_device,
    check_fields,
    metrics_of,
    report_curves,
    silenced,
    sow,
    tried,
    with_threads,
)

try:
    from transformers import Trainer, TrainerCallback
    from transformers.trainer_callback import PrinterCallback, ProgressCallback
    from transformers.utils import logging
except ImportError as error:
    raise MissingExtraError("pbt.tasks.transformers", "transformers") from error

_LOGGERS = ("transformers.trainer",)
_WARNINGS = (
    # A trainer is made for one round, on the CPU in tests: what it says of pinned memory holds for GPUs.
    r"'pin_memory' argument is set as true but no accelerator is found",
    # The library's and PEFT's own use of each other.
    r"`is_gradient_checkpointing` is deprecated",
)
_ARGUMENTS: Mapping[Binding, str] = {
    OptimizerBinding("lr"): "learning_rate",
    OptimizerBinding("weight_decay"): "weight_decay",
    OptimizerBinding("betas", 0): "adam_beta1",
    OptimizerBinding("betas", 1): "adam_beta2",
    OptimizerBinding("eps"): "adam_epsilon",
}
"""The arguments that the Trainer builds its optimizer with: with its default decay of 0, no group would have any."""
_SEEDS = 2**32
"""Seeds of NumPy are smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersTask:
    """Train members with `transformers.Trainer.train`.

    A round is one call of `train` that ends when `state.global_step` has grown by the steps of the round. The state is
    the Trainer's checkpoint folder, given to the next round as `resume_from_checkpoint`.

    Args:
        build: `(hparams, ctx) -> Trainer`: makes the model and the Trainer. `max_steps` (or `num_train_epochs`) in its
            arguments is the length of the whole run, on which learning-rate schedules depend. Called at the start of
            every round.
        score: The metric of `trainer.evaluate()` that is the score, such as `"eval_accuracy"`.
        bind: The binding of each hyperparameter: `optimizer("lr")`, `attribute("args.label_smoothing_factor")`,
            `attribute("model.config.temperature")`, or `argument()` if `build` reads the value. The parts are
            `trainer`, `args`, `model`, `optimizer` and `scheduler`.
        quiet: Remove the trainer's progress bars, printed logs and reports to trackers.
    """

    returns_series: ClassVar[bool] = False
    build: Build
    score: str
    bind: Mapping[str, Binding]
    quiet: bool = True

    def __post_init__(self) -> None:
        check_fields(self.build, self.bind, (), "a transformers.Trainer")

    def check(self, hparams: HParams) -> None:
        """Raise TaskError unless every value is bound and takes effect; calls `build`, and trains nothing."""
        tried(hparams, self.bind, lambda ctx: _TrainRound(self, hparams, None, 0, ctx).rehearse())

    def restored(self, hparams: HParams, state: State) -> Any:
        """The model of a state, in evaluation mode, as `run.model()` returns it."""
        with trial_round(hparams, "the model cannot be built") as ctx:
            return _TrainRound(self, hparams, state, 0, ctx).loaded()

    def trainer(self, device: str, threads: int) -> TrainFunction:  # noqa: ARG002 (the device is in the context)
        """The function that trains rounds in this worker."""
        return with_threads(threads, lambda *given: _TrainRound(self, *given).train())


class _TrainRound(TrainerCallback):
    """One round: a callback of the user's trainer."""

    def __init__(self, task: TransformersTask, hparams: HParams, state: State, steps: int, ctx: Context) -> None:
        self._task, self._hparams, self._start, self._ctx = task, hparams, state, ctx
        self._target = ctx.first_step + steps
        self._live: Live
        self._saved: Path | None = None
        with self._silenced():
            trainer = built(task.build, hparams, ctx)
        if not isinstance(trainer, Trainer):
            raise TaskError(f"expected build to return a transformers.Trainer, got {type(trainer).__name__}")
        self._trainer: Any = trainer
        self._prepare()

    @contextmanager
    def _silenced(self) -> Iterator[None]:
        bars: Any = logging
        quiet = self._task.quiet and bars.is_progress_bar_enabled()
        with silenced(_LOGGERS if self._task.quiet else (), _WARNINGS):
            if quiet:
                bars.disable_progress_bar()
            try:
                yield
            finally:
                if quiet:
                    bars.enable_progress_bar()

    def train(self) -> tuple[State, Metrics]:
        """Train and evaluate; returns the state as it was after the last step."""
        path = None if self._start is None else str(self._start["checkpoint"].path)
        self._trainer.args.output_dir = str(self._ctx.scratch / "trainer")
        with self._silenced():
            if path is None:
                sow(self._ctx)
            self._trainer.train(resume_from_checkpoint=path)
            step = self._trainer.state.global_step
            if self._saved is None or step != self._target:
                raise TaskError(
                    f"expected the Trainer to end the round at step {self._target}, but it stopped at step {step}; "
                    "remove callbacks that stop training early"
                )
            with seeded(self._ctx.key("evaluate"), self._ctx.device):
                found = self._trainer.evaluate()
        # The arguments are pickled, name this round's folders, and are made by `build`.
        (self._saved / "training_args.bin").unlink(missing_ok=True)
        numbers = {name: value for name, value in found.items() if not _is_duration(name)}
        hint = "; return it from compute_metrics"
        return {"checkpoint": Folder(self._saved)}, metrics_of(numbers, self._task.score, hint)

    def loaded(self) -> Any:
        """The model with the weights of the start state."""
        with self._silenced():
            self._trainer._load_from_checkpoint(str(self._start["checkpoint"].path))
        return self._trainer.model.eval()

    def rehearse(self) -> None:
        """Bind the values as in a round, without a step."""
        with self._silenced():
            self._trainer.create_optimizer_and_scheduler(max(self._trainer.args.max_steps, 1))
        self._set()

    # Before training.

    def _prepare(self) -> None:
        trainer, ctx = self._trainer, self._ctx
        args = trainer.args
        bind_attributes(self._parts(), self._hparams, self._task.bind)
        for name, value in self._hparams.items():
            argument = _ARGUMENTS.get(self._task.bind[name])
            if argument is not None:
                setattr(args, argument, value)
        check_device(args.device, ctx, "build TrainingArguments with use_cpu, or set CUDA_VISIBLE_DEVICES")
        # With several visible GPUs the Trainer would spread each batch over all of them.
        args._n_gpu = min(args.n_gpu, 1)
        args.seed = ctx.init_key % _SEEDS
        if args.data_seed is None:
            # The order of an epoch is shared by all members: their scores are comparable.
            args.data_seed = ctx.key("order") % _SEEDS
            trainer.accelerator.dataloader_config.data_seed = args.data_seed
        # The checkpoint of a round is its end, which is evaluated; no other state may take its place.
        args.save_strategy, args.load_best_model_at_end, args.save_total_limit = "no", False, None
        args.save_only_model = args.push_to_hub = False
        args.restore_callback_states_from_checkpoint = True
        if self._task.quiet:
            for callback in list(trainer.callback_handler.callbacks):
                reports = type(callback).__module__.startswith("transformers.integrations")
                if reports or isinstance(callback, (PrinterCallback, ProgressCallback)):
                    trainer.remove_callback(callback)
        trainer.add_callback(self)
        self._watch()

    def _watch(self) -> None:
        """Take the optimizer's settings as built, after the scheduler was made and before a state is loaded."""
        make = self._trainer.create_scheduler

        def create_scheduler(*args: Any, **kwargs: Any) -> Any:
            scheduler = make(*args, **kwargs)
            # The optimizer that the scheduler holds: `accelerate` wraps it.
            optimizer = getattr(scheduler, "optimizer", self._trainer.optimizer)
            self._live = Live(parts={**self._parts(), "optimizer": optimizer, "scheduler": scheduler}, marked=True)
            return scheduler

        self._trainer.create_scheduler = create_scheduler

    def _parts(self) -> dict[str, Any]:
        return {"trainer": self._trainer, "args": self._trainer.args, "model": self._trainer.model}

    def _set(self) -> None:
        bind_live(self._live, self._hparams, self._task.bind, self._ctx)

    # During training, called by the Trainer.

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """The state is loaded: set the values."""
        if state.max_steps < self._target:
            raise TaskError(
                f"expected a Trainer that trains at least {self._target} steps, the end of this round, got "
                f"{state.max_steps}; set max_steps in TrainingArguments to the steps of the whole run (rounds times "
                "the plan's interval)"
            )
        self._set()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """End the round, after the last step."""
        if state.global_step >= self._target:
            control.should_training_stop = True
            # At the end of an epoch its callbacks, and an evaluation, belong to the state.
            control.should_save = not _is_whole(state.epoch)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Save at the end of an epoch; where a round ended within one, nothing more happens."""
        if state.global_step >= self._target:
            if self._saved is None:
                control.should_save = True
            else:
                control.should_evaluate = control.should_save = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Remember the checkpoint."""
        self._saved = Path(args.output_dir) / f"checkpoint-{state.global_step}"

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Leave durations out of the checkpoint: the same training then has the same state; report the numbers."""
        if state.log_history:
            last = state.log_history[-1]
            state.log_history[-1] = {name: value for name, value in last.items() if not _is_duration(name)}
            report_curves(self._ctx, state.global_step, state.log_history[-1])


def _is_whole(epoch: float) -> bool:
    return abs(epoch - round(epoch)) < 1e-9


def _is_duration(name: str) -> bool:
    return name.endswith(("_runtime", "_per_second"))
