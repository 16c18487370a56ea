"""Replay: train one fresh network along the ancestry of the best state, as a run of its own.

A replay is a population of one that follows the schedule, in the rounds of the ancestors. Each round is trained under
the name of the ancestor that first trained it. All randomness inside a task is keyed by seed, member and step (or
round), so the same seed gives the same weights to the bit, and another seed an independent repetition.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pbt.core.events import Reported
from pbt.core.exploit import never
from pbt.core.explore import follow
from pbt.core.history import RunHistory, TrainedState
from pbt.core.population import StateRef, Stored
from pbt.core.schedule import Schedule, Segment
from pbt.core.strategy import Plan
from pbt.errors import UsageError
from pbt.executors.base import Convolutions, Executor, Incident, Outcome, RoundTask, State, States
from pbt.executors.worker import WorkerSpec
from pbt.runs.engine import Observer
from pbt.runs.experiment import Experiment
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.runs.task_forms import AnyTask
from pbt.space import HParams

ALONE = 0
"""The only member of a replay."""


def replay(  # noqa: PLR0913 (a front door: one flat call, all by name)
    run: Run,
    task: AnyTask,
    *,
    member: int | None = None,
    seed: int | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    placement: Placement | None = None,
    observers: Sequence[Observer] = (),
    application: Mapping[str, Any] | None = None,
) -> Run:
    """Train one fresh network along the schedule of the best one; its last state is `(0, rounds)`.

    Args:
        run: The run, in memory or on disk, finished or not.
        task: The task that it trained.
        member: Follow the ancestry of this member's newest state instead of the best state's.
        seed: Seed of all random draws; None: the run's own, which gives the same weights to the bit if executor,
            threads, device and torch version are the same.
        run_dir: Directory in which the replay is kept; None: in memory only.
        resume: Continue the replay in the directory, or start one.
        placement: Where it is trained; None: as the run was.
        observers: Internal observers.
        application: Plain values by which a command line finds this replay again.

    Raises:
        RunError: No member has finished a round.
        UsageError: The member does not exist, or the replay cannot be started.
        PopulationLostError: Its training failed.
    """
    links = run.lineage(member)
    schedule = _schedule(links)
    seed = run.meta["seed"] if seed is None else seed
    requested = placement_of(run, placement, repeat=seed == run.meta["seed"])
    members_per_program = (run.meta.get("place") or {}).get("members_per_program") or run.meta["population"]
    together = requested.executor == "vectorized"
    past = _past(run.tree, links, members_per_program if together else 1)
    experiment = Experiment(
        task=task,
        space=run.space,
        plan=Plan(exploit=never(), explore=follow(schedule), interval=Cuts(tuple(link.step for link in links))),
        population=1,
        rounds=len(links),
        seed=seed,
        initial=[schedule.at(0)],
        objective=run.meta.get("objective", "maximize"),
        placement=replace(requested, executor=Relived(requested.executor, past, requested.convolutions), workers=1),
    )
    return experiment.run(run_dir, resume=resume, observers=observers, application=application)


def placement_of(run: Run, requested: Placement | None = None, *, repeat: bool = True) -> Placement:
    """The placement of a replay: that of the run, as far as no other is requested.

    Worker processes are left out: one member at a time gives the same bits in this process. One program for a whole
    population is kept only to `repeat` its bits, since it costs as much as the population.

    Raises:
        UsageError: The run used a custom executor, and no other is requested.
    """
    recorded, requested = run.meta.get("place") or {}, requested or Placement(executor="auto")
    executor = requested.executor
    if executor == "auto":
        executor = requested.resumed(recorded).executor
        if executor == "auto":
            raise UsageError(
                f"the run was trained by a custom executor ({recorded.get('executor', 'not recorded')}); "
                "choose where to replay it: inline or vectorized"
            )
        if executor != "vectorized" or not repeat:
            executor = "inline"
    alone = replace(requested, executor="inline").resumed(recorded)
    threads = requested.threads or recorded.get("threads")
    convolutions = requested.convolutions or recorded.get("convolutions")
    return replace(alone, executor=executor, threads=threads, members_per_program=None, convolutions=convolutions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayComparison:
    """A state and its replay, side by side; scores as the task returned them."""

    original: Reported
    replayed: Reported
    rounds: int
    same: int
    """Number of leading rounds whose weights and optimizer state are equal to the bit."""

    @property
    def identical(self) -> bool:
        """Whether every round gave the same bits."""
        return self.same == self.rounds


def compare(run: Run, replayed: Run, member: int | None = None) -> ReplayComparison:
    """Compare the last state of an ancestry with that of its finished replay."""
    links = run.lineage(member)
    pairs = [(link.report, _report(replayed.tree, i)) for i, link in enumerate(links, 1)]
    differ = [i for i, (first, second) in enumerate(pairs) if first.digest != second.digest]
    original, last = pairs[-1]
    return ReplayComparison(
        original=original, replayed=last, rounds=len(pairs), same=differ[0] if differ else len(pairs)
    )


def _report(tree: RunHistory, round_: int) -> Reported:
    report = tree.reports.get(StateRef(ALONE, round_))
    if report is None:
        raise UsageError(f"the replay has not reached round {round_}; resume it")
    return report


def _schedule(links: Sequence[TrainedState]) -> Schedule:
    return Schedule(tuple(Segment(start=x.first_step, stop=x.step, hparams=x.hparams) for x in links))


@dataclass(frozen=True, slots=True)
class Cuts:
    """Ready at the ancestors' round boundaries; after the last one, at every step.

    A task that draws from generators seeded at the start of each round repeats itself only in the same rounds.
    """

    steps: tuple[int, ...]

    def __call__(self, step: int) -> int:
        """The next ready step."""
        return next((cut for cut in self.steps if cut > step), step + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A round of the original run."""

    ref: StateRef
    """Its member and number."""
    wave: Mapping[int, HParams]
    """Members and hyperparameters of the program that trained it, in order; only the member itself if it ran alone."""


