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
from pbt.errors import CorruptError, DiskError, PBTError, TaskError, nearest
from pbt.executors.base import Failure, Outcome, Report, Share, State, States, Task
from pbt.executors.base_values import chosen_groups, is_number, rebase, same
from pbt.executors.base_values import plain as plain_number
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
    founder: int | None = None
    """The member whose birth began the lineage of the state; None: this member's own."""
    hparams: HParams = field(default_factory=dict)
    """The hyperparameters of the round."""
    checked: set[str] = field(default_factory=set, repr=False, compare=False)
    """Names of hyperparameters that `apply` and `in_effect` found in effect."""

    def key(self, *parts: Key) -> int:
        """A seed for any generator: the same for all members, whatever the round, unless the parts say otherwise."""
        return seed_of(self.seed, "task", *parts)

    @property
    def init_key(self) -> int:
        """The seed of everything that is drawn while a member's parts are built: one for a whole lineage.

        So a random projection that no state holds stays the one that the weights were trained with.
        """
        return self.key("init", self.member if self.founder is None else self.founder)

    def rng(self, *parts: Key) -> Rng:
        """A plain generator under that key."""
        return Rng(self.seed, "task", *parts)

    def apply(self, optimizer: Any, *, schedulers: Any = (), group: int | str | None = None, **settings: Any) -> None:
        """Make values take effect on an optimizer, after its state was loaded, and read them back.

        Each value is the base value of a setting: the one that the optimizer would be built with, before a scheduler
        changes it. Parameter groups keep their ratios, a group at 0 stays at 0, schedulers keep their phase; where the
        value is the one that the loaded state was trained with, nothing is touched.

        ```python
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 100)
        if state is not None:
            optimizer.load_state_dict(state["optimizer"])
            scheduler.load_state_dict(state["scheduler"])
        ctx.apply(optimizer, schedulers=scheduler, lr=hparams["lr"])
        ```

        Args:
            optimizer: Any `torch.optim.Optimizer`.
            schedulers: The learning-rate scheduler of this optimizer, or a sequence of them.
            group: One parameter group, by its number or by its entry `name`; None: all.
            **settings: Values by the name of the setting: `lr=0.1`, `betas=(0.9, 0.99)`.

        Raises:
            TaskError: The optimizer has no such setting; a scheduler was left out; a value that has the name of a
                hyperparameter is another one; or a value is not in effect after it was set.
        """
        given = list(schedulers) if isinstance(schedulers, (list, tuple)) else [schedulers]
        chosen = chosen_groups(optimizer, group, "ctx.apply")
        if not given and "lr" in settings and any("initial_lr" in optimizer.param_groups[i] for i in chosen):
            raise TaskError(
                "ctx.apply(lr=...): the optimizer has a learning-rate scheduler, which would undo the value; pass "
                "it, as in ctx.apply(optimizer, schedulers=scheduler, lr=...)"
            )
        for setting, value in settings.items():
            if setting in self.hparams and not same(self.hparams[setting], value):
                raise _not_in_effect(setting, self.hparams[setting], value, "ctx.apply sets it to")
            parts = enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
            for index, part in parts:
                what = f"ctx.apply({setting}=...)"
                written = rebase(optimizer, setting, part, index=index, groups=chosen, schedulers=given, what=what)
                for number in written:
                    if not same(part, found := number.in_effect()):
                        raise _not_in_effect(setting, part, found, "it is")
                self._found(setting, part)

    def _found(self, setting: str, value: Any) -> None:
        """Record the hyperparameters that this value is."""
        if setting in self.hparams:
            self.checked.add(setting)
        elif is_number(value):
            self.checked.update(name for name, own in self.hparams.items() if is_number(own) and own == value)

    def in_effect(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """State which hyperparameters are in effect; each is compared with the value that was decided on.

        For settings that `apply` cannot reach: `ctx.in_effect(lr=trainer.learning_rate)`, from any framework.

        Args:
            values: Values by the name of the hyperparameter, for names that are no Python names.
            **more: Further values by name.

        Raises:
            TaskError: A name is no hyperparameter of this round, or its value is another one.
        """
        for name, value in {**(values or {}), **more}.items():
            if name not in self.hparams:
                raise TaskError(f"ctx.in_effect: '{name}' is no hyperparameter{nearest(name, self.hparams)}")
            found = plain_number(value)
            if not same(self.hparams[name], found):
                raise _not_in_effect(name, self.hparams[name], found, "it is")
            self.checked.add(name)


def _not_in_effect(name: str, wanted: Any, found: Any, how: str) -> TaskError:
    return TaskError(f"the hyperparameter '{name}' should be {wanted!r} after a hand-over, but {how} {found!r}")


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
        unread = sorted(task.hparams.keys() - context.checked)
        return report(task, measured, stored, time.monotonic() - started, unread)


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
        founder=task.founder,
        hparams=task.hparams,
    )


def report(task: Task, measured: Measured, stored: Stored, seconds: float, unread: Sequence[str] = ()) -> Report:
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
        unread=tuple(unread),
    )


def failure(task: Task, cause: str, message: str, trace: str = "") -> Failure:
    """The outcome of a round that gave nothing."""
    return Failure(
        member=task.member, round=task.round, attempt=task.attempt, cause=cause, message=message, traceback=trace
    )
