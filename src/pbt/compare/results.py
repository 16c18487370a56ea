"""A finished comparison as one record: every run, what each plan reached, and what the differences show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pbt.compare.design import Design
from pbt.compare.statistics import Friedman, Paired, Summary, friedman, paired, summary
from pbt.compare.trials import TESTS, TrialResult
from pbt.errors import RunError
from pbt.runs.experiment import Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """One plan over all seeds."""

    plan: str
    source: str
    """The plan whose runs it is made of, whose training comes on top of its own; empty: none."""
    runs: tuple[TrialResult, ...]
    values: Mapping[int, float]
    """By seed, the metric as the task returned it, where it is a number; runs that lost every member have none."""
    summary: Summary | None
    """None: no run has a value."""
    paired: Paired | None
    """Minus the first plan; None: it is the first, or they have no seed in common."""

    def mean(self, name: str) -> float:
        """The mean of one of the numbers of the runs, such as `steps`."""
        return float(np.mean([getattr(run, name) for run in self.runs]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that came out."""

    task: str
    metric: str
    """What the plans are compared by: `test`, `test_accuracy`, `test_loss` or `score`."""
    minimize: bool
    population: int
    rounds: int
    seeds: tuple[int, ...]
    plans: tuple[PlanResult, ...]
    friedman: Friedman | None
    """None: fewer than three plans, or two seeds, have values."""

    @property
    def compared(self) -> list[tuple[PlanResult, Paired]]:
        """The plans that are compared with the first one."""
        return [(result, result.paired) for result in self.plans if result.paired is not None]

    @property
    def in_friedman(self) -> list[str]:
        """The plans that Friedman's test ranks, in the order of its ranks."""
        return [result.plan for result in self.plans if result.values]

    def better(self, difference: float) -> bool:
        """Whether a difference is one for the better."""
        return difference < 0 if self.minimize else difference > 0


def compared(design: Design, experiment: Experiment, runs: Sequence[TrialResult]) -> Comparison:
    """Put the runs of a comparison together.

    Raises:
        RunError: No run of the first plan has a value.
    """
    found = [run for run in runs if run.values]
    metric = next((name for name in TESTS if found and all(name in run.values for run in found)), "score")
    # An accuracy is the better the higher, whatever the score is.
    minimize = experiment.objective == "minimize" and metric != "test_accuracy"
    by_plan = {plan: [run for run in runs if run.plan == plan] for plan in design.plans}
    values = {plan: _finite(own, metric) for plan, own in by_plan.items()}
    first = design.plans[0]
    if not values[first]:
        raise RunError(f"plan {first}: expected a run with a {metric} to compare with, found none that is a number")
    others = [plan for plan in design.plans[1:] if values[plan].keys() & values[first].keys()]
    # The same draws for all: equal results have equal intervals.
    key = (design.task, metric)
    pairs = dict(zip(others, paired([values[plan] for plan in others], values[first], *key), strict=True))
    return Comparison(
        task=design.task,
        metric=metric,
        minimize=minimize,
        population=experiment.population,
        rounds=experiment.rounds,
        seeds=design.seeds,
        plans=tuple(
            PlanResult(
                plan=plan,
                source=design.source(plan),
                runs=tuple(by_plan[plan]),
                values=values[plan],
                summary=summary(list(values[plan].values()), *key) if values[plan] else None,
                paired=pairs.get(plan),
            )
            for plan in design.plans
        ),
        friedman=_friedman(values, -1 if minimize else 1),
    )


def _finite(runs: Sequence[TrialResult], metric: str) -> dict[int, float]:
    return {run.seed: run.values[metric] for run in runs if run.values and math.isfinite(run.values[metric])}


def _friedman(values: Mapping[str, Mapping[int, float]], sign: int) -> Friedman | None:
    some = [own for own in values.values() if own]
    common = sorted(set.intersection(*(set(own) for own in some))) if some else []
    if len(some) < 3 or len(common) < 2:
        return None
    return friedman([[sign * own[seed] for own in some] for seed in common])
