"""Supervised tasks as values: a model, data, a loss, an optimizer, and the bindings of the hyperparameters."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pbt.core.rng import seed_of
from pbt.domains import Domain
from pbt.errors import TaskError
from pbt.executors.base import State
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context, Metrics, TrainFunction
from pbt.pytorch.average import Average
from pbt.pytorch.bind import (
    SETTINGS,
    ArgumentBinding,
    AugmentBinding,
    Binding,
    SettingBinding,
    bind_all,
    check_bound,
    check_disjoint,
)
from pbt.pytorch.checks import Values, check_fields, check_last_batch, check_network, check_selection, opened
from pbt.pytorch.data import Batches, Data, Order, too_few
from pbt.pytorch.data_record import record_of
from pbt.pytorch.evaluation import SplitMetrics, Total, accuracy, detached, read, totals
from pbt.pytorch.frozen import FrozenParts, warn_if_drawn
from pbt.pytorch.kept_states import KeptStates, on_host
from pbt.pytorch.live import Live
from pbt.pytorch.loaders import check_loader
from pbt.pytorch.losses import check_loss, fresh, placed, training_loss
from pbt.pytorch.modes import set_mode
from pbt.pytorch.networks import network_of
from pbt.pytorch.noise import Noise, key_dropout
from pbt.pytorch.precision import (
    PRECISIONS,
    Precision,
    check_precision,
    forward_pass,
    in_float32,
    matrix_products,
)
from pbt.pytorch.sources import ExampleSource, Inputs
from pbt.pytorch.state import capture, restore, seed_global, threads_of
from pbt.space import HParams

_NOTHING: Mapping[str, Domain] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedTask:
    """A supervised task that runs unchanged on every executor.

    All functions must be defined at the top level of a module.

    Args:
        model: Returns a new network; initialized under a generator keyed by (seed, member).
        data: Returns the data; called once before the start, and once per worker.
        optimizer: Returns the optimizer of given parameters, as `functools.partial(torch.optim.Adam, lr=1e-3)`.
        bind: The binding of each hyperparameter, as `{"lr": optimizer("lr")}`.
        loss: `(outputs, targets, **settings) -> scalar`, default cross-entropy: a function, or an object such as
            `nn.CrossEntropyLoss(weight=...)`, whose tensors are moved to the device and whose settings are arguments or
            attributes. If it changes its own attributes or buffers, it starts every round and evaluation as given here.
        metrics: Functions `(outputs, targets) -> number` by name; `loss` is always added. Each is computed over a whole
            split, from the kept outputs of all its batches.
        means: Names of metrics, or `"loss"`, that are means over examples: these are averaged over batches, and no
            outputs are kept. `accuracy` of this package, and torch's losses with `reduction="mean"` and without class
            weights, are recognized as means.
        score: The metric whose value on validation data is the score.
        batch_size: Training examples per step and accumulated batch; the last batch of an epoch may be smaller.
        drop_last: Leave out the last examples of an epoch if they do not fill a step, so that all steps have
            `batch_size * accumulate` examples. Without it, a network with batch normalization whose last batch would
            have one example is refused before the start, for every possible value of a bound `batch_size()`.
        evaluation_batch: Examples per step of evaluation. Scores do not depend on it, unless the network mixes the
            examples of a batch, as `BatchNorm` without running statistics does.
        augment: `(inputs, generator, **settings) -> inputs` for stored training batches; its draws are keyed by (seed,
            member, step), and its settings are hyperparameters bound by `augment("strength")`.
        prepare: Converts a batch of stored inputs to the network's inputs, such as bytes to normalized floats.
        order: `"shared"`: all members see the same batches, in a new order each epoch; `"member"`: each member has
            its own order; `"stored"`: always the order of the data.
        clip_norm: Maximum norm of the gradient; larger gradients are scaled down to it. None: no clipping.
        accumulate: Number of batches whose gradients are accumulated in a step, which has `batch_size * accumulate`
            examples; the optimizer, the scheduler and the round count it as one step.
        scheduler: Returns the learning-rate scheduler of an optimizer, as `functools.partial(StepLR, step_size=1000)`;
            it is stepped after every training step; a `ReduceLROnPlateau` after every round, with the validation loss.
        ema: Decay of an exponential moving average of the weights, per step, from 0 to below 1; evaluation uses the
            averaged weights, and the state holds both. None: no average.
        precision: `"float32"`; `"tf32"`: float32 products with 10 bits, on GPUs; `"bf16"`: the forward pass in bfloat16
            under autocast. Weights, losses, metrics and optimizer states are float32 in all of them.
        record_every: Steps between rows of training loss in the report; the count restarts with each epoch, which ends
            with a row. None: no rows.
    """

    returns_series: ClassVar[bool] = False
    model: Callable[[], nn.Module]
    data: Callable[[], Data]
    optimizer: Callable[[Any], Optimizer]
    bind: Mapping[str, Binding]
    loss: Callable[..., Tensor] = F.cross_entropy
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=lambda: {"accuracy": accuracy})
    score: str = "accuracy"
    means: Collection[str] = ()
    batch_size: int = 100
    drop_last: bool = False
    evaluation_batch: int = 1000
    prepare: Callable[[Tensor], Tensor] | None = None
    augment: Callable[..., Tensor] | None = None
    order: Order = "shared"
    clip_norm: float | None = None
    accumulate: int = 1
    scheduler: Callable[[Optimizer], Any] | None = None
    ema: float | None = None
    precision: Precision = "float32"
    record_every: int | None = None

    def __post_init__(self) -> None:
        if self.score != "loss" and self.score not in self.metrics:
            raise TaskError(f"the score '{self.score}' is not among the metrics {['loss', *self.metrics]}")
        if isinstance(self.means, str) or not set(self.means) <= {"loss", *self.metrics}:
            known = ["loss", *self.metrics]
            raise TaskError(f"expected means to be names of metrics {known}, as in ('loss',), got {self.means!r}")
        if self.batch_size < 1 or self.evaluation_batch < 1:
            raise TaskError(f"batch sizes must be at least 1, got {self.batch_size} and {self.evaluation_batch}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise TaskError(f"expected a clip_norm above 0, got {self.clip_norm}")
        functions = {"loss": self.loss, **{f"the metric '{name}'": metric for name, metric in self.metrics.items()}}
        check_fields(self.model, self.data, self.optimizer, self.bind, functions)
        if self.precision not in PRECISIONS:
            raise TaskError(f"expected a precision of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.accumulate < 1:
            raise TaskError(f"expected accumulate to be at least 1, got {self.accumulate}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise TaskError(f"expected a decay ema from 0 to below 1, got {self.ema}")

    def check(self, hparams: HParams) -> None:
        """Raise TaskError unless every value is bound and takes effect on a new network and optimizer."""
        check_bound(hparams, self.bind)
        for name in hparams:
            if isinstance(self.bind[name], ArgumentBinding):
                raise TaskError(
                    f"the hyperparameter '{name}' has no effect: argument() is for a task that reads hparams, and a "
                    "SupervisedTask does not; bind it to a setting, such as batch_size(), accumulate(), ema(), "
                    "augment('strength'), loss('weight') or attribute('model.temperature')"
                )
            self._check_unused(name)
        live = self.build("cpu", Noise(), seed=0)
        check_disjoint(hparams, live, self.bind)
        bind_all(live, hparams, self.bind)
        check_loss(self.loss, live.loss)
        warn_if_drawn(live.parts, lambda: self.build("cpu", Noise(), seed=1).parts)

    def check_device(self, device: str) -> None:
        """Raise TaskError if the device does not have the precision."""
        check_precision(self.precision, device)

    def check_data(self, members: int, space: Mapping[str, Domain] = _NOTHING) -> dict[str, Any]:
        """Check that the data suffices for training, and for selection among the members; returns its record.

        Args:
            members: Size of the population.
            space: The hyperparameters; those bound to `batch_size()` and `accumulate()` are used.

        Raises:
            TaskError: It does not.
            ExampleError: One of its first examples cannot be read.
        """
        with seeded(seed_of("open")):
            data = opened(self.data)
        check_selection(data, members)
        check_loader(data.train, "train", batch_size=self.batch_size, drop_last=self.drop_last,
                     shuffled=self.order != "stored")  # fmt: skip
        sizes, times = (Values.of(self, setting, space) for setting in ("batch_size", "accumulate"))
        largest = sizes.largest * times.largest
        if self.drop_last and len(data.train) < largest:
            raise TaskError(too_few(len(data.train), largest))
        alone = sizes.leaving_one(len(data.train), drop_last=self.drop_last)
        if alone:
            model = self.build("cpu", Noise(), seed=0).parts["model"]
            with seeded(0):
                check_last_batch(model, data.train, sizes, alone, self.prepare)
        return record_of(data)

    def data_record(self) -> dict[str, Any]:
        """What a run records of the data, to notice other data when it is resumed."""
        with seeded(seed_of("open")):
            return record_of(opened(self.data))

    def _check_unused(self, name: str) -> None:
        """Raise TaskError if the value is bound to a setting that this task does not use."""
        binding = self.bind[name]
        if isinstance(binding, SettingBinding) and binding.name == "ema" and self.ema is None:
            raise TaskError(
                f"the hyperparameter '{name}' has no effect: ema() needs a task with an average, such as ema=0.999"
            )
        if isinstance(binding, AugmentBinding) and self.augment is None:
            raise TaskError(f"the hyperparameter '{name}' has no effect: augment() needs a task with augment=...")

    def build(self, device: str, noise: Noise, seed: int) -> Live:
        """A new network, optimizer, scheduler and average; dropout draws from `noise`."""
        with seeded(seed):
            model = self.model()
            check_network(model)
            model = model.to(device)
        key_dropout(model, noise)
        optimizer = self.optimizer(model.parameters())
        parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
        if self.scheduler is not None:
            parts["scheduler"] = self.scheduler(optimizer)
        if self.ema is not None:
            parts["ema"] = Average(model)
        settings = {name: getattr(self, name) for name in SETTINGS}
        return Live(parts=parts, settings=settings)

    def restored(self, hparams: HParams, state: State) -> nn.Module:
        """The network of a state, in evaluation mode, on the CPU; with an average, with the averaged weights."""
        return network_of(self.model(), state, hparams, self.bind)

    def batches(self, data: Data, device: str, members: int = 1) -> Batches:
        """The training batches of `members` members that take turns from step to step."""
        return Batches(
            data.train,
            device,
            self.batch_size * self.accumulate,
            order=self.order,
            augment=self.augment,
            prepare=self.prepare,
            drop_last=self.drop_last,
            members=members,
        )

    def measured(self, split: ExampleSource) -> SplitMetrics:
        """The loss and the metrics over a split."""
        metrics = {"loss": self.loss, **self.metrics}
        device = split.device
        return SplitMetrics.of({name: placed(metric, device) for name, metric in metrics.items()}, self.means, split)

    def report(
        self,
        losses: Tensor,
        measured: Tensor | None,
        held_out: Mapping[str, Mapping[str, float]],
        first_step: int,
        per_epoch: int,
    ) -> dict[str, Any]:
        """The report of a round.

        Args:
            losses: The loss of every step, (steps,).
            measured: The score on the batch of every step, (steps,); None if the score is the loss.
            held_out: The metrics by split (`val`, `test`).
            first_step: Training steps before the round.
            per_epoch: Steps of an epoch.
        """
        metrics: dict[str, Any] = {"train_loss": float(losses.mean())}
        if measured is not None:
            metrics[f"train_{self.score}"] = float(measured.mean())
        if self.record_every is not None:
            second = torch.zeros_like(losses) if measured is None else measured
            metrics["rows"] = _rows(losses, second, first_step, self.record_every, per_epoch)
        for name, means in held_out.items():
            metrics.update({f"{name}_{metric}": value for metric, value in means.items()})
        finite = bool(losses.isfinite().all()) and math.isfinite(metrics.get("val_loss", 0.0))
        # Without validation data the newest state counts as the best.
        score = metrics[f"val_{self.score}"] if "val" in held_out else float(first_step + len(losses))
        metrics["score"] = score if finite else math.nan
        return metrics

    def trainer(self, device: str, threads: int) -> TrainFunction:
        """The function that trains rounds in this worker; it loads the data."""
        return SupervisedTrainer(self, device, threads)


def held_out(data: Data, device: str) -> dict[str, ExampleSource]:
    """The non-empty splits for evaluation, by name, on a device."""
    splits = {"val": data.validation, "test": data.test}
    return {name: split.to(device) for name, split in splits.items() if split is not None and len(split)}


class SupervisedTrainer:
    """Trains members one by one on one device; network and optimizer are built anew for each round."""

    def __init__(self, task: SupervisedTask, device: str, threads: int) -> None:
        task.check_device(device)
        self._task = task
        self._device = device
        self._threads = threads
        data = opened(task.data)
        self._loss = training_loss(task.loss, device)
        self._batches = task.batches(data, device)
        self._held_out = held_out(data, device)
        # Once, because this reads the targets.
        self._measured = {name: task.measured(split) for name, split in self._held_out.items()}
        self._noise = Noise.of(device)
        self._kept = KeptStates.of(device)
        self._last: State = None
        """The state of the last round, on the device; None: not to be kept."""
        self._tried: Live | None = None

    def __call__(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        """Train one round."""
        with threads_of(self._threads), matrix_products(self._task.precision, self._device):
            live = self._load(hparams, state, ctx)
            frozen = FrozenParts(live.parts)
            set_mode(live.of(Optimizer), training=True)
            losses, measured = self._fit(live, steps, ctx)
            set_mode(live.of(Optimizer), training=False)
            metrics = read(
                {name: self._evaluate(live, self._measured[name], split) for name, split in self._held_out.items()}
            )
            scheduler: Any = live.parts.get("scheduler")
            if steps_by_score(scheduler) and "val" in metrics:
                scheduler.step(metrics["val"]["loss"])
        per_epoch = self._batches.per_epoch(size_of(live))
        report = self._task.report(losses, measured, metrics, ctx.first_step, per_epoch)
        state = capture(live.parts, frozen=frozen)
        self._last = None if self._kept is None else state
        return on_host(state, self._device), report

    def recall(self, digest: str) -> State | None:
        """A copy of a state that this worker trained, on its device as far as it is loaded there; None: not kept."""
        return None if self._kept is None else self._kept.get(digest)

    def keep(self, digest: str) -> None:
        """Keep the state of the last round, which was stored under this digest."""
        if self._kept is not None and self._last is not None:
            self._kept.keep(digest, self._last)
        self._last = None

    def forget(self) -> bool:
        """Free the memory of kept states; returns whether there were any."""
        self._last = None
        if self._kept is None or not self._kept.clear():
            return False
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
        return True

    def try_out(self, hparams: HParams, ctx: Context) -> None:
        """Train one step of a member, which the first call creates, without evaluation."""
        with threads_of(self._threads):
            if self._tried is None:
                self._tried = self._load(hparams, None, ctx)
                set_mode(self._tried.of(Optimizer), training=True)
            self._step(self._tried, 0, ctx)

    def _load(self, hparams: HParams, state: State, ctx: Context) -> Live:
        # A loss may have a state, which no state of a member holds.
        self._loss = training_loss(fresh(self._task.loss), self._device)
        live = self._task.build(self._device, self._noise, ctx.init_key)
        if state is not None:
            restore(live.parts, state)
        bind_all(live, hparams, self._task.bind, ctx)
        return live

    def _fit(self, live: Live, steps: int, ctx: Context) -> tuple[Tensor, Tensor | None]:
        """The loss, and the score on the batch, of every step."""
        # Read once, at the end of the round: a read synchronizes with the device.
        losses, measured = torch.zeros((2, steps), device=self._device)
        live.parts["model"].train()
        self._batches.plan(range(ctx.first_step, ctx.first_step + steps), ctx.seed, [ctx.member], size_of(live))
        for i in range(steps):
            losses[i], measured[i] = self._step(live, ctx.first_step + i, ctx)
        losses, measured = losses.cpu(), measured.cpu()
        return losses, measured if self._task.score in self._task.metrics else None

    def _step(self, live: Live, step: int, ctx: Context) -> tuple[Tensor, Tensor | float]:
        model, optimizer, settings = live.parts["model"], live.parts["optimizer"], live.settings
        value, measured = self._backward(live, step, ctx)
        if settings["clip_norm"] is not None:
            nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        optimizer.step()
        scheduler, average = live.parts.get("scheduler"), live.parts.get("ema")
        if scheduler is not None and not steps_by_score(scheduler):
            scheduler.step()
        if average is not None:
            average.update(model, settings["ema"], step)
        return value, measured

    def _backward(self, live: Live, step: int, ctx: Context) -> tuple[Tensor, Tensor | float]:
        """The loss and the score of a step, whose gradient is accumulated."""
        key = ctx.key("noise", ctx.member, step)
        self._noise.at(self._noise.key(ctx, step), step=step)
        # For noise drawn inside layers or in functional form.
        seed_global(key, self._device)
        inputs, targets = self._batches.at(step, ctx.seed, ctx.member, key, size_of(live), live.augment)
        live.parts["optimizer"].zero_grad(set_to_none=True)
        return self._gradient(live, inputs, targets)

    def _gradient(self, live: Live, inputs: Inputs, targets: Tensor) -> tuple[Tensor, Tensor | float]:
        """Accumulate the gradient of the mean loss over a step's batches; returns the loss and the score."""
        task, model = self._task, live.parts["model"]
        measure = task.metrics.get(task.score)
        size = int(live.settings["batch_size"])
        losses, measured = [], []
        for start in range(0, len(targets), size):
            batch = slice(start, start + size)
            with forward_pass(task.precision, self._device):
                outputs = model(*(x[batch] for x in inputs))
            outputs = in_float32(outputs, task.precision)
            share = len(targets[batch]) / len(targets)
            value = self._loss(outputs, targets[batch], **live.loss)
            (value if share == 1 else value * share).backward()  # type: ignore[no-untyped-call]
            losses.append(value.detach() * share)
            measured.append(0.0 if measure is None else measure(detached(outputs), targets[batch]) * share)
        return (losses[0], measured[0]) if len(losses) == 1 else (torch.stack(losses).sum(), sum(measured))

    @torch.no_grad()
    def _evaluate(self, live: Live, measured: SplitMetrics, split: ExampleSource) -> dict[str, Total]:
        """Each metric over the split; the loss does not use the settings bound to hyperparameters."""
        task, model, average = self._task, live.parts["model"], live.parts.get("ema")
        model.eval()
        network = model if average is None else partial(average.outputs, model)

        def outputs(*inputs: Tensor) -> Any:
            with forward_pass(task.precision, self._device):
                computed = network(*inputs)
            return in_float32(computed, task.precision)

        return totals(outputs, measured, split, task.evaluation_batch, task.prepare)


def size_of(live: Live) -> int:
    """Number of examples of a step: the batch size times the number of accumulated batches."""
    return int(live.settings["batch_size"]) * int(live.settings["accumulate"])


def steps_by_score(scheduler: Any) -> bool:
    """Whether a scheduler is stepped by the validation loss, not by the number of steps."""
    return isinstance(scheduler, ReduceLROnPlateau)


def _rows(losses: Tensor, measured: Tensor, first_step: int, every: int, per_epoch: int) -> list[list[float]]:
    """`[step, mean loss, mean score]` since the last row, at every multiple of `every` in an epoch and at its end."""
    rows, start = [], 0
    for stop in range(1, len(losses) + 1):
        place = (first_step + stop - 1) % per_epoch + 1
        if place % every == 0 or place == per_epoch or stop == len(losses):
            rows.append([first_step + stop, float(losses[start:stop].mean()), float(measured[start:stop].mean())])
            start = stop
    return rows
