"""Training of a supervised task, one member after the other on one device."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pbt.executors.base import State
from pbt.executors.worker import Context, Metrics
from pbt.pytorch.bind import bind_all
from pbt.pytorch.checks import opened
from pbt.pytorch.evaluation import SplitMetrics, Total, detached, read, totals
from pbt.pytorch.frozen import FrozenParts
from pbt.pytorch.kept_states import KeptStates, on_host
from pbt.pytorch.live import Live
from pbt.pytorch.losses import fresh, training_loss
from pbt.pytorch.modes import set_mode
from pbt.pytorch.noise import Noise
from pbt.pytorch.precision import forward_pass, in_float32, matrix_products
from pbt.pytorch.sources import ExampleSource, Inputs
from pbt.pytorch.state import capture, restore, seed_global, threads_of
from pbt.pytorch.supervised import SupervisedTask, held_out
from pbt.space import HParams


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
