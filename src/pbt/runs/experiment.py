"""The front door: `run`, from a task and a space to a trained population, and the `Experiment` record behind it."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pbt.core.describe import Difference, difference
from pbt.core.describe import place as place_of
from pbt.core.population import View
from pbt.core.strategy import Plan, Strategy
from pbt.errors import PBTError, RunUnbegunError, TaskError, UsageError
from pbt.executors.ray import Cluster
from pbt.executors.transport import check_sendable
from pbt.executors.worker import ChecksData, Objective, Task, TrainFunction, WorkerSpec
from pbt.runs.advice import FounderAdvice, LevelAdvice, UnreadAdvice, cautions, never_evolves
from pbt.runs.auto_placement import choose
from pbt.runs.callbacks import Callback, Callbacks
from pbt.runs.disk_space import Disk, sized
from pbt.runs.engine import Engine, Observer, RunSpec, drive
from pbt.runs.placement import ExecutorFactory, Placement, ResolvedPlacement
from pbt.runs.rehearsal import rehearse
from pbt.runs.results import Run
from pbt.space import Domain, HParams, Space
from pbt.store.base import Store
from pbt.store.event_rows import from_json, to_json
from pbt.store.layout import DATABASE, check_vacant
from pbt.store.memory import MemoryStore
from pbt.store.sqlite import RunStore

log = logging.getLogger("pbt")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The definition of a run, without its run directory.

    Args:
        task: A function `(hparams, state, steps, ctx) -> (state, metrics)`; a `pbt.pytorch.SupervisedTask`; or an
            object with `bind`, `build`, `train` and `evaluate` (`pbt.pytorch.Buildable`).
        space: Domains by hyperparameter name.
        plan: The algorithm; any `Strategy`.
        population: Number of members, at least 1.
        rounds: Rounds per member, at least 1.
        seed: Seed of all random draws.
        initial: Hyperparameters of the first members; those of the others are sampled.
        objective: `"maximize"` or `"minimize"` the score returned by the task.
        placement: Where it is trained.
        callbacks: Hooks for events of the run; see docs/callbacks.md.
        note: The data in a few words, with its version or digest; recorded with the run and shown with its tables. A
            resumed run must have the same note. Default: none.

    Raises:
        UsageError: An invalid value.
        SpaceError: An invalid space.
    """

    task: Any
    space: Mapping[str, Domain]
    plan: Strategy = field(default_factory=Plan)
    population: int = 10
    rounds: int = 10
    seed: int = 0
    initial: Sequence[HParams] = ()
    objective: Objective = "maximize"
    placement: Placement = field(default_factory=Placement)
    callbacks: Sequence[Callback] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.objective not in ("maximize", "minimize"):
            raise UsageError(f"expected objective 'maximize' or 'minimize', got {self.objective!r}")
        object.__setattr__(self, "space", Space(self.space))

    def run(
        self,
        run_dir: str | Path | None = None,
        *,
        resume: bool = False,
        observers: Sequence[Observer] = (),
        callbacks: Sequence[Callback] = (),
        application: Mapping[str, Any] | None = None,
        changed_plan: bool = False,
    ) -> Run:
        """Train the population to the end.

        Args:
            run_dir: Directory in which the run is kept; None: in memory only.
            resume: Continue the run in the directory, or start one; more `rounds` than before extend it.
            observers: Internal observers; an exception in an observer ends the run.
            callbacks: Callbacks, after those of the experiment; an exception in a callback does not end the run.
            application: Plain values by which a command line finds this experiment again; recorded with the run.
            changed_plan: Resume with a plan that differs from the recorded one; each difference is logged. Default: a
                difference is refused.

        Raises:
            RunExistsError: The directory is not empty, and `resume` is False.
            UsageError: The run cannot be started; nothing was written.
            PopulationLostError: Every member failed.
        """
        train = trainable(self.task)
        Callbacks([*self.callbacks, *callbacks])  # validates them before anything is written
        check_population(self.population)
        rehearse(self._course())
        store = _existing_run(Path(run_dir)) if resume and run_dir is not None else None
        resumed, experiment, why = store is not None, self, ""
        if store is None:
            births = self._check(train)
            if run_dir is not None:
                check_vacant(Path(run_dir))
            choice = choose(self.placement, train, births)
            experiment, why = replace(self, placement=choice.placement), choice.why
            store = experiment._create(run_dir, application)
        with store:
            experiment = experiment._recorded(store, changed_plan=changed_plan) if resumed else experiment
            resolved = experiment.placement.resolve(self.population)
            if resumed:
                _warn_of_changes(store, resolved)
            elif why:
                log.info("executor %s", why)
                store.note("executor", why=why)
            watch = list(observers)
            if self.callbacks or callbacks:
                # Counted before the engine adds the decisions that a finished run had withheld.
                watch.append(Callbacks([*self.callbacks, *callbacks], known=len(store.events())))
            watch += [FounderAdvice(), LevelAdvice(), UnreadAdvice(), Disk()]
            course = experiment._course()
            if idle := never_evolves(course):
                log.warning("%s", idle)
            for note in () if resumed else cautions(course):
                log.info("note: %s", note)
            engine = Engine(course, store)
            setup = WorkerSpec(
                task=train,
                states=store.states,
                device=resolved.devices[0],
                threads=resolved.threads,
            )
            drive(engine, resolved.open(setup), watch)
            if store.path is None:
                return Run(store)
        return Run.open(store.path)

    def _course(self) -> RunSpec:
        return RunSpec(
            space=Space(self.space),
            strategy=self.plan,
            population=self.population,
            rounds=self.rounds,
            seed=self.seed,
            initial=self.initial,
        )

    def _check(self, train: TrainFunction | Task) -> list[HParams]:
        """Check everything that can be checked before writing; returns the initial hyperparameters."""
        course = self._course()
        first = self.plan.begin(View(seed=self.seed, space=course.space), self.population, self.initial).starts
        if isinstance(train, Task):
            _try_out(train, [birth.hparams for birth in first])
        task: Any = train
        if isinstance(task, ChecksData):
            task.check_data(self.population, course.space)
        if self.placement.executor == "processes":
            check_sendable(train)
        return [birth.hparams for birth in first]

    def identity(self) -> dict[str, Any]:
        """The values that make two runs the same experiment, in the form in which they are recorded."""
        own = {
            "seed": self.seed,
            "population": self.population,
            "objective": self.objective,
            "space": Space(self.space).to_dict(),
            "initial": [dict(hparams) for hparams in self.initial],
            "plan": self.plan.describe(),
        }
        return {name: from_json(to_json(value, name)) for name, value in own.items()}

    def differences(self, meta: Mapping[str, Any]) -> dict[str, Difference]:
        """The first difference in each part in which a recorded run is another experiment; empty for the same.

        Args:
            meta: The recorded values of the run.
        """
        found = {}
        for name, value in self.identity().items():
            change = difference(meta.get(name), value, name)
            # Plans are compared up to what earlier versions recorded of them.
            if change is None and name != "plan" and value != meta.get(name):
                change = Difference(name, meta.get(name), value)
            if change is not None:
                found[name] = change
        noted = (meta.get("application") or {}).get("note", "")
        if self.note and noted != self.note:
            found["note"] = Difference("note", noted, self.note)
        return found

    def _create(self, run_dir: str | Path | None, application: Mapping[str, Any] | None) -> Store:
        meta = {
            **self.identity(),
            "rounds": self.rounds,
            "task": place_of(self.task) if callable(self.task) else type(self.task).__qualname__,
            "application": ({"note": self.note} if self.note else {}) | dict(application or {}),
            "place": self.placement.resolve(self.population).record(),
        }
        return MemoryStore(meta) if run_dir is None else RunStore.create(Path(run_dir), meta)

    def _recorded(self, store: Store, *, changed_plan: bool) -> "Experiment":
        """This experiment with the recorded placement, as far as no other is requested.

        Raises:
            UsageError: The recorded run is another experiment.
        """
        meta = store.meta
        changes = self.differences(meta)
        change = changes.pop("plan", None)
        for other in changes.values():
            raise UsageError(_differs(store, other))
        if change is not None and not changed_plan:
            raise UsageError(f"{_differs(store, change)}, or accept the change with changed_plan=True (--changed-plan)")
        if self.rounds < meta["rounds"]:
            raise UsageError(
                f"{store.path}: expected at least the {meta['rounds']} rounds that this run was started with, got "
                f"rounds={self.rounds}"
            )
        if change is not None:
            _record_change(store, change, self.identity()["plan"])
        if self.rounds > meta["rounds"]:
            store.update_meta(rounds=self.rounds)
        return replace(self, placement=self.placement.resumed(meta["place"]))


