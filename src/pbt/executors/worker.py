"""Workers: they open the user's task once and train one round at a time.

Every executor uses these classes, so that a round is the same wherever it runs.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from pbt.core.population import StateRef, Stored
from pbt.core.rng import seed_of
from pbt.domains import Domain
from pbt.errors import CorruptError, DiskError, ExampleError, PBTError, StateError, WorkerError
from pbt.executors.base import Failure, Incident, Outcome, Report, RoundTask, State, States, TaskBatch
from pbt.executors.context import Context as Context  # noqa: PLC0414 (part of a task's form)
from pbt.executors.devices import device_lost, lost_text, memory_short, memory_text, need_of, out_of_memory
from pbt.executors.fingerprint import Fingerprint
from pbt.executors.metrics import Metrics as Metrics  # noqa: PLC0414 (part of a task's form)
from pbt.executors.metrics import MetricsError, TaskMetrics, pair_of, settle, writable
from pbt.executors.metrics import Objective as Objective  # noqa: PLC0414 (part of a task's form)
from pbt.executors.recorder import PointRecorder
from pbt.executors.seeding import seeded, sown, use_threads
from pbt.executors.source_lines import SourceLine, is_interrupt, metrics_line, users_line
from pbt.space import HParams
from pbt.store.durable import REMEDY
from pbt.store.folder import Workspace
from pbt.store.live import LiveFile
from pbt.store.points import Points

TrainFunction = Callable[[HParams, State, int, Context], tuple[State, Metrics]]
"""`(hparams, state, steps, ctx) -> (state, metrics)`: train `state` (None: a new one) for that many steps.

`metrics` is the score, or a mapping with `score` (or `scores`), optionally `series`, and numbers to be reported.
"""


@runtime_checkable
class Task(Protocol):
    """A task that is opened once per worker, on its device, before the first round."""

    def trainer(self, device: str, threads: int) -> TrainFunction:
        """The function that trains rounds on this device."""

    def check(self, hparams: HParams) -> None:
        """Raise TaskError unless each of these values has an effect; called once, before the start."""


@runtime_checkable
class ChecksData(Protocol):
    """A task whose data can be checked before the start."""

    def check_data(self, members: int, space: Mapping[str, Domain]) -> Mapping[str, Any] | None:
        """Raise TaskError if this many members with values from this space cannot be trained and compared.

        Returns:
            What a run records of the data, by split and field; None: nothing.
        """


@runtime_checkable
class RecordsData(Protocol):
    """A task whose data is compared with that of the run when it is resumed."""

    def data_record(self) -> Mapping[str, Any]:
        """What a run records of the data, by split and field; a differing `sample` is a warning, others are refused."""


@runtime_checkable
class RestoresModel(Protocol):
    """A task that makes a model from a state."""

    def restored(self, hparams: HParams, state: State) -> Any:
        """The model of a state with its hyperparameters; a network is in evaluation mode, on the CPU."""


@runtime_checkable
class ChecksDevice(Protocol):
    """A task that needs something of its device."""

    def check_device(self, device: str) -> None:
        """Raise TaskError if members cannot be trained on this device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """The specification of a worker; picklable if the task is."""

    task: TrainFunction | Task
    states: States
    device: str = "cpu"
    devices: tuple[str, ...] = ()
    """All devices of a round, if it has several."""
    threads: int = 1
    logs: Path | None = None
    """The folder for logs of programs that a task runs; None: the run has no directory."""
    fingerprint: Fingerprint = field(default_factory=dict)
    """The driver's digests of the data, with which workers on other machines are compared."""

    def on(self, devices: str) -> Self:
        """This worker on other devices, joined by commas."""
        every = tuple(devices.split(","))
        return replace(self, device=every[0], devices=every)

    def shares(self, tasks: Sequence[RoundTask]) -> list[TaskBatch]:
        """Group tasks into the batches that a worker trains at once: one task each."""
        return [(task,) for task in tasks]

    def open(self) -> "Worker":
        """A worker, ready for its first round."""
        task = self.task
        if not isinstance(task, Task):
            return MemberWorker(self, task)
        # Data drawn or split when the task is opened are the same in every worker.
        with seeded(seed_of("open"), self.device):
            return MemberWorker(self, task.trainer(self.device, self.threads))