def _past(tree: RunHistory, links: Sequence[TrainedState], members_per_program: int) -> tuple[Past, ...]:
    trained: dict[int, list[int]] = defaultdict(list)
    for member, round_ in sorted((*tree.states, *tree.failures)):
        trained[round_].append(member)
    found = []
    for link in links:
        members = trained[link.round]
        first = members.index(link.member) // members_per_program * members_per_program
        wave = {member: tree.hparams(member, link.round) for member in members[first : first + members_per_program]}
        found.append(Past(ref=link.state, wave=wave))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Relived:
    """Executor factory of a replay: wraps another executor and trains every round as its ancestor's.

    Args:
        executor: The wrapped executor, as in `Placement`.
        past: The original rounds.
        convolutions: As in `Placement`.
    """

    executor: Any
    past: Sequence[Past]
    convolutions: Convolutions | None = None

    def __call__(self, setup: WorkerSpec) -> Executor:
        """The executor, not yet started."""
        inner = Placement(
            executor=self.executor,
            workers=1,
            threads=setup.threads,
            device=setup.device,
            convolutions=self.convolutions,
        )
        renamed = replace(setup, states=RenamedStates(setup.states, tuple(past.ref for past in self.past)))
        return RelivingExecutor(inner.resolve(1).open(renamed), self.past)


_EXTRA = 2**32
"""Offset of the ids of members whose outcomes are discarded."""


@dataclass(frozen=True, slots=True)
class RenamedStates:
    """States stored under the replay's names, while workers use the ancestors' names."""

    states: States
    ancestors: tuple[StateRef, ...]

    @property
    def workspaces(self) -> Path | None:
        """The folder for the working folders of rounds."""
        return self.states.workspaces

    @property
    def live(self) -> None:
        """None: the worker's names are not those of the replay."""
        return

    def put(self, ref: StateRef, state: State) -> Stored:
        """Store a state under the replay's name; states of discarded outcomes are not stored."""
        if ref.member >= _EXTRA:
            return Stored(digest="", size=0, blob=b"")
        return self.states.put(_own(self.ancestors, ref), state)

    def get(self, ref: StateRef, digest: str, blob: bytes | None = None) -> State:
        """A fresh copy of a state."""
        return self.states.get(_own(self.ancestors, ref), digest, blob)


def _own(ancestors: Sequence[StateRef], ref: StateRef) -> StateRef:
    return StateRef(ALONE, ancestors.index(ref) + 1)


class RelivingExecutor:
    """Passes each round on under its ancestor's name, and its outcome back under the replay's.

    Args:
        inner: The wrapped executor.
        past: The original rounds.
    """

    def __init__(self, inner: Executor, past: Sequence[Past]) -> None:
        self._inner = inner
        self._past = past
        self._refs = tuple(round_.ref for round_ in past)

    @property
    def slots(self) -> int:
        """One: a replay has one member."""
        return 1

    def submit(self, tasks: Sequence[RoundTask]) -> None:
        """Queue the only task."""
        self._inner.submit([relived for task in tasks for relived in self._relive(task)])

    def wait(self) -> list[Outcome]:
        """Its outcome."""
        while outcomes := self._inner.wait():
            kept = [outcome for outcome in outcomes if outcome.member < _EXTRA]
            if kept:
                return [self._named(outcome) for outcome in kept]
        return []

    def _relive(self, task: RoundTask) -> list[RoundTask]:
        """The task as its ancestor's, at its original position in the wave.

        The last bits of a program of several members depend on their number and on which of their values are equal, so
        the ancestor's weights are trained again beside the others' values.
        """
        past = self._past[task.round - 1]
        start = None if task.start is None else self._refs[task.start.round - 1]
        founder = self._refs[0].member
        relived = replace(task, member=past.ref.member, round=past.ref.round, start=start, founder=founder)
        return [
            relived if member == past.ref.member else replace(relived, member=_EXTRA + member, hparams=hparams)
            for member, hparams in past.wave.items()
        ]

    def _named(self, outcome: Outcome) -> Outcome:
        ref = _own(self._refs, StateRef(outcome.member, outcome.round))
        return replace(outcome, member=ref.member, round=ref.round)

    def incidents(self) -> list[Incident]:
        """Worker incidents since the last call."""
        return self._inner.incidents()

    def close(self) -> None:
        """Stop the wrapped executor."""
        self._inner.close()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)
