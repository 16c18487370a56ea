"""The members in memory, and their rounds: load, train, evaluate, store."""

import gc
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pbt.core.population import StateRef
from pbt.core.rng import seed_of
from pbt.errors import PBTError
from pbt.executors.base import Convolutions, Failure, Incident, Outcome, Report, RoundTask, State, TaskBatch
from pbt.executors.devices import device_lost, memory_short, memory_text, need_of, out_of_memory
from pbt.executors.metrics import Metrics, settle
from pbt.executors.seeding import sown, use_threads
from pbt.executors.source_lines import is_interrupt
from pbt.executors.worker import (
    LESS_MEMORY,
    MemberWorker,
    WorkerSpec,
    context_of,
    failure,
    fatal_cause,
    lost,
    report,
)
from pbt.pytorch.checks import opened
from pbt.pytorch.data import Data, Split
from pbt.pytorch.precision import matrix_products
from pbt.pytorch.sources import ExampleSource
from pbt.pytorch.supervised import SupervisedTask, held_out
from pbt.pytorch.vectorized.evaluation import evaluate
from pbt.pytorch.vectorized.failures import blamed, broken, ended
from pbt.pytorch.vectorized.member_states import Start, fetch, groups_of, state_of
from pbt.pytorch.vectorized.program import Program
from pbt.pytorch.vectorized.settings import HParamReader, Settings
from pbt.pytorch.vectorized.shared import NotShareable
from pbt.pytorch.vectorized.training_steps import TrainingSteps
from pbt.pytorch.vectorized.tuning import Tuning
from pbt.space import HParams
from pbt.store.live import ShareFile
from pbt.text import listed

log = logging.getLogger("pbt")

_NOT_OF_VMAP = (PBTError, torch.OutOfMemoryError, torch.AcceleratorError)
"""Errors that other copies of tensors do not avoid."""


