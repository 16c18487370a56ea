"""A finished comparison as one record: runs, results per plan, and tests of their differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pbt.compare.design import Design
from pbt.compare.statistics import Friedman, Paired, Summary, friedman, paired, summary
from pbt.compare.trials import TESTS, TrialResult
from pbt.core.fold import sign_of
from pbt.errors import RunError
from pbt.runs.experiment import Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """The results of one plan over all seeds."""

    plan: str
    source: str
    """The plan whose runs it follows, and whose training steps come in addition; empty for most plans."""
    runs: tuple[TrialResult, ...]
    values: Mapping[int, float]
    """The metric by seed, as returned by the task, where it is finite; runs that lost all members have none."""
    summary: Summary | None
    """None if no run has a value."""
    paired: Paired | None
    """The difference from the first plan; None for the first plan, and without a common seed."""

    def mean(self, name: str) -> float:
        """The mean over runs of a field of `TrialResult`, such as `steps`."""
        return float(np.mean([getattr(run, name) for run in self.runs]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The results of a comparison."""

    task: str
    metric: str
    """The metric by which plans are compared: `test`, `test_accuracy`, `test_loss` or `score`."""
    minimize: bool
    population: int
    rounds: int
    seeds: tuple[int, ...]
    plans: tuple[PlanResult, ...]
    friedman: Friedman | None
    """None with fewer than three plans or two common seeds."""

    @property
    def compared(self) -> list[tuple[PlanResult, Paired]]:
        """The plans that are compared with the first."""
        return [(result, result.paired) for result in self.plans if result.paired is not None]

    @property
    def in_friedman(self) -> list[str]:
        """The plans ranked by Friedman's test, in the order of `friedman.ranks`."""
        return [result.plan for result in self.plans if result.values]

    def better(self, difference: float) -> bool:
        """Whether a difference is an improvement."""
        return difference < 0 if self.minimize else difference > 0


def compared(design: Design, experiment: Experiment, runs: Sequence[TrialResult]) -> Comparison:
    """Evaluate the runs of a comparison.

    Raises:
        RunError: No run of the first plan has a value.
    """
    scored = [run for run in runs if run.values]
    metric = next((name for name in TESTS if scored and all(name in run.values for run in scored)), "score")
    # A higher accuracy is better, whatever the objective of the score.
    minimize = sign_of(experiment.objective) < 0 and metric != "test_accuracy"
    by_plan = {plan: [run for run in runs if run.plan == plan] for plan in design.plans}
    values = {plan: _finite(own, metric) for plan, own in by_plan.items()}
    first = design.plans[0]
    if not values[first]:
        raise RunError(f"plan {first}: expected a run with a finite {metric} to compare the others with, got none")
    others = [plan for plan in design.plans[1:] if values[plan].keys() & values[first].keys()]
    # The same draws for all plans, so that equal results have equal intervals.
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
