"""The engine of a run, the only impure code around the decisions: due rounds become tasks, outcomes become events.

`ask` and `tell` are the whole interface; `driving` connects them to an executor. All state is a fold of the stored log,
so a resumed run takes the same path as a new one.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from pbt.core.ages import Ages
from pbt.core.checkpoint import FoldedLog
from pbt.core.events import FINISHED, LOST, Ended, Event, Failed
from pbt.core.fold import apply, sign_of, signs_of
from pbt.core.laws import LogLaws
from pbt.core.needs import check_series
from pbt.core.population import Member, StateRef, Stored, View, by_score
from pbt.core.resize import resized
from pbt.core.strategy import Proposal, Strategy
from pbt.errors import (
    CorruptError,
    DiskError,
    ExampleError,
    InfrastructureError,
    PopulationLostError,
    TaskError,
    UsageError,
    WorkerError,
    original,
)
from pbt.executors.base import Failure, Outcome, Report, RoundTask
from pbt.runs.collector import uncollected
from pbt.runs.folding import CheckpointWriter, fold_log
from pbt.runs.inherited_memory import continuing_from_log
from pbt.runs.log_entries import decided_events, event_of, first_events, notes_of, other_scores
from pbt.space import HParams, Space
from pbt.store.base import NewEntry, Store

log = logging.getLogger("pbt")

FATAL = {
    "refused": TaskError,
    "corrupt": CorruptError,
    "disk": DiskError,
    "data": ExampleError,
    "device": WorkerError,
    "memory": InfrastructureError,
}
"""Failures that stop the run with this error and leave it unchanged; they are not a member's fault.