def run(  # noqa: PLR0913 (the front door: one flat call, all by name)
    task: Any,
    space: Mapping[str, Domain],
    *,
    plan: Strategy | None = None,
    population: int = 10,
    rounds: int = 10,
    seed: int = 0,
    initial: Sequence[HParams] = (),
    objective: Objective = "maximize",
    executor: str | ExecutorFactory = "inline",
    workers: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    address: str | None = None,
    members_per_program: int | None = None,
    cluster: Cluster | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    observers: Sequence[Observer] = (),
    callbacks: Sequence[Callback] = (),
    changed_plan: bool = False,
) -> Run:
    """Train a population; returns the run with its best network and the hyperparameter schedule that made it.

    Args:
        task: A function `(hparams, state, steps, ctx) -> (state, metrics)`; a `pbt.pytorch.SupervisedTask`; or an
            object with `bind`, `build`, `train` and `evaluate` (`pbt.pytorch.Buildable`).
        space: Domains by hyperparameter name.
        plan: The algorithm; any `Strategy`. Default: `Plan()`.
        population: Number of members, at least 1.
        rounds: Rounds per member, at least 1.
        seed: Seed of all random draws.
        initial: Hyperparameters of the first members; those of the others are sampled.
        objective: `"maximize"` or `"minimize"` the score returned by the task.
        executor: `"inline"`, `"processes"`, `"vectorized"`, `"ray"` or `"auto"`; see `Placement`, also for the next
            four.
        workers: Number of workers. Default: as many as there is room for.
        threads: CPU threads per round. Default: the available cores divided over the population.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, or several joined by commas. Default: CUDA if available.
        members_per_program: Maximal number of members in one program, for `"vectorized"` and `"ray"`.
        address: `host:port` of a Ray cluster, or `"auto"`; replaces the address of `cluster`.
        cluster: Settings of Ray, for `executor="ray"`.
        run_dir: Directory in which the run is kept; None: in memory only.
        resume: Continue the run in the directory, or start one; more `rounds` than before extend it.
        observers: Internal observers; an exception in an observer ends the run.
        callbacks: Hooks for events of the run; an exception in a callback does not end the run.
        changed_plan: Resume with a plan that differs from the recorded one; each difference is logged.

    Raises:
        UsageError: The run cannot be started; nothing was written.
        RunExistsError: The run directory is not empty, and `resume` is False.
        PopulationLostError: Every member failed.
    """
    experiment = Experiment(
        task=task,
        space=space,
        plan=plan or Plan(),
        population=population,
        rounds=rounds,
        seed=seed,
        initial=initial,
        objective=objective,
        placement=Placement(
            executor=executor,
            workers=workers,
            threads=threads,
            device=device,
            members_per_program=members_per_program,
            cluster=(cluster or Cluster()).at(address),
        ),
    )
    return experiment.run(run_dir, resume=resume, observers=observers, callbacks=callbacks, changed_plan=changed_plan)


