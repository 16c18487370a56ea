"""What came out of a run: the best state, the schedule that made it, the history of everybody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

from pbt.core.events import Event, Failed, Reported
from pbt.core.fold import empty_view, fold
from pbt.core.lineage import Lineage, Link, Schedule
from pbt.core.population import StateRef, View
from pbt.errors import MissingExtraError, RunError, UsageError
from pbt.space import HParams, Space
from pbt.store.base import JournalEntry
from pbt.store.reader import RunReader


class RunSource(Protocol):
    """What results are read from: a store in memory, or the reader of a run directory."""

    @property
    def meta(self) -> dict[str, Any]:
        """What was recorded when the run was created."""

    def events(self) -> list[Event]:
        """The whole log, in order."""

    def journal(self) -> list[JournalEntry]:
        """All notes, in order."""

    def load_state(self, ref: StateRef) -> Any:
        """A fresh copy of a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestMember:
    """The member that validation chose, at the moment it was best."""

    member: int
    round: int
    step: int
    score: float
    """Its validation score, as the task returned it."""
    hparams: HParams
    """Of its last round only: the whole schedule is `Run.best_schedule`."""
    reported: Mapping[str, Any] = field(default_factory=dict)
    """Numbers that had no part in the choice, such as the test accuracy."""
    state: StateRef


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRound:
    """A round of a member that gave no result."""

    member: int
    round: int
    attempt: int
    """How often the round was tried."""
    cause: str
    """`score` (no usable metrics), `state` (it cannot be stored), `exception` or `worker` (lost too often)."""
    message: str
    """One line, with the place in the task's code if there is one."""
    traceback: str = ""
    """Of the exception; empty: none was raised."""
    file: str = ""
    """The task's source file; empty: the failure has no place in it."""
    line: int | None = None


class History(Mapping[str, Sequence[Any]]):
    """Columns of equal length, one row per member and round, in the order of the log."""

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> Sequence[Any]:
        return self._columns[name]

    def __iter__(self) -> Any:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def to_frame(self) -> Any:
        """A polars DataFrame where polars is installed, else a pandas one.

        Raises:
            MissingExtraError: Neither is installed.
        """
        for module in ("polars", "pandas"):
            try:
                library = __import__(module)
            except ImportError:
                continue
            return library.DataFrame(self._columns)
        raise MissingExtraError("History.to_frame()", "frames")


class Run:
    """A run as it is at this moment, read-only.

    Args:
        source: Where it is read from.
        path: Its run directory; None: it is only in memory.
    """

    def __init__(self, source: RunSource, path: Path | None = None) -> None:
        self._source = source
        self.path = path
        self.meta = source.meta
        self.events = source.events()

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The run in this directory, which may still be written.

        Raises:
            RunFormatError: It is no run directory, or one of another version.
        """
        return cls(RunReader(Path(path)), Path(path))

    @cached_property
    def space(self) -> Space:
        """The hyperparameters and their domains."""
        return Space.from_dict(self.meta["space"])

    @cached_property
    def view(self) -> View:
        """The population after the last logged event."""
        return fold(self.events, empty_view(self.meta))

    @cached_property
    def tree(self) -> Lineage:
        """The log, indexed for questions of ancestry."""
        return Lineage(self.events)

    @property
    def best(self) -> BestMember:
        """The best state that validation ever saw.

        Raises:
            RunError: Nothing was scored yet.
        """
        best = self.view.best
        if best is None:
            raise self._nothing_yet()
        return BestMember(
            member=best.state.member,
            round=best.state.round,
            step=best.step,
            score=self.view.sign * best.score,
            hparams=best.hparams,
            reported=self.tree.reports[best.state].reported,
            state=best.state,
        )

    @property
    def best_schedule(self) -> Schedule:
        """The hyperparameters along the ancestry of the best state, from step 0."""
        return self.tree.schedule(self.best.state)

    def schedule(self, member: int | None = None) -> Schedule:
        """The hyperparameters along the ancestry of a member's newest state; None: `best_schedule`.

        Raises:
            UsageError: There is no such member, or it has no state yet.
        """
        last = self.lineage(member)[-1]
        return self.tree.schedule(StateRef(last.member, last.round))

    def lineage(self, member: int | None = None) -> list[Link]:
        """The rounds that made a member's newest state, first to last; None: those of the best state.

        Raises:
            UsageError: There is no such member, or it has no state yet.
        """
        if member is None:
            return self.tree.ancestry(self.best.state)
        refs = [ref for ref in self.tree.reports if ref.member == member]
        if not refs:
            if not self.tree.reports:
                raise self._nothing_yet()
            last = max(there.id for there in self.view.members)
            raise UsageError(f"member {member} is not there or has finished no round; members: 0 .. {last}")
        return self.tree.ancestry(refs[-1])

    def history(self) -> History:
        """Columns: member, round, step, score, kind, donor, each hyperparameter, and every reported number."""
        reports = [event for event in self.events if isinstance(event, Reported)]
        opened = [self.tree.decisions.get((r.member, r.round)) for r in reports]
        trained = [self.tree.hparams(r.member, r.round) for r in reports]
        names = dict.fromkeys(
            name for r in reports for name, value in r.reported.items() if not isinstance(value, (list, dict))
        )
        columns: dict[str, list[Any]] = {
            "member": [r.member for r in reports],
            "round": [r.round for r in reports],
            "step": [r.step for r in reports],
            "score": [r.scores[0] for r in reports],
            "kind": [decision.kind if decision else "born" for decision in opened],
            "donor": [decision.donor if decision else None for decision in opened],
        }
        # A name that is taken gets a longer title, as in the views of the database.
        for name in self.space:
            columns[f"hparams.{name}" if name in columns else name] = [hparams.get(name) for hparams in trained]
        for name in names:
            columns[f"reported.{name}" if name in columns else name] = [r.reported.get(name) for r in reports]
        return History(columns)

    def failures(self) -> list[FailedRound]:
        """The rounds that failed, in the order of the log."""
        notes = {
            (entry.details.get("member"), entry.details.get("round")): entry.details
            for entry in self._source.journal()
            if entry.kind == "failure"
        }
        failed = [event for event in self.events if isinstance(event, Failed)]
        return [_failed_round(event, notes.get((event.member, event.round), {})) for event in failed]

    def load_state(self, ref: StateRef | None = None) -> Any:
        """A fresh copy of a state; None: of the best one.

        Raises:
            KeyError: The state was swept.
            CorruptError: Its bytes are not the bytes that were written.
        """
        return self._source.load_state(self.best.state if ref is None else ref)

    def _nothing_yet(self) -> RunError:
        return RunError(f"{self.path or 'the run'}: no member has finished a round yet")


def _failed_round(event: Failed, note: Mapping[str, Any]) -> FailedRound:
    return FailedRound(
        member=event.member,
        round=event.round,
        attempt=note.get("attempt", 1),
        cause=event.cause,
        message=event.message,
        traceback=str(note.get("traceback", "")),
        file=str(note.get("file", "")),
        line=note.get("line"),
    )
