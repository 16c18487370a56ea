"""Results of a run: its best state, the schedule behind it, and the history of all members."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

from pbt.core.checkpoint import FoldedLog, unfolded
from pbt.core.events import Event, Failed, Reported
from pbt.core.fold import empty_view
from pbt.core.history import RunHistory, TrainedState, ancestry_of, schedule_of
from pbt.core.laws import check_index
from pbt.core.population import Member, StateRef, View
from pbt.core.schedule import Schedule
from pbt.core.standings import Standings
from pbt.errors import RunError, TaskError, UsageError
from pbt.runs.columns import History
from pbt.runs.display import RunPlots, table_of
from pbt.runs.folding import fold_log
from pbt.runs.log_entries import CURVE, points_of
from pbt.space import HParams, Space
from pbt.store.base import Checkpoint, JournalEntry
from pbt.store.reader import RunReader
from pbt.text import cell, scored


class RunSource(Protocol):
    """The source of results: an in-memory store, or the reader of a run directory."""

    @property
    def meta(self) -> dict[str, Any]:
        """The recorded values: seed, space, plan, ..."""

    def last(self) -> int:
        """Id of the last event."""

    def events(self, after: int = 0, until: int | None = None) -> list[Event]:
        """The log after one event, up to and including another, in order."""

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, if it is intact."""

    def journal(self, kind: str | None = None, after: int = 0) -> list[JournalEntry]:
        """The notes of one kind, or all, in order; only those after an id are read."""

    def load_state(self, ref: StateRef) -> Any:
        """A fresh copy of a state."""


class HasState(Protocol):
    """A record that names a state: `BestMember`, `TrainedState`, `Member`."""

    @property
    def state(self) -> StateRef | None:
        """The name of the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestMember:
    """The member with the best validation score, at the round in which it was best."""

    member: int
    round: int
    step: int
    score: float
    """Its validation score, as the task returned it."""
    hparams: HParams
    """Of its last round only; the whole schedule is `Run.best_schedule`."""
    reported: Mapping[str, Any] = field(default_factory=dict)
    """Metrics that had no part in the selection, such as the test accuracy."""
    state: StateRef


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRound:
    """A round of a member without a result."""

    member: int
    round: int
    attempt: int
    """Number of attempts at the round."""
    cause: str
    """`score` (no usable metrics), `state` (it cannot be stored), `exception` or `worker` (too many lost workers)."""
    message: str
    """One line, with the line of the task's code if there is one."""
    traceback: str = ""
    """Of the exception; empty if there was none."""
    file: str = ""
    """The task's source file; empty if unknown."""
    line: int | None = None


