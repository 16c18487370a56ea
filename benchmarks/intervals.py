"""IPBT, which chooses the interval between copies itself, against fixed intervals.

    python -m benchmarks.intervals [--seeds 20] [--first 0]

The noisy quadratic model and both toys of `pbt.testing.problems`, 1,000 steps each, with the exploit and explore rules
of the problem. IPBT has rounds of 10 steps, 1 % of the run, and no other setting. The gate: its mean is worse than that
of the best fixed interval by at most one standard error of the difference, which is paired by seed. The table is in
docs/benchmarks-problems.md.
"""

import argparse
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

import pbt
from pbt.core.events import Reported
from pbt.strategies import IPBT
from pbt.testing.problems import NQM, TOY_DECEPTIVE, TOY_PLAIN, Arguments

STEPS = 1000
INTERVALS = (10, 20, 50, 100, 250)
"""1 to 25 % of the run: IPBT's first interval, and four longer ones."""
PROBLEMS = {"nqm": NQM, "toy-plain": TOY_PLAIN, "toy-deceptive": TOY_DECEPTIVE}


def at_end(problem: Arguments, seed: int, interval: int | None) -> tuple[float, float]:
    """The best score of the population at the end, and the trained steps per requested one.

    Args:
        problem: The problem.
        seed: Seed of the run.
        interval: Steps between two evolutions; None: IPBT chooses.
    """
    own, steps = problem["plan"], STEPS // 100 if interval is None else interval
    plan = (
        IPBT(interval=steps, explore=own.explore)
        if interval is None
        else pbt.Plan(exploit=own.exploit, explore=own.explore, interval=steps)
    )
    run = pbt.run(**problem | {"plan": plan, "rounds": STEPS // steps, "seed": seed})
    trained = steps * sum(isinstance(event, Reported) for event in run.events)
    return max(member.score for member in run.view.population), trained / STEPS / problem["population"]


@dataclass(frozen=True)
class Comparison:
    """The results of one problem by interval; None stands for IPBT."""

    scores: dict[int | None, npt.NDArray[np.float64]]
    cost: float
    """Trained steps of IPBT per requested step."""

    @cached_property
    def best(self) -> int:
        """The fixed interval with the highest mean."""
        return max(INTERVALS, key=lambda interval: self.scores[interval].mean())

    @property
    def behind(self) -> tuple[float, float]:
        """How far IPBT is below the best fixed interval: mean and standard error of the differences by seed."""
        gaps = self.scores[self.best] - self.scores[None]
        return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps)))

    @property
    def is_met(self) -> bool:
        """Whether the gate is met."""
        mean, error = self.behind
        return mean <= error


def compared(problem: Arguments, seeds: range) -> Comparison:
    """Train IPBT and every fixed interval on common seeds."""
    results = {interval: [at_end(problem, seed, interval) for seed in seeds] for interval in (*INTERVALS, None)}
    scores = {interval: np.array([score for score, _ in found]) for interval, found in results.items()}
    return Comparison(scores, float(np.mean([cost for _, cost in results[None]])))


def main() -> None:
    """Print a table per problem."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intervals", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="seeds per interval (default: 20)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: 0)")
    options = parser.parse_args()
    for name, problem in PROBLEMS.items():
        found = compared(problem, range(options.first, options.first + options.seeds))
        print(f"| {name} | score, mean ± standard error |\n|---|---|")
        for interval, scores in found.scores.items():
            row = f"IPBT, {found.cost:.2f} of the steps" if interval is None else f"every {interval} steps"
            print(f"| {row} | {scores.mean():.6f} ± {scores.std(ddof=1) / np.sqrt(len(scores)):.6f} |")
        mean, error = found.behind
        verdict = "met" if found.is_met else "missed"
        print(f"below the best ({found.best} steps): {mean:.6f} ± {error:.6f}, gate {verdict}\n", flush=True)


if __name__ == "__main__":
    main()