MOST_MEMBERS = 1_000_000
INSIST = "PBT_MAX_POPULATION"
"""Environment variable that raises the bound."""
_MEMBER_BYTES, _ROUND_SECONDS = 4000, 2e-4
"""Measured overhead of a member: memory in bytes, and seconds per round besides training."""


def check_population(population: int) -> None:
    """Reject implausibly large populations.

    Raises:
        UsageError: The population exceeds the bound.
    """
    told = os.environ.get(INSIST, "")
    if population > (int(told) if told.isdecimal() else MOST_MEMBERS):
        raise UsageError(
            f"population: expected at most {MOST_MEMBERS:,} members, got {population:,}, which take about "
            f"{sized(population * _MEMBER_BYTES)} of memory, and {population * _ROUND_SECONDS / 60:,.0f} minutes per "
            f"round besides training; if this is intended, set {INSIST}={population}"
        )


_TRIES = 4
"""Number of members whose values are tried before the start: a task may refuse one combination of values."""


def _try_out(task: Task, births: Sequence[HParams]) -> None:
    """Raise TaskError unless the task can be set up with the values of one of the first members."""
    for i, hparams in enumerate(births[:_TRIES]):
        try:
            task.check(hparams)
        except TaskError as error:
            # An exception in the user's code may be due to these values alone.
            own = error.__cause__ is not None and not isinstance(error.__cause__, PBTError)
            if not own or i == min(_TRIES, len(births)) - 1:
                raise
        else:
            return


