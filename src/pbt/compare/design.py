"""The design of a comparison: its plans, seeds and directories, and the experiment of each run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pbt.core.population import View
from pbt.errors import UsageError, nearest
from pbt.problems import PROBLEMS, load
from pbt.runs.catalog import opened
from pbt.runs.experiment import Experiment
from pbt.runs.experiment_file import load_experiment
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.space import Space
from pbt.strategies.registry import PLANS, named, named_again
from pbt.tasks.command.config import read_config

FRESH = 1_000_000
"""Added to the seed of a run that follows another run's schedule, so that both are trained on different seeds."""


def experiment_of(task: str) -> Experiment:
    """The experiment of a shipped problem, of a `pbt.toml`, or of a file `FILE.py:object`, which is executed.

    Raises:
        UsageError: The problem, file or object does not exist.
    """
    if task in PROBLEMS:
        return load(task)
    if task.endswith(".toml"):
        return read_config(Path(task))
    if ":" not in task and not task.endswith(".py"):
        raise UsageError(
            "expected FILE.py:object, such as task.py:experiment, a file such as pbt.toml, or the name of a problem, "
            f"got '{task}'{nearest(task, PROBLEMS)}"
        )
    return load_experiment(task)


def planned(experiment: Experiment, name: str, of: Run | None = None) -> Experiment:
    """The experiment under another plan.

    Args:
        experiment: The experiment.
        name: One of `pbt.strategies.registry.PLANS`.
        of: A finished run, for plans that follow its schedule or values.

    Raises:
        UsageError: The plan does not exist, or does not fit the experiment.
    """
    # A schedule is followed from the first step on, so initial values would contradict it.
    initial = experiment.initial if of is None else ()
    return replace(experiment, plan=named(name, experiment.plan, of, experiment.rounds), initial=initial)


def planned_again(experiment: Experiment, meta: Mapping[str, Any]) -> Experiment:
    """The experiment of a resumed run, under the named plan recorded with it; unchanged if none is recorded.

    Args:
        experiment: The experiment as defined by its file.
        meta: The metadata of the run.

    Raises:
        UsageError: The recorded plan does not exist.
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
    """The seed by which runs are paired and directories are named."""
    path: Path
    source: Path | None = None
    """The run whose schedule or values the plan follows; None for most plans."""

    @property
    def trained_with(self) -> int:
        """The seed of the training."""
        return self.seed if self.source is None else FRESH + self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The design of a comparison.

    Args:
        task: A shipped problem, or `FILE.py:object`.
        asked: Names of plans, without repetition; the others are compared with the first.
        seeds: The seeds on which each plan is trained.
        out: The directory of all runs and results.
        population: Number of members. Default: that of the experiment.
        rounds: Rounds per member. Default: those of the experiment.

    Raises:
        UsageError: There are no plans or no seeds, a plan is named twice, or a seed is out of range.
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
            raise UsageError(f"plans: expected each name once, got '{twice[0]}' twice")
        if not self.asked or not self.seeds:
            raise UsageError("expected at least one plan and one seed, got none")
        if min(self.seeds) < 0 or max(self.seeds) >= FRESH:
            raise UsageError(f"seeds: expected 0 to {FRESH - 1}, got {min(self.seeds)} to {max(self.seeds)}")

    @property
    def plans(self) -> list[str]:
        """The requested plans, and those whose runs they follow."""
        return list(dict.fromkeys([*self.asked, *filter(None, map(self.source, self.asked))]))

    def source(self, plan: str) -> str:
        """The plan whose run a plan follows; empty for most plans."""
        entry = PLANS.get(plan)
        source = "" if entry is None else entry.source
        # If the experiment's own plan is compared instead of pbt, its schedules are the ones to follow.
        return "own" if source == "pbt" and "own" in self.asked and "pbt" not in self.asked else source

    def trials(self) -> list[Trial]:
        """All runs; a source comes before the runs that follow it."""
        order = sorted(self.plans, key=lambda plan: bool(self.source(plan)))
        return [self._trial(plan, seed) for seed in self.seeds for plan in order]

    def experiment(self) -> Experiment:
        """The experiment under its own plan, placed in one process with one thread."""
        own = experiment_of(self.task)
        requested = own.placement
        # Executors whose results may differ are kept, so that all runs of a comparison have the same one.
        kept = requested.executor == "vectorized" or callable(requested.executor)
        placement = Placement(
            executor=requested.executor if kept else "inline",
            workers=1,
            threads=1,
            members_per_program=requested.members_per_program,
            device=requested.device,
        )
        population = own.population if self.population is None else self.population
        rounds = own.rounds if self.rounds is None else self.rounds
        return replace(own, population=population, rounds=rounds, placement=placement)

    def check(self, experiment: Experiment) -> None:
        """Validate the plans before training.

        Raises:
            UsageError: A plan does not exist, or does not fit the experiment.
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
        """The experiment of a trial whose source has finished.

        Args:
            experiment: The result of `experiment()`.
            trial: One of `trials()`.
        """
        if trial.source is None:
            return replace(planned(experiment, trial.plan), seed=trial.trained_with)
        with opened(trial.source) as (of, _):
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
    """The first trial that can be started; None if all wait for their source."""
    return next((trial for trial in waiting if trial.source is None or trial.source in finished), None)
