"""Comparisons of known results, and a task to compare plans on."""

from pathlib import Path

from pbt.compare.design import Design
from pbt.compare.results import compared
from pbt.compare.trials import TrialResult

TASK = """
import time
import pbt

PACE = {pace}


def climb(hparams, state, steps, ctx):
    time.sleep(PACE)
    height = (state or {{"height": 0.0}})["height"] + steps * float(hparams["lr"])
    if hparams["lr"] > {most}:
        return {{"height": height}}, float("nan")
    return {{"height": height}}, {{"score": height + 0.1 * ctx.rng(ctx.member, ctx.round).random(), "test": height}}


experiment = pbt.Experiment(
    task=climb,
    space={{"lr": pbt.Float(0.01, 1.0, "log")}},
    plan=pbt.Plan(interval=2, exploit=pbt.truncation(0.25)),
    population=4,
    rounds=3,
    objective="{objective}",
)
"""


def write_task(folder: Path, pace: float = 0.0, most: float = 2.0, objective: str = "maximize") -> str:
    """A task file; what to call it on a command line."""
    (folder / "task.py").write_text(TASK.format(pace=pace, most=most, objective=objective))
    return "task.py:experiment"


def measured(plan, seed, metrics, steps=100, state_steps=10):
    """A run that gave these numbers."""
    return TrialResult(
        plan=plan,
        seed=seed,
        trained_with=seed,
        path=f"{plan}/seed-{seed}",
        values=metrics,
        steps=steps,
        state_steps=state_steps,
        copies=3,
        founders=2,
        failures=0,
        seconds=1.5,
    )


def comparison(results, *, metric="score", steps=None, state_steps=None, experiment=None):
    """A comparison of these results, by plan a value per seed; None: a run that lost every member."""
    more, older = steps or {}, state_steps or {}
    names = tuple(results)
    seeds = tuple(range(len(results[names[0]])))
    design = Design(task="nqm", asked=names, seeds=seeds, out=Path("out"))
    runs = [
        measured(
            name,
            seed,
            {} if value is None else {"score": 0.0, metric: value},
            more.get(name, 100),
            older.get(name, 10),
        )
        for name in names
        for seed, value in zip(seeds, results[name], strict=True)
    ]
    return compared(design, experiment or design.experiment(), runs)
