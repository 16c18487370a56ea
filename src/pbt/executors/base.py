"""The records and protocols between the engine and the executors: tasks in, reports and failures out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, get_args

from pbt.core.population import StateRef, Stored
from pbt.space import HParams
from pbt.store.points import Points

State = Any
"""Nested dicts, lists and tuples of tensors, arrays and plain values."""

Convolutions = Literal["grouped", "separate", "unfolded"]
"""How a program on a GPU runs the convolutions of all members: as one grouped convolution; as a call per member, on
several streams; or as patches and a batched product (im2col)."""
CONVOLUTIONS: Sequence[Convolutions] = get_args(Convolutions)


@dataclass(frozen=True, slots=True)
class Scratch:
    """A part that is neither saved nor handed over; `build` makes it anew in every round."""

    part: Any


def scratch(part: Any) -> Any:
    """Mark a part of a class-form task as rebuilt in every round, on every executor.

    `build` returns `{"buffer": pbt.scratch(ReplayBuffer())}`; `train` and `evaluate` receive the part itself. For parts
    without a `state_dict`: data loaders, environments, buffers that are refilled in each round.

    Args:
        part: Any object.
    """
    return Scratch(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTask:
    """One round of one member, complete: training it needs nothing further but the user's task."""

    member: int
    round: int
    attempt: int = 1
    start: StateRef | None
    """The state to start from; None: freshly built."""
    digest: str | None = None
    """The expected digest of `start`."""
    blob: bytes | None = None
    """`start` itself, encoded, if it has no file of its own."""
    hparams: HParams
    first_step: int
    """Training steps contained in `start`."""
    steps: int
    """Training steps of the round."""
    seed: int
    """The seed of the run; draws inside the task are keyed by it and by their position."""
    founder: int | None = None
    """The founder of the lineage of `start`; None: this member."""
    changed: frozenset[str] = frozenset()
    """Names of the hyperparameters whose value differs from this member's last round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A round that was trained, scored and stored."""

    member: int
    round: int
    attempt: int
    scores: tuple[float, ...]
    series: tuple[float, ...] = ()
    reported: Mapping[str, Any] = field(default_factory=dict)
    """Metrics for people only."""
    stored: Stored
    seconds: float = 0.0
    """Duration of the round on a monotonic clock; no decision reads it."""
    unread: tuple[str, ...] = ()
    """Hyperparameters whose effect was not confirmed: the task reads them itself without reporting them."""
    points: Points = field(default_factory=dict)
    """Numbers reported during the round; no decision reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A round without a result."""

    member: int
    round: int
    attempt: int
    cause: str
    """The kind of failure.

    The member failed: `score` (no usable metrics), `state` (its state cannot be stored), `exception`, `worker` (too
    many lost workers). The run must stop: `refused` (no member can be trained in this way), `corrupt`, `disk`, `data`,
    `memory` (the machine has too little), `device` (the device can no longer be used in this process; a worker process
    is replaced).
    """
    message: str
    """One line, with the line of the user's code if there is one."""
    traceback: str = ""
    file: str = ""
    """The user's source file; empty if unknown."""
    line: int | None = None
    points: Points = field(default_factory=dict)
    """Numbers reported until the member failed."""


Outcome = Report | Failure
TaskBatch = tuple[RoundTask, ...]
"""Tasks that one worker trains at once: a single one, or the members of one program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A worker-level incident (crash, hang) for the journal; never used by a strategy."""

    kind: str
    message: str
    member: int | None = None
    round: int | None = None
    attempt: int | None = None
    members_per_program: int | None = None
    """The number from now on, which replaces the recorded one; None: unchanged."""


class States(Protocol):
    """The storage of states, as a worker uses it."""

    @property
    def workspaces(self) -> Path | None:
        """The folder for the working folders of rounds; None: the system's temporary folder."""

    @property
    def live(self) -> Path | None:
        """The folder for the points of the rounds in progress; None: no reader shares one."""

    def put(self, ref: StateRef, state: State) -> Stored:
        """Store a state under this name; on return it is durable, or complete in `Stored.blob`.

        Raises:
            StateError: It contains a value that cannot be stored; the message names the key.
        """

    def get(self, ref: StateRef, digest: str, blob: bytes | None = None) -> State:
        """A fresh, writable copy of a state, from `blob` if given, else from storage.

        Raises:
            CorruptError: It is missing, or its content does not match `digest`.
        """


class Executor(Protocol):
    """Trains tasks in any order, up to `slots` of them in parallel. A context manager."""

    @property
    def slots(self) -> int:
        """Number of tasks trained in parallel."""

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        """Queue a wave of tasks; returns at once."""

    def wait(self) -> list[Outcome]:
        """Block until there are outcomes, and return them; empty only if no task is left."""

    def incidents(self) -> list[Incident]:
        """Worker incidents since the last call."""

    def close(self) -> None:
        """Stop within five seconds; unfinished tasks are dropped."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