class Worker(Protocol):
    """The interface of a worker, independent of its process."""

    def run(self, share: TaskBatch) -> list[Outcome]:
        """Train, score and store one round per task; errors in a round are returned, never raised."""


@runtime_checkable
class HasIncidents(Protocol):
    """A worker that reports changes of how it trains."""

    def incidents(self) -> list[Incident]:
        """The incidents since the last call."""


def incidents_of(worker: Worker) -> list[Incident]:
    """The incidents that a worker reports since the last call."""
    return worker.incidents() if isinstance(worker, HasIncidents) else []


@runtime_checkable
class KeepsStates(Protocol):
    """A train function that keeps states on its device for the next holders that train there."""

    def recall(self, digest: str) -> State | None:
        """A copy of a kept state, equal to the stored one; None: it is not kept."""

    def keep(self, digest: str) -> None:
        """Keep the state of the last round, which was stored under this digest."""

    def forget(self) -> bool:
        """Free the memory of all kept states; returns whether there were any."""


class MemberWorker:
    """Trains one task at a time."""

    def __init__(self, setup: WorkerSpec, train: TrainFunction) -> None:
        self._setup = setup
        self._train = train
        given: Any = train
        self._keeper: KeepsStates | None = given if isinstance(given, KeepsStates) else None
        self._workspaces, self._live = setup.states.workspaces, setup.states.live

    def run(self, share: TaskBatch) -> list[Outcome]:
        """Train, score and store the rounds one after another."""
        return [self._run(task) for task in share]

    def _run(self, task: RoundTask) -> Outcome:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._once(task)
            except WorkerError as error:
                # A program killed from outside is like a worker that died: its round runs again, with the same bits.
                lost = failure(task, "worker", f"{error}, {attempt} times")
        return lost

    def _once(self, task: RoundTask) -> Outcome:
        started = time.monotonic()
        recorder = PointRecorder(None if self._live is None else LiveFile(self._live, task.member, task.round))
        workspace = Workspace(self._workspaces)
        try:
            use_threads(self._setup.threads)
            with workspace:
                state = None
                if task.start is not None:
                    state = self._state(task.start, task.digest or "", task.blob)
                context = context_of(task, self._setup, workspace, recorder)
                with sown(seed_of(task.seed, "round", task.member, task.round), self._setup.device):
                    returned = self._train(dict(task.hparams), state, task.steps, context)
                state, metrics = pair_of(returned)
                measured = settle(metrics)
                stored = self._setup.states.put(StateRef(task.member, task.round), state)
                if self._keeper is not None:
                    self._keeper.keep(stored.digest)
        except WorkerError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a failed member is data)
            if workspace.disk_is_full and not isinstance(error, DiskError):
                error = full_disk(error)
            if device_lost(error):
                return lost(task, self._setup.device, error)
            failed = replace(blame(task, error, self._setup.task), points=recorder.close())
            short = out_of_memory(error)
        else:
            unread = sorted(task.hparams.keys() - context.checked)
            return report(task, measured, stored, time.monotonic() - started, unread, recorder.close())
        # Without the kept states there may be enough memory. They are gone then, so that it is tried once.
        return self._once(task) if short and self._keeper is not None and self._keeper.forget() else failed

    def _state(self, ref: StateRef, digest: str, blob: bytes | None) -> State:
        kept = None if self._keeper is None else self._keeper.recall(digest)
        return self._setup.states.get(ref, digest, blob) if kept is None else kept


def full_disk(error: BaseException) -> DiskError:
    """The error for a round that ended because a disk was full."""
    full = DiskError(f"the disk is full: {error_text(error)[0]}; {REMEDY}")
    full.__cause__ = error
    return full


