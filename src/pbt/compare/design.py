"""What a comparison trains: which plans, on which seeds, in which directories, and what each of them is made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pbt.core.population import View
from pbt.errors import UsageError, nearest
from pbt.problems import PROBLEMS, load
from pbt.runs.catalog import load_experiment
from pbt.runs.experiment import Experiment
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.space import Space
from pbt.strategies.registry import PLANS, named, named_again

FRESH = 1_000_000
"""Added to the seed of a run that follows what another one found, so that it is not trained on the seed of that one."""


def experiment_of(task: str) -> Experiment:
    """The experiment of a shipped problem, or of a file: `FILE.py:object`, which is executed.

    Raises:
        UsageError: There is no such problem, file or object.
    """
    if task in PROBLEMS:
        return load(task)
    if ":" not in task and not task.endswith(".py"):
        raise UsageError(
            f"expected FILE.py:object, as in task.py:experiment, or the name of a problem, got '{task}'"
            f"{nearest(task, PROBLEMS)}"
        )
    return load_experiment(task)


def planned(experiment: Experiment, name: str, of: Run | None = None) -> Experiment:
    """The same experiment under a plan by name.

    Args:
        experiment: The experiment.
        name: One of `pbt.strategies.registry.PLANS`.
        of: A finished run, for the plans that follow what it found.

    Raises:
        UsageError: There is no such plan, or it does not fit.
    """
    # What a run found is followed from the first step on: values to start with would come before it.
    initial = experiment.initial if of is None else ()
    return replace(experiment, plan=named(name, experiment.plan, of), initial=initial)


def planned_again(experiment: Experiment, meta: Mapping[str, Any]) -> Experiment:
    """The experiment of a run that goes on, under the plan that it was begun with by name; itself, if by none.

    Args:
        experiment: As its file says.
        meta: What was recorded when the run was begun.

    Raises:
        UsageError: The run names no plan of ours.
    """
    name = (meta.get("application") or {}).get("plan")
    return (
        experiment if name is None else replace(experiment, plan=named_again(str(name), experiment.plan, meta["plan"]))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of a comparison."""

    plan: str
    seed: int
    """The seed that it is paired by, and that its directory is named by."""
    path: Path
    source: Path | None = None
    """The run that its plan is made of."""

    @property
    def trained_with(self) -> int:
        """The seed it is trained with."""
        return self.seed if self.source is None else FRESH + self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A comparison before it begins.

    Args:
        task: A shipped problem, or `FILE.py:object`.
        asked: Names of plans, without repetition; the first is what the others are compared with.
        seeds: What each plan is trained on.
        out: The directory of everything.
        population: Members; None: as the experiment says.
        rounds: Rounds per member; None: as the experiment says.

    Raises:
        UsageError: No plans or no seeds, a plan named twice, or a seed out of range.
    """

    task: str
    asked: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    population: int | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        twice = [name for name in self.asked if self.asked.count(name) > 1]
        if twice:
            raise UsageError(f"plans: expected each once, got '{twice[0]}' twice")
        if not self.asked or not self.seeds:
            raise UsageError("expected at least one plan and one seed, got none")
        if min(self.seeds) < 0 or max(self.seeds) >= FRESH:
            raise UsageError(f"seeds: expected 0 to {FRESH - 1}, got {min(self.seeds)} to {max(self.seeds)}")

    @property
    def plans(self) -> list[str]:
        """The plans that are asked for, and those whose runs they need."""
        return list(dict.fromkeys([*self.asked, *filter(None, map(self.source, self.asked))]))

    def source(self, plan: str) -> str:
        """The plan whose run a plan is made of; empty: none."""
        entry = PLANS.get(plan)
        source = "" if entry is None else entry.source
        # An experiment with an algorithm of its own: it is that one's schedules that are asked about.
        return "own" if source == "pbt" and "own" in self.asked and "pbt" not in self.asked else source

    def trials(self) -> list[Trial]:
        """Every run, a source before what needs it."""
        order = sorted(self.plans, key=lambda plan: bool(self.source(plan)))
        return [self._trial(plan, seed) for seed in self.seeds for plan in order]

    def experiment(self) -> Experiment:
        """The experiment under its own plan, trained in one process with one thread."""
        own = experiment_of(self.task)
        wanted = own.placement
        # Where results may differ by the executor, all runs of a comparison have the same one.
        kept = wanted.executor == "vectorized" or callable(wanted.executor)
        executor = wanted.executor if kept else "inline"
        place = Placement(
            executor=executor,
            workers=1,
            threads=1,
            members_per_program=wanted.members_per_program,
            device=wanted.device,
        )
        population = own.population if self.population is None else self.population
        rounds = own.rounds if self.rounds is None else self.rounds
        return replace(own, population=population, rounds=rounds, placement=place)

    def check(self, experiment: Experiment) -> None:
        """Find what can be found before anything is trained.

        Raises:
            UsageError: There is no such plan, or it cannot lead this experiment.
        """
        for plan in self.plans:
            if self.source(plan):
                continue
            try:
                strategy = planned(experiment, plan).plan
                view = View(seed=min(self.seeds), space=Space(experiment.space))
                strategy.begin(view, experiment.population, experiment.initial)
            except UsageError as error:
                raise UsageError(f"plan {plan}: {error}") from error

    def made(self, experiment: Experiment, trial: Trial) -> Experiment:
        """What a trial trains; its source is finished.

        Args:
            experiment: As `experiment` gives it.
            trial: One of `trials`.
        """
        of = None if trial.source is None else Run.open(trial.source)
        return replace(planned(experiment, trial.plan, of), seed=trial.trained_with)

    def _trial(self, plan: str, seed: int) -> Trial:
        source = self.source(plan)
        return Trial(
            plan=plan,
            seed=seed,
            path=self._path(plan, seed),
            source=self._path(source, seed) if source else None,
        )

    def _path(self, plan: str, seed: int) -> Path:
        return self.out / plan / f"seed-{seed}"


def next_trial(waiting: Iterable[Trial], finished: set[Path]) -> Trial | None:
    """The first one that can be begun."""
    return next((trial for trial in waiting if trial.source is None or trial.source in finished), None)