def _differs(store: Store, change: Difference) -> str:
    """The error for resuming another experiment; names the one field that differs."""
    if change.field.endswith(".code"):
        rule = change.field.removesuffix(".code")
        return f"{store.path}: this run was started with another {rule}: its code has changed; use the same"
    return (
        f"{store.path}: this run was started with {change.field} = {change.before!r} and cannot be resumed with "
        f"{change.now!r}; use the same, or start another run"
    )


def _record_change(store: Store, change: Difference, plan: Mapping[str, Any]) -> None:
    """Log that the run resumes with another plan than the recorded one."""
    entry = {"field": change.field, "before": change.before, "now": change.now}
    log.warning("%s: resumed with another %s: %r instead of %r", store.path, change.field, change.now, change.before)
    store.update_meta(plan=plan, changed_plan=[*store.meta.get("changed_plan", ()), entry])
    store.note("changed_plan", **entry)


def _existing_run(path: Path) -> Store | None:
    """The run in the directory; None if there is none or its creation was interrupted."""
    if not (path / DATABASE).exists():
        return None
    try:
        return RunStore.open(path)
    except RunUnbegunError:
        return None


def _warn_of_changes(store: Store, resolved: ResolvedPlacement) -> None:
    """Warn of changes that can alter the last bits of a resumed run; they are not refused."""
    recorded, now = store.meta["place"], resolved.record()
    changes = [
        f"{name} {recorded.get(name)} -> {value}"
        for name, value in now.items()
        if name not in ("workers", "need") and recorded.get(name) != value
    ]
    store.note("resumed", changes=changes)
    if changes:
        log.warning("resumed with another placement: results may differ in their last bits (%s)", ", ".join(changes))


def trainable(task: Any) -> TrainFunction | Task:
    """Convert a task to the form that workers take.

    Raises:
        TaskError: It has none of the supported forms.
    """
    if isinstance(task, Task):
        return task
    if all(hasattr(task, name) for name in ("build", "train", "evaluate")):
        from pbt.pytorch.modules import ModuleTask

        if not hasattr(task, "bind"):
            raise TaskError(
                f"{type(task).__name__} needs a `bind` table that maps each hyperparameter to the place of its effect"
            )
        return ModuleTask(task)
    if callable(task):
        train: TrainFunction = task
        return train
    raise TaskError(
        "expected a task: a function (hparams, state, steps, ctx), a SupervisedTask, or an object with "
        f"bind, build, train and evaluate; got {type(task).__name__}"
    )
