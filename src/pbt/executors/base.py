"""What crosses the seam between the engine and whoever trains: tasks one way, reports and failures the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from pbt.core.population import StateRef, Stored
from pbt.space import HParams

State = Any
"""Nested dicts, lists and tuples of tensors, arrays and plain values."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """A part that is neither saved nor handed over: it starts every round as `build` makes it."""

    part: Any


def scratch(part: Any) -> Any:
    """Declare a part of a class-form task that starts every round as `build` makes it, on every executor.

    `build` returns `{"buffer": pbt.scratch(ReplayBuffer())}`; `train` and `evaluate` get the part itself. For what
    has no `state_dict`: data loaders, environments, buffers that are filled anew in each round.

    Args:
        part: Anything.
    """
    return Scratch(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTask:
    """One round of one member, complete: whoever trains it needs nothing else but the user's task itself."""

    member: int
    round: int
    attempt: int = 1
    start: StateRef | None
    """The state to start from; None: freshly built."""
    digest: str | None = None
    """What the content of `start` must hash to."""
    blob: bytes | None = None
    """`start` itself, encoded, where it has no file of its own."""
    hparams: HParams
    first_step: int
    """Training steps that are in `start`."""
    steps: int
    """Training steps to do."""
    seed: int
    """The seed of the run; draws inside the task are keyed by it and by position."""
    founder: int | None = None
    """The member whose birth began the lineage of `start`; None: this member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A round that was trained, scored and stored."""

    member: int
    round: int
    attempt: int
    scores: tuple[float, ...]
    series: tuple[float, ...] = ()
    reported: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for people alone."""
    stored: Stored
    seconds: float = 0.0
    """Time the round took, on a monotonic clock; never read by a decision."""
    unread: tuple[str, ...] = ()
    """Hyperparameters that nothing found in effect: the task reads them by itself, and said nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A round that gave nothing."""

    member: int
    round: int
    attempt: int
    cause: str
    """Why there is no result.

    The member failed: `score` (no usable metrics), `state` (its state cannot be stored), `exception`, `worker` (lost
    too often). The run must stop: `refused` (no member can be trained in this way), `corrupt`, `disk`.
    """
    message: str
    """One line, with the place in the user's code if there is one."""
    traceback: str = ""
    file: str = ""
    """The user's source file; empty: none is known."""
    line: int | None = None


Outcome = Report | Failure
TaskBatch = tuple[RoundTask, ...]
"""Tasks that one worker trains at once: a single one, or what one program holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Something that befell a worker and not its member: for the journal, never for a decision."""

    kind: str
    message: str
    member: int | None = None
    round: int | None = None
    attempt: int | None = None


class States(Protocol):
    """Where a worker puts the state it made and gets the one it starts from."""

    def put(self, ref: StateRef, state: State) -> Stored:
        """Store the state under this name: when this returns it is durable, or complete in `Stored.blob`.

        Raises:
            StateError: The state holds something that cannot be stored; the message names the key.
        """

    def get(self, ref: StateRef, digest: str, blob: bytes | None = None) -> State:
        """A fresh copy of the state, free to be changed, from `blob` if given, else from where `put` left it.

        Raises:
            CorruptError: It is not there, or its content does not hash to `digest`.
        """


class Executor(Protocol):
    """Trains tasks, in any order and as many at once as it has slots. A context manager."""

    @property
    def slots(self) -> int:
        """How many tasks it trains at once."""

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        """Take a wave of tasks. Returns at once."""

    def wait(self) -> list[Outcome]:
        """At least one outcome of what was submitted; blocks until there is one. Empty only if nothing is left."""

    def incidents(self) -> list[Incident]:
        """What befell workers since this was last asked."""

    def close(self) -> None:
        """Stop everything within five seconds. What was not finished is dropped."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
