"""The training steps of a round: gather a batch, train on it, record the loss, count; on an accelerator as one graph.

All values that change between steps are tensors on the device. A captured step is therefore replayed for the rest of
the run, and a copy between members writes into these tensors. A round reads nothing back from the device.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pbt.executors.base import RoundTask
from pbt.executors.worker import Context
from pbt.pytorch.data import Batches
from pbt.pytorch.noise import CounterNoise
from pbt.pytorch.sources import Batch, Inputs
from pbt.pytorch.state import seed_global
from pbt.pytorch.supervised import SupervisedTask
from pbt.pytorch.vectorized.graphs import capture
from pbt.pytorch.vectorized.program import Program
from pbt.pytorch.vectorized.settings import Settings

log = logging.getLogger("pbt")

_WARM = 2
"""Number of eager steps before a graph is captured: libraries choose algorithms and reserve memory in them."""
SHOWN_SECONDS = 0.5
"""Seconds between two calls of `passed`."""


class TrainingSteps:
    """The steps of one program.

    Args:
        task: The task.
        program: The program of all members.
        batches: The training batches, on the device.
        device: The device.
    """

    def __init__(self, task: SupervisedTask, program: Program, batches: Batches, device: str) -> None:
        self._measure = task.metrics.get(task.score)
        self._program = program
        self._batches = batches
        self._device = device
        self._index = torch.zeros((0, 0), dtype=torch.int64, device=device)
        """The indices of the round's examples in the training data, in the order of steps: (1 or members, examples)."""
        self._read: dict[int, Batch] = {}
        """The stored batch of the step, by its number of examples, if batches are read."""
        self._start = torch.zeros((), dtype=torch.int64, device=device)
        """The position of the next step in `_index`."""
        self._column = torch.zeros(1, dtype=torch.int64, device=device)
        """The number of the next step in this round."""
        self._losses = torch.zeros((program.members, 0), device=device)
        self._measured = self._losses
        self._stream: Any = None
        self._graphs: dict[int, Callable[[], None]] = {}
        """The replay of a captured step, by its number of examples."""
        self._captured_with: Any = None
        """The signature of the program in those graphs."""
        self._refused = ""
        """The reason not to capture steps; empty: they may be captured."""
        self._logged: set[str] = set()
        """The logged reasons."""

    def run(
        self,
        wave: Sequence[RoundTask],
        contexts: Sequence[Context],
        settings: Sequence[Settings],
        *,
        eager: bool = False,
        passed: Callable[[float], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Train all steps of a round.

        Args:
            wave: The rounds of all members, with the same first step.
            contexts: The context of each member.
            settings: The settings of each member.
            eager: Do not capture graphs.
            passed: Called now and then with the share of the steps that are done, or handed to the device.

        Returns:
            The loss and the score on the batch, (members, steps) each, on the device; the next round overwrites them.
        """
        first, steps = wave[0].first_step, wave[0].steps
        size = int(settings[0].task["batch_size"]) * int(settings[0].task["accumulate"])
        gathered = self._batches.gathers
        sizes = self._lay_out(wave, size) if gathered else [size] * steps
        self._make_room(steps)
        members = [task.member for task in wave]
        self._batches.plan(range(first, first + steps), wave[0].seed, members, size, joint=gathered)
        may_capture = not eager and self._may_capture()
        due = time.monotonic() + SHOWN_SECONDS
        with self._aside():
            for i in range(steps):
                self._begin(contexts, first + i, named=i > 0)
                if gathered and self._batches.streamed:
                    self._place(self._batches.joint(first + i, wave[0].seed, members, size), sizes[i])
                if not gathered:
                    self._step(*self._each(wave, contexts, settings, first + i, size), shared=False)
                elif may_capture and (i >= _WARM or sizes[i] in self._graphs) and self._captured(sizes[i]):
                    self._graphs[sizes[i]]()
                else:
                    self._gathered(sizes[i])
                if passed is not None and time.monotonic() >= due:
                    passed((i + 1) / steps)
                    due = time.monotonic() + SHOWN_SECONDS
        if may_capture:
            self._program.mark_used()
        return self._losses[:, :steps], self._measured[:, :steps]

    def _lay_out(self, wave: Sequence[RoundTask], size: int) -> list[int]:
        """Write the indices of the round's examples to the device; returns the number of examples of each step."""
        first, members = wave[0], [task.member for task in wave]
        steps = range(first.first_step, first.first_step + first.steps)
        if self._batches.streamed:
            return [self._batches.count(step, size) for step in steps]
        each = [self._batches.indices(step, first.seed, members, size) for step in steps]
        index = torch.cat(each, dim=1)
        if self._index.shape[0] != index.shape[0] or self._index.shape[1] < index.shape[1]:
            self._index = index
            self._graphs.clear()
        else:
            self._index[:, : index.shape[1]].copy_(index)
        return [own.shape[1] for own in each]

    def _make_room(self, steps: int) -> None:
        if self._losses.shape[1] < steps:
            self._losses, self._measured = torch.zeros((2, self._program.members, steps), device=self._device)
            self._graphs.clear()
        self._start.zero_()
        self._column.zero_()

    def _begin(self, contexts: Sequence[Context], step: int, *, named: bool) -> None:
        """Set the number of a step; if it is known (`named`) and the device counts steps, only torch is seeded."""
        noise = self._program.noise
        if named and isinstance(noise, CounterNoise):
            seed_global(contexts[0].key("noise", contexts[0].member, step), self._device)
            return
        # Without dropout layers one key suffices.
        drawing = contexts if self._program.draws else contexts[:1]
        hidden = contexts[0].key("noise", contexts[0].member, step)
        self._program.begin([noise.key(ctx, step) for ctx in drawing], step, hidden)

    def _each(
        self, wave: Sequence[RoundTask], contexts: Sequence[Context], settings: Sequence[Settings], step: int, size: int
    ) -> tuple[Inputs, Tensor]:
        """A batch for each member, augmented in Python."""
        each = []
        for task, context, own in zip(wave, contexts, settings, strict=True):
            key = context.key("noise", context.member, step)
            # For augmentation that draws from the global generator.
            seed_global(key, self._device)
            each.append(self._batches.at(step, task.seed, task.member, key, size, own.augment))
        inputs = tuple(torch.stack(same) for same in zip(*(own for own, _ in each), strict=True))
        return inputs, torch.stack([targets for _, targets in each])

    def _place(self, batch: Batch, size: int) -> None:
        """Put a batch where the step of this size reads it: a captured step always reads the same memory."""
        inputs, targets = batch
        held = self._read.get(size)
        tensors = None if held is None else (*held[0], held[1])
        forms = [(x.shape, x.dtype) for x in (*inputs, targets)]
        if tensors is None or size not in self._graphs or [(x.shape, x.dtype) for x in tensors] != forms:
            self._read[size] = batch
            self._graphs.pop(size, None)
            return
        for own, x in zip(tensors, (*inputs, targets), strict=True):
            own.copy_(x)

    def _gathered(self, size: int) -> None:
        """A step on the next examples."""
        if self._batches.streamed:
            stored, targets = self._read[size]
            shared = self._batches.shared or self._program.members == 1
            self._step(self._batches.prepared(stored, shared=shared), targets, shared=shared)
            return
        span = torch.arange(size, device=self._device) + self._start
        index = self._index.index_select(1, span)
        shared = len(index) == 1
        inputs, targets = self._batches.take(index[0] if shared else index)
        self._step(inputs, targets, shared=shared)
        self._start.add_(size)

    def _step(self, inputs: Inputs, targets: Tensor, *, shared: bool) -> None:
        losses, done = self._program.step(inputs, targets, shared=shared)
        self._losses.index_copy_(1, self._column, losses.to(self._losses.dtype).unsqueeze(1))
        if self._measure is not None:
            parts = [of * self._program.measure(self._measure, out, own, shared=shared) for out, own, of in done]
            whole = sum(parts[1:], parts[0]).detach().to(self._measured.dtype)
            self._measured.index_copy_(1, self._column, whole.unsqueeze(1))
        self._column.add_(1)
        self._program.count()

    def _may_capture(self) -> bool:
        """Whether steps of this round may be captured; drops outdated graphs."""
        if not self._program.tuning.capture:
            return False
        signature = repr(self._program.signature)
        if signature != self._captured_with:
            self._graphs.clear()
            self._captured_with = signature
            self._refused = ""
        reason = self._program.uncapturable if self._batches.gathers else "augmentation draws in Python"
        return not self._refused and not self._refuse(reason)

    def _refuse(self, reason: str | None) -> bool:
        """Stop capturing if a reason is given, and log it once; returns whether one is given."""
        if reason and reason not in self._logged:
            log.info("training steps are not captured as a graph: %s", reason)
            self._logged.add(reason)
        self._refused = reason or ""
        return bool(reason)

    def _captured(self, size: int) -> bool:
        """Whether a graph for steps of this size exists; captures it if possible."""
        if size in self._graphs or self._refused:
            return size in self._graphs
        if repr(self._program.signature) != self._captured_with:
            return not self._refuse("the network or the optimizer changes a Python value at every step")
        faults = dict(self._program.faults)
        try:
            replay = capture(partial(self._gathered, size), self._device)
            errors = [fault for member, fault in self._program.faults.items() if member not in faults]
        except Exception as error:  # noqa: BLE001 (the step then runs without a graph)
            errors = [error]
        if errors:
            # New faults are the capture's, not the members': for example, a metric reads a value.
            self._program.set_faults(faults)
            return not self._refuse(f"{type(errors[0]).__name__}: {errors[0]}".splitlines()[0])
        self._graphs[size] = replay
        return True

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Run steps in a separate stream on an accelerator: the default stream cannot be captured."""
        if self._device == "cpu":
            yield
            return
        self._stream = self._stream or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)
