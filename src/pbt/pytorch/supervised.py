"""Supervised learning as a value: a model, data, a loss, an optimizer, and where the hyperparameters act."""

import contextlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from pbt.core.rng import seed_of
from pbt.errors import TaskError
from pbt.executors.base import State
from pbt.executors.seeding import seeded
from pbt.executors.worker import Context, Metrics, Train
from pbt.pytorch.bind import Binding, Live, bind_all, check_bound
from pbt.pytorch.noise import Noise, key_dropout
from pbt.pytorch.state import capture, restore, seed_global, threads_of
from pbt.space import HParams


@dataclass(frozen=True, slots=True)
class Split:
    """Examples held in memory: inputs (n, ...), one tensor or several; targets (n, ...)."""

    inputs: Tensor | tuple[Tensor, ...]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: str) -> "Split":
        """The same examples on a device."""
        inputs = self.inputs
        moved = tuple(x.to(device) for x in inputs) if isinstance(inputs, tuple) else inputs.to(device)
        return Split(moved, self.targets.to(device))

    def take(self, index: Tensor | slice) -> tuple[tuple[Tensor, ...], Tensor]:
        """The inputs and targets at these places."""
        inputs = self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)
        return tuple(x[index] for x in inputs), self.targets[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Train to learn from, validation to select by, test (optional) only to be reported.

    Validation may be empty where nothing is selected (one network alone): then the newest state counts as the best.
    """

    train: Split
    validation: Split
    test: Split | None = None


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of rows of outputs (n, classes) whose largest entry is the target (n,)."""
    return (outputs.argmax(dim=1) == targets).double().mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedTask:
    """A supervised task that runs unchanged on every executor.

    Everything that is passed as a function must be defined at the top level of a module.

    Args:
        model: Makes a fresh network; initialized under a generator keyed by (seed, member).
        data: Gives the data; called once per worker.
        optimizer: Makes the optimizer of some parameters, as `functools.partial(torch.optim.Adam, lr=1e-3)`.
        bind: Where each hyperparameter takes effect, as `{"lr": optimizer("lr")}`.
        loss: `(outputs, targets, **settings) -> scalar`, default cross-entropy.
        metrics: Names to functions `(outputs, targets) -> mean over the batch`; `loss` is always there too.
        score: The metric on validation data that is the score.
        batch_size: Training examples per step; the last batch of an epoch may be smaller.
        evaluation_batch: Examples per step of evaluation; no result depends on it.
        augment: `(inputs, generator) -> inputs` for stored training batches; its draws are keyed by (seed, member,
            step).
        prepare: Turns a batch of stored inputs into the network's, as from bytes to normalized floats.
        order: `"shared"`: all members see the same batches, in a new order each epoch; `"member"`: each has an
            order of its own; `"stored"`: as the data is stored, always.
        record_every: Steps between rows of training loss in the report, counted anew in each epoch, which ends with a
            row; None: no rows.
    """

    model: Callable[[], nn.Module]
    data: Callable[[], Data]
    optimizer: Callable[[Any], Optimizer]
    bind: Mapping[str, Binding]
    loss: Callable[..., Tensor] = F.cross_entropy
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=lambda: {"accuracy": accuracy})
    score: str = "accuracy"
    batch_size: int = 100
    evaluation_batch: int = 1000
    prepare: Callable[[Tensor], Tensor] | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    order: Literal["shared", "member", "stored"] = "shared"
    record_every: int | None = None

    def __post_init__(self) -> None:
        if self.score != "loss" and self.score not in self.metrics:
            raise TaskError(f"the score '{self.score}' is not among the metrics {['loss', *self.metrics]}")
        if self.batch_size < 1 or self.evaluation_batch < 1:
            raise TaskError(f"batch sizes must be at least 1, got {self.batch_size} and {self.evaluation_batch}")

    def check(self, hparams: HParams) -> None:
        """Raise TaskError unless every value is bound and takes effect on the network and optimizer that are built."""
        check_bound(hparams, self.bind)
        live = self.build("cpu", Noise("cpu"), seed=0)
        bind_all(live, hparams, self.bind)
        # ValueError: a function that cannot be asked for its arguments; it will say for itself what it does not take.
        with contextlib.suppress(ValueError):
            try:
                inspect.signature(self.loss).bind(None, None, **live.loss)
            except TypeError as error:
                raise TaskError(f"the loss does not take what is bound to it: {error}") from error

    def build(self, device: str, noise: Noise, seed: int) -> Live:
        """A fresh network and optimizer; dropout draws from `noise`."""
        with seeded(seed):
            model = self.model().to(device)
        key_dropout(model, noise)
        return Live(parts={"model": model, "optimizer": self.optimizer(model.parameters())})

    def trainer(self, device: str, threads: int) -> Train:
        """What trains rounds in this worker; loads the data."""
        return SupervisedTrainer(self, device, threads)


