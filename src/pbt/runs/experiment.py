"""The front door: `run`, from a task and a space to a trained population, and the `Experiment` record behind it."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from pbt.core.describe import Difference, describe, difference, qualified_name
from pbt.core.fold import sign_of, signs_of
from pbt.core.needs import check_needs
from pbt.core.population import View
from pbt.core.resize import check_resizable
from pbt.core.strategy import Plan, Strategy
from pbt.domains import DomainBase
from pbt.errors import UsageError, nearest
from pbt.executors.cluster_data import hold
from pbt.executors.fingerprint import recording
from pbt.executors.transport import check_guarded
from pbt.executors.worker import Objective, RecordsData, Task, TrainFunction, WorkerSpec
from pbt.runs.advice import FounderAdvice, LevelAdvice, UnreadAdvice, cautions, never_evolves
from pbt.runs.auto_placement import choose
from pbt.runs.callbacks import Callback, Callbacks
from pbt.runs.cleanup import CleanupOnRefusal
from pbt.runs.disk_space import Disk
from pbt.runs.display import display_of
from pbt.runs.driving import drive
from pbt.runs.engine import Engine, Observer, RunSpec
from pbt.runs.log_entries import births_of
from pbt.runs.placement import ExecutorName, Placement, PlacementFields, ResolvedPlacement
from pbt.runs.preflight import check_devices, check_placed, check_population, check_task
from pbt.runs.rehearsal import rehearse
from pbt.runs.results import Run
from pbt.runs.resume import check_same, check_same_data, existing_run, record_change, warn_of_changes
from pbt.runs.stopping import StopLike, Stopper
from pbt.runs.task_forms import AnyTask, trainable
from pbt.space import HParams, Space
from pbt.store.base import Store
from pbt.store.event_rows import from_json, to_json
from pbt.store.layout import LOGS, check_vacant
from pbt.store.memory import MemoryStore
from pbt.store.sqlite import RunStore
from pbt.values import plain

log = logging.getLogger("pbt")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The definition of a run, without its run directory.

    Args:
        task: A function `(hparams, state, steps, ctx) -> (state, metrics)`; a `pbt.pytorch.SupervisedTask`; a
            `pbt.Command`; or an object with `bind`, `build`, `train` and `evaluate` (`pbt.pytorch.Buildable`).
        space: Domains by hyperparameter name.
        plan: The algorithm; any `Strategy`.
        population: Number of members, at least 1.
        rounds: Rounds per member, at least 1.
        seed: Seed of all random draws.
        initial: Hyperparameters of the first members; those of the others are sampled.
        objective: `"maximize"` or `"minimize"` the score returned by the task; for a task that returns several
            `scores`, a list with one for each, as for `run`.
        placement: Where it is trained.
        callbacks: Hooks for events of the run; see docs/callbacks.md.
        note: The data in a few words, with its version or digest; recorded with the run and shown with its tables. A
            resumed run must have the same note. Default: none.

    Raises:
        UsageError: An invalid value.
        SpaceError: An invalid space.
    """

    task: AnyTask
    space: Mapping[str, DomainBase]
    plan: Strategy = field(default_factory=Plan)
    population: int = 10
    rounds: int = 10
    seed: int = 0
    initial: Sequence[HParams] = ()
    objective: Objective | Sequence[Objective] = "maximize"
    placement: Placement = field(default_factory=Placement)
    callbacks: Sequence[Callback] = ()
    note: str = ""

    def __post_init__(self) -> None:
        each = [self.objective] if isinstance(self.objective, str) else list(self.objective)
        if not each or not all(one in ("maximize", "minimize") for one in each):
            raise UsageError(
                f"expected objective 'maximize' or 'minimize', or a list of one for each score, got {self.objective!r}"
            )
        if not isinstance(self.placement, Placement):
            raise UsageError(f"expected placement to be a Placement or the name of an executor, got {self.placement!r}")
        object.__setattr__(self, "space", Space(self.space))
        for name in ("population", "rounds", "seed"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        initial = [{name: plain(value) for name, value in hparams.items()} for hparams in self.initial]
        object.__setattr__(self, "initial", initial)

    def run(  # noqa: PLR0913 (as the function `run`, all by name)
        self,
        run_dir: str | Path | None = None,
        *,
        resume: bool = False,
        observers: Sequence[Observer] = (),
        callbacks: Sequence[Callback] = (),
        application: Mapping[str, Any] | None = None,
        changed_plan: bool = False,
        changed_population: bool = False,
        progress: bool | None = None,
        stop: StopLike = None,
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
            changed_population: Resume with another number of members, as for `run`.
            progress: Show progress. Default: in a notebook, unless `observers` are given.
            stop: When the run ends before its last round; it can be resumed. Default: never.

        Raises:
            RunExistsError: The directory is not empty, and `resume` is False.
            UsageError: The run cannot be started; nothing was written.
            PopulationLostError: Every member failed.
        """
        check_guarded()
        stopper = Stopper(stop)
        train = trainable(self.task)
        watchers = [*self.callbacks, *callbacks]
        Callbacks(watchers)  # validates them before anything is written
        check_population(self.population)
        check_devices(train, self.placement.devices_per_member)
        spec = self._spec(resume=resume)
        empty = View(seed=self.seed, space=spec.space, sign=sign_of(self.objective), lookback=self.plan.lookback)
        empty = replace(empty, signs=signs_of(self.objective))
        check_needs(self.plan, spec.space, self.population, self.task)
        first = self.plan.begin(empty, self.population, self.initial)
        first = replace(first, starts=births_of(first, empty))
        rehearse(spec, empty, first.starts)
        found = existing_run(Path(run_dir)) if resume and run_dir is not None else None
        hold(self.placement.cluster.held)
        remote = self.placement.executor == "ray"
        digests: dict[str, str] | None = {} if remote else None
        # Workers can refuse a task, when the run exists already.
        new = run_dir if found is None else None
        cleanup = nullcontext() if new is None else CleanupOnRefusal(Path(new))
        if found is None:
            births = [birth.hparams for birth in first.starts]
            with recording(digests):
                store, resolved, why = self._begin(train, births, run_dir, application)
        else:
            store = found
        with cleanup, store:
            if found is not None:
                with recording(digests):
                    resolved = self._resume(store, changed_plan=changed_plan, changed_population=changed_population)
            elif why:
                log.info("executor %s", why)
                store.note("executor", why=why)
            watch = list(observers)
            if watchers:
                # Counted before the engine adds the decisions that a finished run had withheld.
                watch.append(Callbacks(watchers, known=store.last()))
            watch += [FounderAdvice(), LevelAdvice(), UnreadAdvice(), Disk()]
            if idle := never_evolves(spec):
                log.warning("%s", idle)
            for note in cautions(spec) if found is None else ():
                log.info("note: %s", note)
            engine = Engine(spec, store, first)
            if store.meta["population"] != self.population:
                self._resize(engine)
            worker = WorkerSpec(
                task=train,
                states=store.states,
                threads=resolved.threads,
                logs=None if store.path is None else store.path.absolute() / LOGS,
                fingerprint=digests or {},
            ).on(resolved.devices[0])
            with display_of(progress, self.placement, otherwise=not observers) as shown:
                watch = watch if shown is None else [*watch, shown]
                drive(engine, resolved.open(worker), watch, stopper.reason)
            if store.path is None:
                return Run(store, task=train)
        return Run.open(store.path, train)

    def _resize(self, engine: Engine) -> None:
        """Change the population of a resumed run, and record it once the log has the change."""
        store, before = engine.store, engine.store.meta["population"]
        engine.resize(self.population)
        log.warning("%s: resumed with %d members instead of %d", store.path, self.population, before)
        store.update_meta(population=self.population)
        store.note("changed_population", before=before, now=self.population)

    def _spec(self, *, resume: bool) -> RunSpec:
        return RunSpec(
            space=Space(self.space),
            strategy=self.plan,
            population=self.population,
            rounds=self.rounds,
            seed=self.seed,
            # Of a population that was reduced there may be fewer members than initial points.
            initial=self.initial[: self.population] if resume else self.initial,
        )

    def identity(self) -> dict[str, Any]:
        """The values that make two runs the same experiment, in the form in which they are recorded."""
        own = {
            "seed": self.seed,
            "population": self.population,
            "objective": self.objective if isinstance(self.objective, str) else list(self.objective),
            "space": Space(self.space).to_dict(),
            "constraint": describe(Space(self.space).constraint),
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

    def _begin(
        self,
        train: TrainFunction | Task,
        births: Sequence[HParams],
        run_dir: str | Path | None,
        application: Mapping[str, Any] | None,
    ) -> tuple[Store, ResolvedPlacement, str]:
        """The store of a new run, made after all checks that need no training, its placement and the reason for it."""
        data = check_task(train, births, Space(self.space), sent=self.placement.executor == "processes")
        if run_dir is not None:
            check_vacant(Path(run_dir))
        choice = choose(self.placement, train, births)
        resolved = choice.placement.resolve(self.population)
        check_placed(train, resolved)
        meta = {
            **self.identity(),
            "rounds": self.rounds,
            "task": qualified_name(self.task) if callable(self.task) else type(self.task).__qualname__,
            "application": ({"note": self.note} if self.note else {}) | dict(application or {}),
            "place": self._place(resolved),
            **({"data": dict(data)} if data else {}),
        }
        store = MemoryStore(meta) if run_dir is None else RunStore.create(Path(run_dir), meta)
        return store, resolved, choice.why

    def _resume(self, store: Store, *, changed_plan: bool, changed_population: bool) -> ResolvedPlacement:
        """Check and record that a run resumes with this experiment; returns its placement.

        Raises:
            UsageError: The recorded run is another experiment.
        """
        meta = store.meta
        changes = self.differences(meta)
        if changed_population and changes.pop("population", None) is not None:
            check_resizable(self.plan, meta["population"])
        change = check_same(store, changes, changed_plan=changed_plan)
        if self.rounds < meta["rounds"]:
            raise UsageError(
                f"{store.path}: expected at least the {meta['rounds']} rounds that this run was started with, got "
                f"rounds={self.rounds}"
            )
        train: Any = trainable(self.task)
        if "data" in meta and isinstance(train, RecordsData):
            check_same_data(store, train.data_record())
        if change is not None:
            record_change(store, change, self.identity()["plan"])
        if self.rounds > meta["rounds"]:
            store.update_meta(rounds=self.rounds)
        resolved = self.placement.resumed(meta["place"]).resolve(self.population)
        check_placed(train, resolved)
        warn_of_changes(store, self._place(resolved))
        return resolved

    def _place(self, resolved: ResolvedPlacement) -> dict[str, Any]:
        """All that the last bits of results depend on, as plain values."""
        precision = getattr(self.task, "precision", None)
        return {**resolved.record(), **({"precision": precision} if isinstance(precision, str) else {})}


def run(  # noqa: PLR0913 (the front door: one flat call, all by name)
    task: AnyTask,
    space: Mapping[str, DomainBase],
    *,
    plan: Strategy | None = None,
    population: int = 10,
    rounds: int = 10,
    seed: int = 0,
    initial: Sequence[HParams] = (),
    objective: Objective | Sequence[Objective] = "maximize",
    placement: Placement | ExecutorName = "inline",
    run_dir: str | Path | None = None,
    resume: bool = False,
    observers: Sequence[Observer] = (),
    callbacks: Sequence[Callback] = (),
    changed_plan: bool = False,
    changed_population: bool = False,
    progress: bool | None = None,
    stop: StopLike = None,
    **fields: Unpack[PlacementFields],
) -> Run:
    """Train a population; returns the run with its best network and the hyperparameter schedule that made it.

    Args:
        task: A function `(hparams, state, steps, ctx) -> (state, metrics)`; a `pbt.pytorch.SupervisedTask`; a
            `pbt.Command`; or an object with `bind`, `build`, `train` and `evaluate` (`pbt.pytorch.Buildable`).
        space: Domains by hyperparameter name.
        plan: The algorithm; any `Strategy`. Default: `Plan()`.
        population: Number of members, at least 1.
        rounds: Rounds per member, at least 1.
        seed: Seed of all random draws.
        initial: Hyperparameters of the first members; those of the others are sampled.
        objective: `"maximize"` or `"minimize"` the score returned by the task. A task that returns several `scores`
            gets a list with one for each, as `["maximize", "minimize"]` for accuracy and latency; the first score
            chooses `run.best`, and `Plan(rank=pareto())` selects by all of them.
        placement: Where it is trained: a `Placement`, or the name of an executor: `"inline"`, `"processes"`,
            `"vectorized"`, `"ray"` or `"auto"`.
        run_dir: Directory in which the run is kept; None: in memory only.
        resume: Continue the run in the directory, or start one; more `rounds` than before extend it.
        observers: Internal observers; an exception in an observer ends the run.
        callbacks: Hooks for events of the run; an exception in a callback does not end the run.
        changed_plan: Resume with a plan that differs from the recorded one; each difference is logged.
        changed_population: Resume with another `population` than the recorded one. New members copy the state of one of
            the better half and explore; the worst leave. Births and retirements are logged.
        progress: Show progress: a live table on a terminal or in a notebook, a line per round elsewhere. Default: in a
            notebook only.
        stop: When the run ends before its last round: `pbt.Stop(score=..., seconds=..., patience=...)`, a function of
            the `View` that returns whether to stop or the reason, or a list of these. Resumable. Default: never.
        **fields: Fields of the placement, as `executor="processes", workers=4`.

    Raises:
        UsageError: The run cannot be started; nothing was written.
        RunExistsError: The run directory is not empty, and `resume` is False.
        PopulationLostError: Every member failed.
    """
    known = {*inspect.signature(run).parameters, *PlacementFields.__annotations__} - {"fields"}
    for name in fields:
        if name not in known:
            raise UsageError(f"pbt.run: unexpected argument '{name}'{nearest(name, known)}")
    experiment = Experiment(
        task=task,
        space=space,
        plan=plan or Plan(),
        population=population,
        rounds=rounds,
        seed=seed,
        initial=initial,
        objective=objective,
        placement=Placement.of(placement, fields),
    )
    return experiment.run(
        run_dir,
        resume=resume,
        observers=observers,
        callbacks=callbacks,
        changed_plan=changed_plan,
        changed_population=changed_population,
        progress=progress,
        stop=stop,
    )