def blame(task: RoundTask, error: BaseException, users: Any = None) -> Failure:
    """The failure of a member whose round raised an exception.

    Args:
        task: The round.
        error: The exception.
        users: The user's task, to be named if the traceback contains no line of it.

    Raises:
        KeyboardInterrupt: The exception stems from an interrupt, which is not a member's failure.
    """
    if is_interrupt(error):
        raise KeyboardInterrupt from error
    message, trace = error_text(error)
    source = users_line(error.__traceback__)
    if memory_short(error):
        # It stops the run: with this population on this machine any member can be the one that meets it.
        return failure(task, "memory", memory_text(error), trace, source)
    if out_of_memory(error):
        message = f"a member does not fit into the memory of the device ({need_of(error)}); {LESS_MEMORY}"
    if source is None and isinstance(error, (MetricsError, StateError)):
        # Raised after the task had returned, so the traceback contains no line of it.
        source, trace = metrics_line(users), ""
    return failure(task, cause_of(error), message, trace, source)


def lost(task: RoundTask, device: str, error: BaseException) -> Failure:
    """The outcome of a round whose device can no longer be used in this process."""
    message = (
        f"{lost_text(device, error)}; resume the run: no finished round is lost; 'processes' replaces such a worker"
    )
    return failure(task, "device", message, error_text(error)[1], users_line(error.__traceback__))


def cause_of(error: BaseException) -> str:
    """`Failure.cause` of an exception in a member's round; damage, a full disk and bad data are not its fault."""
    for kind, cause in (
        (CorruptError, "corrupt"),
        (DiskError, "disk"),
        (ExampleError, "data"),
        (MetricsError, "score"),
        (StateError, "state"),
    ):
        if isinstance(error, kind):
            return cause
    return "exception"


def fatal_cause(error: PBTError) -> str:
    """`Failure.cause` of an error that is not a member's; the engine ends the run with its message."""
    cause = cause_of(error)
    return cause if cause in ("corrupt", "disk", "data") else "refused"


def error_text(error: BaseException) -> tuple[str, str]:
    """The message of an exception and its traceback, even if formatting them raises."""
    kind = type(error).__name__
    try:
        text = str(error) if isinstance(error, PBTError) else f"{kind}: {error}"
        return writable(text), writable("".join(traceback.format_exception(error)))
    except Exception as another:  # noqa: BLE001 (any error of the exception's own code)
        return f"{kind}, whose text cannot be formatted: {type(another).__name__}", ""


def context_of(
    task: RoundTask, setup: WorkerSpec, workspace: Workspace | None = None, recorder: PointRecorder | None = None
) -> Context:
    """The context of a round."""
    return Context(
        seed=task.seed,
        member=task.member,
        round=task.round,
        first_step=task.first_step,
        device=setup.device,
        devices=setup.devices or (setup.device,),
        threads=setup.threads,
        logs=setup.logs,
        founder=task.founder,
        hparams=task.hparams,
        copied=task.start is not None and task.start.member != task.member,
        changed=task.changed,
        workspace=workspace,
        recorder=recorder or PointRecorder(),
    )


def report(
    task: RoundTask,
    measured: TaskMetrics,
    stored: Stored,
    seconds: float,
    unread: Sequence[str] = (),
    points: Points | None = None,
) -> Report:
    """The outcome of a trained round."""
    return Report(
        member=task.member,
        round=task.round,
        attempt=task.attempt,
        scores=measured.scores,
        series=measured.series,
        reported=measured.reported,
        stored=stored,
        seconds=seconds,
        unread=tuple(unread),
        points=points or {},
    )


def failure(task: RoundTask, cause: str, message: str, trace: str = "", source: SourceLine | None = None) -> Failure:
    """The outcome of a failed round; the message is one line, with the line of the user's code."""
    line = " ".join(message.split())
    if len(line) > _MOST:
        line = f"{line[:_MOST]}..."
    return Failure(
        member=task.member,
        round=task.round,
        attempt=task.attempt,
        cause=cause,
        message=line if source is None else f"{line} ({source})",
        traceback=trace,
        file="" if source is None else source.file,
        line=None if source is None else source.line,
    )


LESS_MEMORY = (
    "choose a smaller batch_size with more accumulate (the same examples per step), precision='bf16', or fewer workers "
    "per device"
)
"""The remedy if a member does not fit into the memory of a device."""
_ATTEMPTS = 3
"""Attempts of a round whose program is killed from outside."""
_MOST = 1000
"""Characters of a message kept in the log; the traceback has all of them."""
