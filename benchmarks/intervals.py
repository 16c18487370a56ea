"""IPBT, which chooses the interval between copies itself, against fixed intervals.

    python -m benchmarks.intervals [--seeds 20] [--first 0]

The noisy quadratic model and both toys of `pbt.testing.problems`, 1,000 steps each, with the exploit and explore rules
of the problem. IPBT has rounds of 10 steps, 1 % of the run, and no other setting. The gate: its mean is worse than that
of the best fixed interval by at most one standard error of the difference, which is paired by seed. The table is in
docs/benchmarks-problems.md.
"""

import argparse

import numpy as np
import numpy.typing as npt

import pbt
from pbt.core.events import Reported
from pbt.strategies import IPBT
from pbt.testing.problems import NQM, TOY_DECEPTIVE, TOY_PLAIN, Arguments

STEPS = 1000
INTERVALS = (10, 20, 50, 100, 250)
"""1 to 25 % of the run: IPBT's first interval, and four longer ones."""
Scores = npt.NDArray[np.float64]
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


def behind(fixed: Scores, chosen: Scores) -> tuple[float, float]:
    """How far the second results are below the first: mean and standard error of the differences by seed."""
    gaps = fixed - chosen
    return float(gaps.mean()), _error(gaps)


def _error(values: Scores) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def main() -> None:
    """Print a table per problem."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intervals", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="seeds per interval (default: 20)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: 0)")
    parser.add_argument("--problem", choices=PROBLEMS, action="append", help="only this problem; may be repeated")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    for name in options.problem or PROBLEMS:
        found = {each: [at_end(PROBLEMS[name], seed, each) for seed in seeds] for each in (*INTERVALS, None)}
        scores = {each: np.array([score for score, _ in results]) for each, results in found.items()}
        cost = np.mean([cost for _, cost in found[None]])
        print(f"| {name} | score, mean ± standard error |\n|---|---|")
        for interval, reached in scores.items():
            row = f"IPBT, {cost:.2f} of the steps" if interval is None else f"every {interval} steps"
            print(f"| {row} | {reached.mean():.6f} ± {_error(reached):.6f} |")
        best = max(INTERVALS, key=lambda interval: scores[interval].mean())
        mean, error = behind(scores[best], scores[None])
        verdict = "met" if mean <= error else "missed"
        print(f"below the best ({best} steps): {mean:.6f} ± {error:.6f}, gate {verdict}\n", flush=True)


if __name__ == "__main__":
    main()