class Population:
    """A worker for a whole wave of members.

    Args:
        setup: The specification of the worker.
        task: The task.
        convolutions: How convolutions run on an accelerator; None: the default.

    Raises:
        TaskError: The training split is empty.
    """

    def __init__(self, setup: WorkerSpec, task: SupervisedTask, convolutions: Convolutions | None = None) -> None:
        self._setup = setup
        self._task = task
        data = opened(task.data)
        self._data = replace(data, train=data.train.to(setup.device))
        self._batches = task.batches(self._data, setup.device)
        self._held_out = held_out(data, setup.device)
        # Once, because this reads the targets.
        self._measured = {name: task.measured(split) for name, split in self._held_out.items()}
        self._reader = HParamReader(task)
        self._tuning = Tuning.of(setup.device).convolving(convolutions)
        self._program: Program | None = None
        self._steps: TrainingSteps | None = None
        self._settings: Sequence[Settings] = ()
        """The settings of the members in the program."""
        self._rows: dict[StateRef, tuple[int, str]] = {}
        """The row and the digest of each state in the program."""
        self._most: int | None = None
        """Maximum number of members that train at once, because more did not fit into memory; None: no limit."""
        self._incidents: list[Incident] = []
        self._apart: frozenset[str] = frozenset()
        """The tensors that are not trained, but that members cannot share."""
        self._shares = False
        """Whether a round has succeeded with the tensors that members share now."""

    @property
    def data(self) -> Data:
        """The data, on the device."""
        validation = self._held_out.get("val", self._data.validation)
        return replace(self._data, validation=validation, test=self._held_out.get("test", self._data.test))

    def run(self, share: TaskBatch) -> list[Outcome]:
        """Train, score and store one round of members with the same first step.

        If they do not fit into the memory of an accelerator, half of them train at a time from then on.
        """
        use_threads(self._setup.threads)
        return [outcome for part in parts_of(share, self._most or len(share)) for outcome in self._fitted(part)]

    def incidents(self) -> list[Incident]:
        """What changed since the last call."""
        incidents, self._incidents = self._incidents, []
        return incidents

    def _fitted(self, share: TaskBatch) -> list[Outcome]:
        first, device = share[0], self._setup.device
        with sown(seed_of(first.seed, "round", first.member, first.round), device):
            outcomes, need = self._run(share)
        if not need:
            return outcomes
        # Graphs and tensors of the failed program are in cycles.
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        if self._most is not None or len(share) == 1:
            count = f"{len(share)} member{'s' if len(share) > 1 else ''}"
            message = (
                f"{count} in one program: not enough memory on '{device}' ({need}); choose fewer members_per_program"
            )
            return [failure(task, "refused", f"{message}, or {LESS_MEMORY}") for task in share]
        self._most = -(-len(share) // 2)
        message = f"not enough memory on '{device}' for {len(share)} members in one program ({need})"
        message = f"{message}: from now on {self._most} train at a time"
        self._incidents.append(Incident(kind="memory", message=message, members_per_program=self._most))
        return self.run(share)

    def _run(self, wave: TaskBatch) -> tuple[list[Outcome], str]:
        """The outcomes of a round; or none, and the memory that it needed."""
        started = time.monotonic()
        starts: list[Start] = []
        outcomes: list[Outcome] = []
        try:
            for task in wave:
                try:
                    starts.append(self._start(task))
                except (Exception, SystemExit) as error:
                    if out_of_memory(error) or device_lost(error):
                        raise
                    outcomes.append(blamed(task, error))
            if not starts:
                return outcomes, ""
            metrics = self._trained(starts)
        except (Exception, SystemExit) as error:
            self._program, self._steps, self._rows = None, None, {}
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            if out_of_memory(error):
                return [], need_of(error)
            return outcomes + self._stopped([start.task for start in starts], error), ""
        seconds = (time.monotonic() - started) / len(starts)
        rows = enumerate(starts)
        return outcomes + [self._outcome(start.task, row, metrics[row], seconds) for row, start in rows], ""

    def _stopped(self, tasks: Sequence[RoundTask], error: BaseException) -> list[Outcome]:
        """The outcomes of rounds whose program failed; a member that fails alone, too, costs only itself."""
        if device_lost(error):
            return [lost(task, self._setup.device, error) for task in tasks]
        if isinstance(error, PBTError):
            return [ended(task, error, fatal_cause(error), str(error)) for task in tasks]
        if memory_short(error) and len(tasks) == 1:
            return [ended(task, error, "memory", memory_text(error)) for task in tasks]
        if len(tasks) == 1:
            worker = MemberWorker(self._setup, self._task.trainer(self._setup.device, self._setup.threads))
            (alone,) = worker.run(tuple(tasks))
            return [alone if isinstance(alone, Failure) else ended(tasks[0], error, "refused", broken(error))]
        outcomes = [outcome for task in tasks for outcome in self._fitted((task,))]
        if all(isinstance(outcome, Report) for outcome in outcomes):
            log.warning("a round was trained one member after the other: %s", broken(error))
        return outcomes

    def _trained(self, starts: Sequence[Start]) -> list[Metrics]:
        """Load and train a wave; again, with fewer shared tensors, if members turn out not to share them."""
        while True:
            try:
                program = self._load(starts)
                with matrix_products(self._task.precision, self._setup.device):
                    metrics = self._train(program, [start.task for start in starts])
                program.shared.check()
            except Exception as error:
                if not self._take_apart(error):
                    raise
                starts = [replace(start, row=None) for start in starts]
            else:
                self._shares = True
                return metrics

    def _take_apart(self, error: Exception) -> bool:
        """After an error, give every member its own copy of the tensors that caused it; False: none did.

        Until a round has succeeded, any error may be one of `vmap`, which changes no shared tensor in place.
        """
        if isinstance(error, NotShareable):
            names, reason = error.names, error.reason
        elif self._program is None or self._shares or isinstance(error, _NOT_OF_VMAP):
            return False
        else:
            names, reason = frozenset(self._program.shared.tensors), "may be changed in place"
        if not names:
            return False
        log.info("each member has its own %s: these are not trained, but %s", listed(sorted(names)), reason)
        self._apart |= names
        self._program, self._rows = None, {}
        return True

    def try_out(
        self, births: Sequence[HParams], steps: int = 1, stacked: Collection[str] | None = None
    ) -> tuple[Callable[..., Any], int]:
        """Prepare training steps of new members for measurements; no state is stored.

        Args:
            births: The hyperparameters of the members.
            steps: Number of steps.
            stacked: As in `StackedNet.configure`.

        Returns:
            A function that runs the steps and may be called repeatedly, with `eager=True` without graphs; and the bytes
            of one member's parameters and buffers.
        """
        wave = trial(births, steps)
        contexts = [context_of(task, self._setup) for task in wave]

        def load() -> Program:
            try:
                program = self._load([self._start(task) for task in wave], stacked)
            except NotShareable as error:
                self._take_apart(error)
                return load()
            program.set_mode(training=True)
            return program

        def run(*, eager: bool = False) -> Any:
            assert self._steps is not None  # noqa: S101 (built with the program)
            try:
                losses = self._steps.run(wave, contexts, self._settings, eager=eager)
                if eager:
                    self.held().shared.check()
            except Exception as error:
                if not self._take_apart(error):
                    raise
                load()
                return run(eager=eager)
            return losses

        return run, load().tensors.nbytes // len(wave)

    def use(self, convolutions: Convolutions | None) -> None:
        """Run convolutions in another way from now on, in a new program."""
        self._tuning = self._tuning.convolving(convolutions)
        self._program, self._rows = None, {}

    @property
    def convolves(self) -> bool:
        """Whether convolutions have several ways here, and the network has some."""
        layers = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        return self._tuning.has_ways and any(isinstance(m, layers) for m in self._reader.stand_in.modules())

    def try_evaluation(self, *, trained: bool = True) -> dict[str, list[float]]:
        """The loss of the members of the last `try_out` on the first batch of each split.

        Args:
            trained: Whether they were trained for a step, so that their optimizers have another mode for it.
        """
        program, found = self.held(), {}
        if trained:
            program.set_mode(training=False)
        for name, split in self._held_out.items():
            first = Split(*split.take(slice(0, self._task.evaluation_batch)))
            found[name] = self._evaluated(program, name, first)["loss"].tolist()
        if trained:
            program.set_mode(training=True)
        return found

    def _start(self, task: RoundTask) -> Start:
        """Find the state of a task, and read its settings."""
        row = self._row_of(task)
        # The state is freed here and fetched again for its row: all states at once would double the program's memory.
        if row is None:
            state = self._fetch(task)
            groups, schedule = groups_of(state), state.get("scheduler")
        else:
            assert self._program is not None  # noqa: S101 (the row is in it)
            groups, schedules = self._program.groups(row), self._program.schedules
            schedule = None if schedules is None else schedules.dump(row)
        return Start(task=task, row=row, settings=self._reader.settle(task.hparams, groups, schedule))

    def _load(self, starts: Sequence[Start], stacked: Collection[str] | None = None) -> Program:
        """Load the states into the rows of a program, in order."""
        program = self._program
        if program is None or program.members != len(starts):
            # Read before the previous program is replaced.
            kept = {i: self._state(start.row) for i, start in enumerate(starts) if start.row is not None}
            rows: list[int | None] = [None] * len(starts)
            program = Program(
                self._task, len(starts), self._setup.device, self._reader.stand_in, self._tuning, apart=self._apart
            )
            self._batches = self._task.batches(self._data, self._setup.device, members=len(starts))
            self._steps = TrainingSteps(self._task, program, self._batches, self._setup.device)
        else:
            kept, rows = {}, [start.row for start in starts]
        self._rows = {}
        program.release()
        program.configure([start.settings for start in starts], stacked=stacked)
        program.gather([i if row is None else row for i, row in enumerate(rows)])
        for i, (start, row) in enumerate(zip(starts, rows, strict=True)):
            if row is None:
                state = kept.pop(i) if i in kept else self._fetch(start.task)
                program.load(i, state)
        program.bind_buffers()
        program.tensors.mark_start()
        self._program, self._settings = program, [start.settings for start in starts]
        return program

    def held(self) -> Program:
        """The program of the members in memory."""
        assert self._program is not None  # noqa: S101 (loaded before)
        return self._program

    def _row_of(self, task: RoundTask) -> int | None:
        """The row of a task's start state; None: not in memory."""
        row, digest = (None, "") if task.start is None else self._rows.get(task.start, (None, ""))
        return row if digest == task.digest else None

    def _fetch(self, task: RoundTask) -> State:
        return fetch(task, self._setup, self._task, self._reader)

    def _state(self, row: int) -> State:
        return state_of(self.held(), row, self._reader)

    def _train(self, program: Program, wave: Sequence[RoundTask]) -> list[Metrics]:
        first = wave[0]
        contexts = [context_of(task, self._setup) for task in wave]
        assert self._steps is not None  # noqa: S101 (built with the program)
        program.set_mode(training=True)
        live = self._setup.states.live
        shown = None if live is None else ShareFile(live, tuple(task.member for task in wave), first.round)
        passed = None if shown is None else shown.write
        losses, measured = (of.cpu() for of in self._steps.run(wave, contexts, self._settings, passed=passed))
        program.set_mode(training=False)
        metrics = {name: self._evaluated(program, name, split) for name, split in self._held_out.items()}
        if "val" in metrics:
            program.schedule_by(metrics["val"]["loss"].tolist())
        program.fetch()
        size = int(self._settings[0].task["batch_size"]) * int(self._settings[0].task["accumulate"])
        return [
            self._task.report(
                losses[i],
                measured[i] if self._task.score in self._task.metrics else None,
                {name: {metric: float(values[i]) for metric, values in of.items()} for name, of in metrics.items()},
                first.first_step,
                self._batches.per_epoch(size),
            )
            for i in range(len(wave))
        ]

    def _evaluated(self, program: Program, name: str, split: ExampleSource) -> dict[str, Tensor]:
        return evaluate(self._task, program, self._measured[name], split, self._setup.device)

    def _outcome(self, task: RoundTask, row: int, metrics: Metrics, seconds: float) -> Outcome:
        """Check the metrics of one member's round, and store its state."""
        assert self._program is not None  # noqa: S101 (trained before)
        if row in self._program.faults:
            return blamed(task, self._program.faults[row])
        try:
            measured = settle(metrics)
            ref = StateRef(task.member, task.round)
            stored = self._setup.states.put(ref, self._state(row))
        except PBTError as error:
            return blamed(task, error)
        self._rows[ref] = row, stored.digest
        return report(task, measured, stored, seconds)


def trial(births: Sequence[HParams], steps: int) -> list[RoundTask]:
    """First rounds of new members."""
    return [
        RoundTask(member=i, round=1, start=None, hparams=hparams, first_step=0, steps=steps, seed=0)
        for i, hparams in enumerate(births)
    ]


def parts_of(wave: Sequence[RoundTask], size: int) -> list[TaskBatch]:
    """The wave in the fewest parts of at most `size` rounds; their sizes differ by at most one."""
    count = -(-len(wave) // size)
    ends = [-(-len(wave) * i // count) for i in range(count + 1)]
    return [tuple(wave[start:end]) for start, end in pairwise(ends)]
