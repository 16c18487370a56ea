"""What trains: the user's task, opened once, fed one round at a time.

Every executor drives this same class, so that a round means the same wherever it runs.
"""

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from pbt.core.population import StateRef, Stored
from pbt.core.rng import Key, Rng, seed_of
from pbt.errors import CorruptError, DiskError, PBTError, TaskError
from pbt.executors.base import Failure, Outcome, Report, Share, State, States, Task
from pbt.executors.seeding import seeded, sown, use_threads
from pbt.space import HParams

Objective = Literal["maximize", "minimize"]
Metrics = float | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where and when a round is trained, for the user's code. All randomness can be keyed from here."""

    seed: int
    """The seed of the run."""
    member: int
    round: int
    first_step: int
    """Training steps done before this round."""
    device: str = "cpu"
    threads: int = 1
    """CPU threads this round may use."""

    def key(self, *parts: Key) -> int:
        """A seed for any generator: the same for all members, whatever the round, unless the parts say otherwise."""
        return seed_of(self.seed, "task", *parts)

    def rng(self, *parts: Key) -> Rng:
        """A plain generator under that key."""
        return Rng(self.seed, "task", *parts)


Train = Callable[[HParams, State, int, Context], tuple[State, Metrics]]
"""`(hparams, state, steps, ctx) -> (state, metrics)`: go on from state (None: from the beginning) for that many steps.

`metrics` is the score, or a mapping with `score` (or `scores`), perhaps `series`, and numbers to be reported.
"""


@runtime_checkable
class Trainable(Protocol):
    """A task that wants to be opened: once per worker, on its device, before the first round."""

    def trainer(self, device: str, threads: int) -> Train:
        """What trains rounds there."""

    def check(self, hparams: HParams) -> None:
        """Raise TaskError unless each of these values has an effect. Asked once, before the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything a worker is made of; picklable where the task is."""

    task: Train | Trainable
    states: States
    device: str = "cpu"
    threads: int = 1
    objective: Objective = "maximize"

    def shares(self, tasks: Sequence[Task]) -> list[Share]:
        """What of these tasks a worker trains at once: each by itself."""
        return [(task,) for task in tasks]

    def open(self) -> "Trainer":
        """A worker, ready for its first round."""
        task = self.task
        if not isinstance(task, Trainable):
            return Worker(self, task)
        # Data that a task draws or splits when it is opened are the same in every worker.
        with seeded(seed_of("open"), self.device):
            return Worker(self, task.trainer(self.device, self.threads))


class Trainer(Protocol):
    """What a worker does, in whatever process it lives."""

    def run(self, share: Share) -> list[Outcome]:
        """Train, score and store a round of each; whatever goes wrong in it is returned, never raised."""


class Worker:
    """Trains one task at a time."""

    def __init__(self, setup: Setup, train: Train) -> None:
        self._setup = setup
        self._train = train

    def run(self, share: Share) -> list[Outcome]:
        """Train, score and store one round after the other."""
        return [self._run(task) for task in share]

    def _run(self, task: Task) -> Outcome:
        started = time.monotonic()
        try:
            state = None
            if task.start is not None:
                state = self._setup.states.get(task.start, task.digest or "", task.blob)
            context = context_of(task, self._setup)
            use_threads(self._setup.threads)
            with sown(seed_of(task.seed, "round", task.member, task.round), self._setup.device):
                state, metrics = self._train(dict(task.hparams), state, task.steps, context)
            measured = settle(metrics, self._setup.objective)
            if not all(math.isfinite(score) for score in measured.scores):
                return failure(task, "score", f"the score is not a finite number: {measured.scores}")
            stored = self._setup.states.put(StateRef(task.member, task.round), state)
        except PBTError as error:
            return failure(task, fatal_cause(error), str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a failed member is data)
            return failure(task, "exception", *told(error))
        return report(task, measured, stored, time.monotonic() - started)


def fatal_cause(error: PBTError) -> str:
    """What is not this member's fault alone: the engine ends the run with the message."""
    for kind, cause in ((CorruptError, "corrupt"), (DiskError, "disk")):
        if isinstance(error, kind):
            return cause
    return "refused"


def told(error: BaseException) -> tuple[str, str]:
    """What an error says, and its traceback; an error that cannot be told is one all the same."""
    kind = type(error).__name__
    try:
        return writable(f"{kind}: {error}"), writable(traceback.format_exc())
    except Exception as another:  # noqa: BLE001 (whatever its own code does wrong)
        return f"{kind}, whose text cannot be made: {type(another).__name__}", ""


def writable(text: str) -> str:
    """The text with what no file can hold, as half a character out of a file name, spelled out."""
    return text.encode(errors="backslashreplace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Metrics with their direction settled: higher scores are better."""

    scores: tuple[float, ...]
    series: tuple[float, ...] = ()
    reported: Mapping[str, Any] = field(default_factory=dict)


def settle(metrics: Metrics, objective: Objective) -> Measured:
    """What a task returned, as scores of which higher is better.

    Raises:
        TaskError: There is no score in it, or it is no number.
    """
    values: dict[str, Any] = dict(metrics) if isinstance(metrics, Mapping) else {"score": metrics}
    raw = values.pop("scores", None)
    if raw is None:
        if "score" not in values:
            raise TaskError(f"a task must return metrics with 'score' or 'scores', got {sorted(values)}")
        raw = [values.pop("score")]
    try:
        scores = [float(score) for score in raw]
        series = [float(value) for value in values.pop("series", ())]
    except (TypeError, ValueError) as error:
        raise TaskError(f"a score must be a number, got {raw!r}") from error
    if not scores:
        raise TaskError("a task must return at least one score, got none in 'scores'")
    sign = 1.0 if objective == "maximize" else -1.0
    if objective == "minimize":
        values["objective"] = scores[0] if len(scores) == 1 else scores
    return Measured(
        scores=tuple(sign * score for score in scores),
        series=tuple(sign * value for value in series),
        reported={name: plain(value, name) for name, value in values.items()},
    )


def plain(value: Any, name: str) -> Any:
    """A reported value as numbers, strings and lists of them.

    Raises:
        TaskError: It holds something else.
    """
    if isinstance(value, str):
        return writable(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, name) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return value.tolist()
    raise TaskError(f"the metric '{name}' must be a number, a string or a list of them, got {type(value).__name__}")


def context_of(task: Task, setup: Setup) -> Context:
    """Where and when a round is trained."""
    return Context(
        seed=task.seed,
        member=task.member,
        round=task.round,
        first_step=task.first_step,
        device=setup.device,
        threads=setup.threads,
    )


def report(task: Task, measured: Measured, stored: Stored, seconds: float) -> Report:
    """The outcome of a round that was trained."""
    return Report(
        member=task.member,
        round=task.round,
        attempt=task.attempt,
        scores=measured.scores,
        series=measured.series,
        reported=measured.reported,
        stored=stored,
        seconds=seconds,
    )


def failure(task: Task, cause: str, message: str, trace: str = "") -> Failure:
    """The outcome of a round that gave nothing."""
    return Failure(
        member=task.member, round=task.round, attempt=task.attempt, cause=cause, message=message, traceback=trace
    )
