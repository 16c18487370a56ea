"""One run of a comparison: whether it has finished, its training, and its result."""

import functools
from dataclasses import dataclass, field

from pbt.compare.design import Design, Trial
from pbt.core.events import FINISHED, LOST
from pbt.errors import DiskError, PBTError, PopulationLostError, UsageError
from pbt.runs.catalog import opened
from pbt.runs.experiment import Experiment
from pbt.runs.results import Run
from pbt.store.reader import is_begun

TESTS = ("test", "test_accuracy", "test_loss")
"""Names of reported values that selection never uses; the first one present is compared. `test_loss` counts only where
the score is minimized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """The result of one run."""

    plan: str
    seed: int
    trained_with: int
    path: str
    values: dict[str, float] = field(default_factory=dict)
    """Metrics of the member chosen by validation, as returned by the task; empty if all members failed."""
    steps: int
    """Training steps of all members, without failed rounds."""
    state_steps: float
    """Training steps in a state at the end, the mean over the population. In an asynchronous run a member that copies
    an older state repeats steps, and the steps of the states are what all plans have in common."""
    copies: int
    founders: int
    """Number of initial members from which the final population descends."""
    failures: int
    """Number of failed rounds."""
    seconds: float
    """Training time of all rounds."""


def measured(trial: Trial) -> TrialResult:
    """The result of a finished trial."""
    with opened(trial.path) as (run, _):
        seconds = sum(float(entry.details.get("seconds", 0)) for entry in run.journal() if entry.kind == "round")
    tree = run.tree
    members = [member for member in run.view.population if member.state is not None]
    states = [member.state for member in members if member.state is not None]
    return TrialResult(
        plan=trial.plan,
        seed=trial.seed,
        trained_with=trial.trained_with,
        path=str(trial.path),
        values={} if run.view.ended == LOST else _values(run),
        steps=sum(state.step - state.first_step for state in tree.states.values()),
        state_steps=sum(member.step for member in members) / max(1, len(members)),
        copies=sum(decision.donor is not None for decision in tree.decisions.values()),
        founders=len(tree.founders(states)),
        failures=len(tree.failures),
        seconds=seconds,
    )


def _values(run: Run) -> dict[str, float]:
    best = run.best
    values = {"score": best.score}
    tests = ((name, best.reported.get(name)) for name in TESTS if name != "test_loss" or run.view.sign < 0)
    return values | {name: float(value) for name, value in tests if isinstance(value, (int, float))}


def is_done(design: Design, experiment: Experiment, trial: Trial) -> bool:
    """Whether a trial has finished, so that it is not trained again.

    Raises:
        UsageError: The directory has another run.
    """
    if not is_begun(trial.path):
        return False
    with opened(trial.path) as (run, _):
        pass
    designed = design.made(experiment, trial)
    _check_same(run, designed, trial)
    if run.view.ended == LOST:
        return True
    return run.view.ended == FINISHED and run.meta["rounds"] == designed.rounds


def _check_same(run: Run, designed: Experiment, trial: Trial) -> None:
    different = ["note (its data)" if name == "note" else name for name in designed.differences(run.meta)]
    if run.meta["rounds"] > designed.rounds:
        different.append("number of rounds")
    if different:
        raise UsageError(
            f"{trial.path}: this run was trained with another {', '.join(different)}; choose a new directory (--out), "
            "or remove this one"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How the training of a trial ended, returned to the parent process."""

    error: type[PBTError] | None = None
    """The error that ends the comparison; None if it continues."""
    message: str = ""


@functools.cache
def _experiment(design: Design) -> Experiment:
    """The experiment, made once per worker, since this executes a user's file and may read data."""
    return design.experiment()


def train(design: Design, trial: Trial) -> Trained:
    """Train or resume a trial in a worker; errors are returned as values, since not every exception can be pickled."""
    try:
        made = design.made(_experiment(design), trial)
        application = {"name": "file", "object": design.task, "plan": trial.plan}
        made.run(trial.path, resume=True, application=application)
    except PopulationLostError as error:
        return Trained(message=str(error))
    except PBTError as error:
        kind = DiskError if isinstance(error, DiskError) else UsageError if error.exit_code == 2 else PBTError
        return Trained(error=kind, message=f"plan {trial.plan}, seed {trial.seed}: {error}")
    return Trained()
