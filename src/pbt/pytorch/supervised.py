"""Supervised tasks as values: a model, data, a loss, an optimizer, and the bindings of the hyperparameters."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from pbt.core.rng import seed_of
from pbt.domains import Domain
from pbt.errors import TaskError
from pbt.executors.base import State
from pbt.executors.seeding import seeded
from pbt.executors.worker import TrainFunction
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
from pbt.pytorch.evaluation import SplitMetrics, accuracy
from pbt.pytorch.frozen import warn_if_drawn
from pbt.pytorch.live import Live
from pbt.pytorch.loaders import check_loader
from pbt.pytorch.losses import check_loss, placed
from pbt.pytorch.networks import network_of
from pbt.pytorch.noise import Noise, key_dropout
from pbt.pytorch.precision import (
    PRECISIONS,
    Precision,
    check_precision,
)
from pbt.pytorch.sources import ExampleSource
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
        from pbt.pytorch.trainer import SupervisedTrainer

        return SupervisedTrainer(self, device, threads)


def held_out(data: Data, device: str) -> dict[str, ExampleSource]:
    """The non-empty splits for evaluation, by name, on a device."""
    splits = {"val": data.validation, "test": data.test}
    return {name: split.to(device) for name, split in splits.items() if split is not None and len(split)}


def _rows(losses: Tensor, measured: Tensor, first_step: int, every: int, per_epoch: int) -> list[list[float]]:
    """`[step, mean loss, mean score]` since the last row, at every multiple of `every` in an epoch and at its end."""
    rows, start = [], 0
    for stop in range(1, len(losses) + 1):
        place = (first_step + stop - 1) % per_epoch + 1
        if place % every == 0 or place == per_epoch or stop == len(losses):
            rows.append([first_step + stop, float(losses[start:stop].mean()), float(measured[start:stop].mean())])
            start = stop
    return rows