class Run:
    """A run at this moment, read-only.

    `view`, `best`, `lineage` and `schedule` cost the same however long the run is, apart from the ancestry itself.
    `events`, `tree` and `history` read the whole log when they are first used.

    Args:
        source: The source of its records.
        path: Its run directory; None: in memory.
        task: The task that it trained, as workers take it; None: unknown, as after `Run.open`.
    """

    def __init__(self, source: RunSource, path: Path | None = None, task: object = None) -> None:
        self._source = source
        self._task = task
        self.path = path
        self.meta = source.meta
        self.num_events = source.last()

    @classmethod
    def open(cls, path: str | Path, task: object = None) -> Self:
        """Open the run in a directory, which may still be in progress.

        Args:
            path: The run directory.
            task: Its task, which `model` needs.

        Raises:
            RunFormatError: Not a run directory, or one of another version.
            TaskError: The task has none of the supported forms.
        """
        if task is not None:
            from pbt.runs.task_forms import trainable  # which imports what trains

            task = trainable(task)
        return cls(RunReader(Path(path)), Path(path), task)

    @cached_property
    def space(self) -> Space:
        """The hyperparameters and their domains."""
        return Space.from_dict(self.meta["space"])

    @cached_property
    def view(self) -> View:
        """The population after the last logged event."""
        return self._folded.view

    @property
    def standings(self) -> Standings:
        """The opening, the own best score and the founder of every member."""
        return self._folded.standings

    @cached_property
    def events(self) -> list[Event]:
        """The whole log, in order.

        Raises:
            CorruptError: An event cannot have happened.
        """
        if isinstance(self._source, RunReader):
            return self._source.history(self.num_events)
        return self._source.events(0, self.num_events)

    @cached_property
    def _folded(self) -> FoldedLog:
        empty = empty_view(self.meta)
        return (
            unfolded(empty).after(self.events) if self.path is None else fold_log(self._source, empty, self.num_events)
        )

    @cached_property
    def tree(self) -> RunHistory:
        """The ancestry of all states, read from the log.

        Raises:
            CorruptError: An event cannot have happened, or the checkpoint belongs to another log.
        """
        history = RunHistory(self.events)
        if self.path is not None:
            check_index(self._folded, history)
        return history

    @property
    def best(self) -> BestMember:
        """The state with the best validation score.

        Raises:
            RunError: No member has finished a round.
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
            reported=self.reports([best.state])[best.state].reported,
            state=best.state,
        )

    @property
    def best_schedule(self) -> Schedule:
        """The hyperparameters along the ancestry of the best state, from step 0."""
        return schedule_of(self.ancestry(self._best_state))

    def schedule(self, member: int | None = None) -> Schedule:
        """The hyperparameters along the ancestry of a member's newest state; None: `best_schedule`.

        Raises:
            UsageError: The member does not exist or has finished no round.
        """
        return schedule_of(self.lineage(member))

    def lineage(self, member: int | None = None) -> list[TrainedState]:
        """The rounds that led to a member's newest state, first to last; None: to the best state.

        Raises:
            UsageError: The member does not exist or has finished no round.
        """
        if member is None:
            return self.ancestry(self._best_state)
        recent = self.standings.recent
        if member not in recent:
            if not recent:
                raise self._nothing_yet()
            last = max(member.id for member in self.view.members)
            raise UsageError(f"member {member} does not exist or has finished no round; members: 0 .. {last}")
        return self.ancestry(recent[member][-1])

    def ancestry(self, ref: StateRef) -> list[TrainedState]:
        """The rounds that led to a state, first to last; without the tree, they are looked up one by one.

        Raises:
            KeyError: No report names the state (in memory, or with the tree).
            CorruptError: The log lacks one of the rounds.
        """
        if isinstance(self._source, RunReader) and "tree" not in self.__dict__:
            return ancestry_of(self._source.path_to(ref))
        return self.tree.ancestry(ref)

    def reports(self, refs: Iterable[StateRef]) -> Mapping[StateRef, Reported]:
        """The reports of these states; without the tree, they are looked up one by one.

        Raises:
            KeyError: No report names one of them (in memory, or with the tree).
            CorruptError: The log lacks one of them.
        """
        if isinstance(self._source, RunReader) and "tree" not in self.__dict__:
            return self._source.reports(refs)
        return {ref: self.tree.states[ref].report for ref in refs}

    def history(self) -> History:
        """One row per member and round.

        Columns: member, round, step, score, kind, donor, each hyperparameter, and every reported value. Further scores
        are `score_2`, `score_3`, ... behind the first.
        """
        states = self.tree.states.values()
        names = dict.fromkeys(
            name for state in states for name, value in state.reported.items() if not isinstance(value, (list, dict))
        )
        columns: dict[str, list[Any]] = {
            "member": [state.member for state in states],
            "round": [state.round for state in states],
            "step": [state.step for state in states],
            "score": [state.score for state in states],
            **{
                f"score_{i + 1}": [state.report.scores[i] for state in states]
                for i in range(1, min((len(state.report.scores) for state in states), default=0))
            },
            "kind": [state.opening.kind for state in states],
            "donor": [state.decision.donor if state.decision else None for state in states],
        }
        # A taken name gets a longer title, as in the views of the database.
        for name in self.space:
            columns[f"hparams.{name}" if name in columns else name] = [state.hparams.get(name) for state in states]
        for name in names:
            columns[f"reported.{name}" if name in columns else name] = [state.reported.get(name) for state in states]
        return History(columns)

    def curves(self) -> History:
        """The numbers that tasks reported with `ctx.report`, one row per point.

        Columns: member, round, step, name, value. Of a round that was repeated, the points of the attempt that counts;
        of a failed round, the points until it failed.
        """
        rows = [
            (member, round_, step, name, value)
            for (member, round_), points in points_of(self._source.journal(CURVE)).items()
            if (member, round_) in self.tree.states or (member, round_) in self.tree.failures
            for name, series in points.items()
            for step, value in series
        ]
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(5)]
        return History(dict(zip(("member", "round", "step", "name", "value"), columns, strict=True)))

    def journal(self) -> list[JournalEntry]:
        """The journal beside the log: times, warnings and incidents, in order."""
        return self._source.journal()

    def failures(self) -> list[FailedRound]:
        """The failed rounds, in log order."""
        notes = {
            (entry.details.get("member"), entry.details.get("round")): entry.details
            for entry in self._source.journal("failure")
        }
        if isinstance(self._source, RunReader) and "tree" not in self.__dict__:
            failed: Iterable[Failed] = self._source.failures(self.num_events)
        else:
            failed = self.tree.failures.values()
        return [_failed_round(event, notes.get((event.member, event.round), {})) for event in failed]

    def load_state(self, ref: StateRef | HasState | None = None) -> Any:
        """A fresh copy of a state.

        Args:
            ref: The name of the state, or a record with one: `run.best`, an item of `run.lineage()`, a member of
                `run.view`. None: the best state.

        Raises:
            UsageError: `ref` is none of these, or a member without a state.
            KeyError: The state was swept.
            CorruptError: Its bytes are not the bytes that were written.
        """
        return self._source.load_state(self._best_state if ref is None else _state_ref(ref))

    def model(self, ref: StateRef | HasState | None = None) -> Any:
        """The model of a state: the one that the task builds, with the trained weights.

        A network is in evaluation mode, on the CPU; with an average (`ema`), its weights are the averaged ones, which
        were scored.

        Args:
            ref: The state, as in `load_state`. None: the best state.

        Raises:
            TaskError: The task is unknown, or makes no model from a state, such as a function.
            UsageError, KeyError, CorruptError: As in `load_state`.
        """
        from pbt.executors.worker import RestoresModel

        if self._task is None:
            raise TaskError("run.model() needs the task: open the run with Run.open(path, task=...)")
        if not isinstance(self._task, RestoresModel):
            raise TaskError(
                f"run.model(): expected a task that builds its model, such as a SupervisedTask, got "
                f"{getattr(self._task, '__name__', type(self._task).__name__)}; run.load_state() returns its state"
            )
        named = self._best_state if ref is None else _state_ref(ref)
        return self._task.restored(self.ancestry(named)[-1].hparams, self.load_state(named))

    @property
    def plot(self) -> RunPlots:
        """The figures: `run.plot.fitness()` and others, which a notebook shows."""
        return RunPlots(self)

    def _repr_html_(self) -> str:
        """The results in short, as notebooks show them."""
        view, rounds = self.view, self.meta.get("rounds")
        done = max((member.round for member in view.members), default=0)
        facts = {"run": "in memory" if self.path is None else str(self.path)}
        facts["population"] = f"{len(view.population)} members, {done} of {rounds} rounds"
        if view.best is not None:
            best = self.best
            facts["best score"] = f"{scored(best.score)} (member {best.member}, round {best.round}, step {best.step})"
            facts.update({f"its {name}": cell(value, name) for name, value in best.hparams.items()})
        return table_of(facts)

    @property
    def _best_state(self) -> StateRef:
        if self.view.best is None:
            raise self._nothing_yet()
        return self.view.best.state

    def _nothing_yet(self) -> RunError:
        return RunError(f"{self.path or 'the run'}: no member has finished a round yet")


def _state_ref(ref: object) -> StateRef:
    named = ref if isinstance(ref, StateRef) else getattr(ref, "state", None)
    if isinstance(named, StateRef):
        return named
    found = f"{type(ref).__name__} without a state" if isinstance(ref, Member) else f"{type(ref).__name__} {ref!r:.80}"
    raise UsageError(
        "run.load_state: expected a StateRef, run.best, an item of run.lineage(), a member with a state, or None, "
        f"got {found}"
    )


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
