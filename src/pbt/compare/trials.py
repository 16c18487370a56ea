"""One run of a comparison: whether it is done, how it is trained, and what came of it."""

import functools
from dataclasses import dataclass, field
from typing import Any

from pbt.compare.design import Design, Trial
from pbt.core.describe import difference
from pbt.errors import DiskError, PBTError, PopulationLostError, UsageError
from pbt.runs.engine import FINISHED, LOST
from pbt.runs.experiment import Experiment
from pbt.runs.results import Run
from pbt.space import Space
from pbt.store.event_rows import from_json, to_json
from pbt.store.reader import RunReader, is_begun

TESTS = ("test", "test_accuracy", "test_loss")
"""What a task reports that selection has never seen, the first of them that is there; the loss where the score is
minimized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What came of one run."""

    plan: str
    seed: int
    trained_with: int
    path: str
    values: dict[str, float] = field(default_factory=dict)
    """By metric, of the member that validation chose, as the task returned it; empty: every member failed."""
    steps: int
    """Training steps of all members together, those of failed rounds left out."""
    copies: int
    founders: int
    """First members that somebody in the population at the end descends from."""
    failures: int
    """Rounds that failed."""
    seconds: float
    """Training time of all rounds together."""


def measured(trial: Trial) -> TrialResult:
    """What came of a finished trial."""
    with RunReader(trial.path) as reader:
        run = Run(reader, trial.path)
        seconds = sum(float(entry.details.get("seconds", 0)) for entry in reader.journal() if entry.kind == "round")
    tree = run.tree
    states = [m.state for m in run.view.population if m.state is not None]
    return TrialResult(
        plan=trial.plan,
        seed=trial.seed,
        trained_with=trial.trained_with,
        path=str(trial.path),
        values={} if run.view.ended == LOST else _values(run),
        steps=sum(link.last_step - link.first_step for link in tree.segments()),
        copies=sum(decision.donor is not None for decision in tree.decisions.values()),
        founders=len(tree.founders(states)),
        failures=len(tree.failures),
        seconds=seconds,
    )


def _values(run: Run) -> dict[str, float]:
    best = run.best
    values = {"score": best.score}
    told = ((name, best.reported.get(name)) for name in TESTS if name != "test_loss" or run.view.sign < 0)
    return values | {name: float(value) for name, value in told if isinstance(value, (int, float))}


def is_done(design: Design, experiment: Experiment, trial: Trial) -> bool:
    """Whether a trial is there and finished, so that it is not trained again.

    Raises:
        UsageError: What is there is another run.
    """
    if not is_begun(trial.path):
        return False
    run = Run.open(trial.path)
    wanted = design.made(experiment, trial)
    _check_same(run, wanted, trial)
    if run.view.ended == LOST:
        return True
    return run.view.ended == FINISHED and run.meta["rounds"] == wanted.rounds


def _check_same(run: Run, wanted: Experiment, trial: Trial) -> None:
    now: dict[str, Any] = {
        "seed": wanted.seed,
        "population": wanted.population,
        "objective": wanted.objective,
        "space": Space(wanted.space).to_dict(),
        "initial": [dict(hparams) for hparams in wanted.initial],
    }
    other = [name for name, value in now.items() if from_json(to_json(value, name)) != run.meta.get(name)]
    if difference(run.meta.get("plan"), from_json(to_json(wanted.plan.describe(), "plan")), "plan"):
        other.append("plan")
    if wanted.note and (run.meta.get("application") or {}).get("note") != wanted.note:
        other.append("note (its data)")
    if run.meta["rounds"] > wanted.rounds:
        other.append("number of rounds")
    if other:
        raise UsageError(
            f"{trial.path}: was trained with another {', '.join(other)} than is asked for now; "
            "name a new directory (--out), or remove this one"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How the training of a trial ended, for the process that asked for it."""

    error: type[PBTError] | None = None
    """What it ends the comparison with; None: it does not."""
    message: str = ""


@functools.cache
def _experiment(design: Design) -> Experiment:
    """Once per worker: a user's file is executed, and data read, no more often than needed."""
    return design.experiment()


def train(design: Design, trial: Trial) -> Trained:
    """Train a trial, or go on with it, in a worker.

    What goes wrong comes back as a value, since not every error can be sent to another process.
    """
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