`refused`: no member can be trained in the chosen way. A mistake in one member's round is that member's failure.
"""
LOST_DEVICE = "; resume the run: no finished round is lost; the executor 'processes' replaces such a worker by itself"


class Observer:
    """Observes a run from inside; every method is optional. An exception in it ends the run, which can be resumed."""

    def on_start(self, engine: "Engine") -> None:
        """The run starts or resumes; `engine.view` contains everything logged so far."""

    def on_outcome(self, engine: "Engine", outcome: Outcome) -> None:
        """A member's round returned; it is not logged yet."""

    def on_commit(self, engine: "Engine", events: Sequence[Event]) -> None:
        """These events are durable, and `engine.view` contains them."""

    def on_end(self, engine: "Engine") -> None:
        """The run is finished."""

    def close(self) -> None:
        """Release files and threads; called last, also after an interruption or error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """The settings of a run that its decisions depend on.

    Raises:
        UsageError: No members, no rounds, more initial points than members, or a number that is not an integer.
    """

    space: Space
    strategy: Strategy
    population: int
    rounds: int
    seed: int
    initial: Sequence[HParams] = ()

    def __post_init__(self) -> None:
        for name in ("population", "rounds", "seed"):
            if type(getattr(self, name)) is not int:
                raise UsageError(f"expected {name} to be a whole number, got {getattr(self, name)!r}")
        if self.population < 1:
            raise UsageError(f"expected a population of at least 1 member, got {self.population}")
        if self.rounds < 1:
            raise UsageError(f"expected at least 1 round, got {self.rounds}")
        if len(self.initial) > self.population:
            raise UsageError(
                f"expected at most {self.population} initial points, one per member, got {len(self.initial)}"
            )


class Engine:
    """A run in progress: call `ask` for tasks and `tell` with their outcomes until `finished`.

    Args:
        course: The settings of the run.
        store: Its store. An existing log is continued; a finished run with more rounds now takes the decisions that
            it had withheld.
        first: The strategy's first members, if known already; only a new run needs them.

    Raises:
        PopulationLostError: According to the log every member failed.
    """

    def __init__(self, course: RunSpec, store: Store, first: Proposal | None = None) -> None:
        self.course = course
        self.store = store
        self._in_flight: dict[int, RoundTask] = {}
        self._wave: dict[int, tuple[RoundTask, Outcome]] = {}
        self._budget = self._steps_asked() if course.strategy.mode == "async" else None
        ages = Ages() if getattr(course.strategy, "by_age", False) else None
        objective = store.meta.get("objective", "maximize")
        empty = View(
            seed=course.seed,
            space=course.space,
            sign=sign_of(objective),
            signs=signs_of(objective),
            lookback=course.strategy.lookback,
            ages=ages,
        )
        self._checkpoints = CheckpointWriter(store)
        self._is_whole = True
        """Whether the fold contains exactly the log; False while events are being written."""
        self.view, self.standings = fold_log(store, empty)
        self._continuing: Callable[[], AbstractContextManager[None]] = nullcontext
        if self.view.members:
            self._continuing = partial(continuing_from_log, course.strategy)
        self._due = self._open(self.view)
        if not self.view.members:
            if first is None:
                first = course.strategy.begin(self.view, course.population, course.initial)
            self._commit(first_events(first, self.view))
        elif self.view.ended == LOST:
            raise self._lost()
        elif not self._open(self.view):
            self._commit(self._follow(self.view)[0])
        self._sweep()

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return not self._due

    def founder(self, member: Member) -> int:
        """The initial member from which a member of the current view descends."""
        return self.standings.founder(member.id, member.state)

    def history(self) -> list[Event]:
        """The whole log.

        Raises:
            CorruptError: An event before the checkpoint from which the run continues cannot have happened.
        """
        events = self.store.events()
        LogLaws(self.view.space).check(events)
        return events

    def stop(self, why: str) -> list[Event]:
        """Log that the run ends here, with its next rounds open; returns the events, none if it has ended already."""
        if self.finished or self.view.ended is not None:
            return []
        events: list[Event] = [Ended(round=self.view.round, why=why)]
        self._commit(events)
        return events

    def resize(self, population: int) -> None:
        """Log the births or retirements after which the population has this many members.

        Raises:
            UsageError: No round is left to train.
        """
        if self.finished:
            raise UsageError("population: the run has no round left that another population could train; add rounds")
        self._commit(resized(self.view, self.course.strategy, population, self._has_left))
        self._sweep()

    def save_checkpoint(self) -> None:
        """Save the fold of the log, from which readers and the next start continue."""
        if self._is_whole:
            self._checkpoints.save(FoldedLog(self.view, self.standings))

    def ask(self) -> list[RoundTask]:
        """The tasks that can start now; each is returned once."""
        if self.course.strategy.mode == "sync" and self._in_flight:
            return []  # a wave is handed out whole; the next one is due when it is complete
        taken = self._in_flight.keys() | self._wave.keys()
        tasks = [self._task(member) for member in self._due if member.id not in taken]
        self._in_flight.update((task.member, task) for task in tasks)
        return tasks

    def tell(self, outcomes: Iterable[Outcome]) -> list[Event]:
        """Take outcomes; returns the events that became durable, none while a wave is incomplete.

        Raises:
            TaskError: No member can be trained in this way; the log is unchanged.
            CorruptError: A stored state is damaged; the log is unchanged.
            DiskError: A state cannot be written; the log is unchanged.
            WorkerError: A device can no longer be used; the log is unchanged.
            InfrastructureError: The machine has too little memory; the log is unchanged.
            PopulationLostError: Every member failed.
        """
        for outcome in outcomes:
            task = self._in_flight.get(outcome.member)
            if task is None or task.round != outcome.round:
                self.store.note("dropped", member=outcome.member, round=outcome.round, attempt=outcome.attempt)
                continue
            if isinstance(outcome, Failure) and outcome.cause in FATAL:
                remedy = LOST_DEVICE if outcome.cause == "device" else ""
                raise FATAL[outcome.cause](outcome.message + remedy) from original(outcome.traceback)
            del self._in_flight[outcome.member]
            self._wave[outcome.member] = task, outcome
        if self.course.strategy.mode == "sync":
            if self._in_flight or not self._wave:
                return []
            self._know_scores()
            return self._settle(list(self._wave))
        if not self._know_scores():
            return []
        # In asynchronous mode each member is decided on with the reports before its own and no later ones.
        return [event for member in list(self._wave) for event in self._settle([member])]

    @uncollected()
    def _settle(self, members: Sequence[int]) -> list[Event]:
        """Log the outcomes of these members' rounds and the decisions that follow, in one transaction."""
        # Sorted by member, so that the log of a synchronous run does not depend on the order of arrival.
        wave = self._alike([self._wave.pop(member) for member in sorted(members)])
        if self.view.round == 0:
            check_series(self.course.strategy, [len(one.series) for _, one in wave if isinstance(one, Report)])
        reports = [event_of(task, outcome) for task, outcome in wave]
        following, after = self._follow(apply(self.view, reports))
        events = reports + following
        stored = {StateRef(o.member, o.round): o.stored for _, o in wave if isinstance(o, Report)}
        self._commit(events, stored, [note for _, outcome in wave for note in notes_of(outcome)], after)
        if self.view.ended == LOST:
            raise self._lost()
        self._sweep()
        if self._is_whole:
            self._checkpoints.consider(FoldedLog(self.view, self.standings))
        return events

    def _know_scores(self) -> bool:
        """Whether the number of scores per report is known: that of the first logged report, or of most waiting ones.

        The first reports wait until two agree, so that one member's mistake does not fail all others; a single score is
        accepted at once if the members are ranked by score.
        """
        numbers = [len(outcome.scores) for _, outcome in self._wave.values() if isinstance(outcome, Report)]
        if self.standings.scores == 0 and numbers and self.view.signs:
            self.standings.scores = len(self.view.signs)
        elif self.standings.scores == 0 and numbers:
            most = max(numbers, key=numbers.count)
            expected = most == 1 and getattr(self.course.strategy, "rank", by_score) is by_score
            if self._in_flight and not expected and numbers.count(most) == 1:
                return False
            self.standings.scores = most
        return True

    def _alike(self, wave: list[tuple[RoundTask, Outcome]]) -> list[tuple[RoundTask, Outcome]]:
        """The wave, with members failed whose number of scores differs from the run's."""
        return [
            (task, other_scores(outcome, self.standings.scores, listed=bool(self.view.signs)))
            if isinstance(outcome, Report) and len(outcome.scores) != self.standings.scores
            else (task, outcome)
            for task, outcome in wave
        ]

    def _follow(self, view: View) -> tuple[list[Event], View]:
        """The events that follow from a view (decisions where due, or the end), and the view after them."""
        if view.population and all(member.status == "failed" for member in view.population):
            lost = [Ended(round=view.round, why=LOST)]
            return [*lost], apply(view, lost)
        events: list[Event] = []
        now = view
        ready = [m for m in view.members if m.status != "retired" and m.opened == m.round and self._has_left(m)]
        if self.course.strategy.mode == "sync":
            waves = [ready] if ready and not self._open(view) else []
        else:
            waves = [[member] for member in ready]
        for wave in waves:
            # In asynchronous mode the first failure waits until a member has a score: there is no donor before.
            if self.course.strategy.mode == "sync" or wave[0].status != "failed" or now.ranking:
                with self._continuing():
                    proposal = self.course.strategy.decide(now, wave)
                decided = decided_events(proposal, now, wave)
                events += decided
                now = apply(now, decided)
        if not self._open(now) and not (view.ended and not events):
            ended = [Ended(round=view.round, why=FINISHED)]
            events += ended
            now = apply(now, ended)
        return events, now

    def _open(self, view: View) -> list[Member]:
        """The members with an open round: waiting for a worker, or in training."""
        return [m for m in view.members if m.status == "live" and m.round < m.opened and self._has_left(m)]

    def _has_left(self, member: Member) -> bool:
        """Whether the member has rounds left to train.

        In synchronous mode rounds are counted. In asynchronous mode the steps of the state are: a member that copies an
        older state has less left, one that copies a younger state more.
        """
        if self._budget is None:
            return max(member.opened, member.round + 1) <= self.course.rounds
        return member.step < self._budget

    def _steps_asked(self) -> int:
        """Steps of a state after all rounds."""
        step = 0
        for _ in range(self.course.rounds):
            step = self.course.strategy.next_ready(step)
        return step

    def _task(self, member: Member) -> RoundTask:
        stored = None if member.state is None else self.store.stored(member.state)
        ready = self.course.strategy.next_ready(member.step)
        return RoundTask(
            member=member.id,
            round=member.opened,
            start=member.state,
            digest=None if stored is None else stored.digest,
            blob=None if stored is None else stored.blob,
            hparams=member.hparams,
            first_step=member.step,
            steps=(ready if self._budget is None else min(ready, self._budget)) - member.step,
            seed=self.course.seed,
            founder=self.founder(member),
            changed=self._changed(member),
        )

    def _changed(self, member: Member) -> frozenset[str]:
        before = self.standings.before.get(member.id)
        if before is None:
            return frozenset()
        return frozenset(name for name, value in member.hparams.items() if before.get(name) != value)

    def _commit(
        self,
        events: Sequence[Event],
        stored: Mapping[StateRef, Stored] | None = None,
        notes: Sequence[NewEntry] = (),
        after: View | None = None,
    ) -> None:
        if events:
            # An interrupt may fall between the lines; a fold that lacks events must not be saved.
            self._is_whole = False
            self.store.commit(events, stored or {}, notes)
            self.standings.take(events)
            self.view = apply(self.view, events) if after is None else after
            # Cached: this is needed after every outcome, and a scan of all members is slow from a thousand on.
            self._due = self._open(self.view)
            self._is_whole = True

    def _sweep(self) -> None:
        """Delete the states that no member, the best, the strategy or the last two rounds need."""
        kept = [member for member in self.view.members if member.status != "retired"]
        keep = {ref for member in kept for ref in self.standings.recent.get(member.id, ())}
        keep.update(member.state for member in kept if member.state is not None)
        with self._continuing():
            keep |= self.course.strategy.retain(self.view)
        if self.view.best is not None:
            keep.add(self.view.best.state)
        self.standings.forget(keep | {member.state for member in self.view.members if member.status == "retired"})
        self.store.sweep(keep)

    def _lost(self) -> PopulationLostError:
        """The error for a lost population, with the traceback of the first failure as its cause."""
        first = next(event for event in self.history() if isinstance(event, Failed))
        error = PopulationLostError(
            f"{LOST}; the first was member {first.member} in round {first.round}: {first.message}"
        )
        traces = [
            str(entry.details.get("traceback", ""))
            for entry in self.store.journal("failure")
            if (entry.details.get("member"), entry.details.get("round")) == (first.member, first.round)
        ]
        error.__cause__ = original("".join(traces[:1]))
        return error