class SupervisedTrainer:
    """Trains one member after another on one device: one live network, loaded with each member's state in turn."""

    def __init__(self, task: SupervisedTask, device: str, threads: int) -> None:
        self._task = task
        self._device = device
        self._threads = threads
        data = task.data()
        if not len(data.train):
            raise TaskError("expected examples to train on, found none")
        self._train = data.train.to(device)
        self._per_epoch = -(-len(data.train) // task.batch_size)
        held_out = {"val": data.validation, "test": data.test}
        self._held_out = {
            name: split.to(device) for name, split in held_out.items() if split is not None and len(split)
        }
        self._noise = Noise(device)
        self._augment_generator = torch.Generator(device=device)
        self._live: Live | None = None
        self._names: set[str] = set()
        self._drawn: tuple[int, Tensor] | None = None

    def __call__(self, hparams: HParams, state: State, steps: int, ctx: Context) -> tuple[State, Metrics]:
        """One round."""
        with threads_of(self._threads):
            live = self._load(hparams, state, ctx)
            bind_all(live, hparams, self._task.bind)
            metrics = self._fit(live, steps, ctx)
            for name, split in self._held_out.items():
                metrics.update({f"{name}_{metric}": value for metric, value in self._evaluate(live, split).items()})
        finite = metrics.pop("train_finite") and math.isfinite(metrics.get("val_loss", 0.0))
        # With nothing held out there is nothing to choose by: the newest state counts as the best.
        score = metrics[f"val_{self._task.score}"] if "val" in self._held_out else float(ctx.first_step + steps)
        metrics["score"] = score if finite else math.nan
        return capture(live.parts), metrics

    def _load(self, hparams: HParams, state: State, ctx: Context) -> Live:
        # Values that the member before had, and this one has not, must not stay in effect.
        if state is None or self._live is None or self._names != set(hparams):
            self._live = self._task.build(self._device, self._noise, ctx.key("init", ctx.member))
            self._names = set(hparams)
        if state is not None:
            restore(self._live.parts, state)
        return self._live

    def _fit(self, live: Live, steps: int, ctx: Context) -> dict[str, Any]:
        task, model, optimizer = self._task, live.parts["model"], live.parts["optimizer"]
        measure = task.metrics.get(task.score)
        model.train()
        losses, measured = torch.zeros(steps), torch.zeros(steps)
        for i in range(steps):
            step = ctx.first_step + i
            key = ctx.key("noise", ctx.member, step)
            self._noise.at(key)
            # For noise that is hidden inside layers or written in functional form.
            seed_global(key, self._device)
            inputs, targets = self._batch(step, key, ctx)
            outputs = model(*inputs)
            value = task.loss(outputs, targets, **live.loss)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses[i] = value.detach()
            if measure is not None:
                measured[i] = measure(outputs.detach(), targets)
        metrics: dict[str, Any] = {"train_loss": float(losses.mean()), "train_finite": bool(losses.isfinite().all())}
        if measure is not None:
            metrics[f"train_{task.score}"] = float(measured.mean())
        if task.record_every is not None:
            metrics["rows"] = _rows(losses, measured, ctx.first_step, task.record_every, self._per_epoch)
        return metrics

    def _batch(self, step: int, key: int, ctx: Context) -> tuple[tuple[Tensor, ...], Tensor]:
        task = self._task
        epoch, place = divmod(step, self._per_epoch)
        batch = slice(place * task.batch_size, (place + 1) * task.batch_size)
        who = (ctx.member,) if task.order == "member" else ()
        shuffled = task.order != "stored"
        index = self._order(seed_of(ctx.seed, "order", *who, epoch))[batch] if shuffled else batch
        inputs, targets = self._train.take(index)
        if task.augment is not None:
            self._augment_generator.manual_seed(seed_of(key, "augment"))
            inputs = tuple(task.augment(x, self._augment_generator) for x in inputs)
        if task.prepare is not None:
            inputs = tuple(task.prepare(x) for x in inputs)
        return inputs, targets

    def _order(self, seed: int) -> Tensor:
        """A permutation of the examples, drawn on the CPU so that every device sees the same one; the last is kept."""
        if self._drawn is None or self._drawn[0] != seed:
            generator = torch.Generator().manual_seed(seed)
            self._drawn = seed, torch.randperm(len(self._train), generator=generator).to(self._device)
        return self._drawn[1]

    @torch.no_grad()
    def _evaluate(self, live: Live, split: Split) -> dict[str, float]:
        """Each metric's mean over the split; the loss without the settings that hyperparameters give it."""
        task, model = self._task, live.parts["model"]
        model.eval()
        measures = {"loss": task.loss, **task.metrics}
        totals = dict.fromkeys(measures, 0.0)
        for start in range(0, len(split), task.evaluation_batch):
            inputs, targets = split.take(slice(start, start + task.evaluation_batch))
            outputs = model(*(inputs if task.prepare is None else map(task.prepare, inputs)))
            for name, measure in measures.items():
                totals[name] += float(measure(outputs, targets)) * len(targets)
        return {name: total / max(len(split), 1) for name, total in totals.items()}


def _rows(losses: Tensor, measured: Tensor, first_step: int, every: int, per_epoch: int) -> list[list[float]]:
    """`[step, mean loss, mean score]` since the row before, at every multiple of `every` in an epoch and at its end."""
    rows, start = [], 0
    for stop in range(1, len(losses) + 1):
        place = (first_step + stop - 1) % per_epoch + 1
        if place % every == 0 or place == per_epoch or stop == len(losses):
            rows.append([first_step + stop, float(losses[start:stop].mean()), float(measured[start:stop].mean())])
            start = stop
    return rows
