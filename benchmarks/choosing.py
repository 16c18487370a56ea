"""Effect of population size, interval, factors and replaced share on PBT, for problems with known solutions.

    python -m benchmarks.choosing [--seeds 40]

Prints the tables of docs/choosing.md. The noisy quadratic model trains 1,000 steps in total, for any interval. A row
changes one setting of `pbt.testing.problems.NQM`: 20 members, 20 steps per round, `truncation(0.2)`,
`perturb((0.8, 1.25))`. Columns are the mean final loss of the best member, its 5th to 95th percentile over seeds, and
the surviving founders.
"""

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

import pbt
from pbt.core.population import StateRef
from pbt.testing.problems import NQM, noisy_quadratic

STEPS = 1000
NARROW = {"lr": pbt.Float(1e-4, 1.9, scale="log", prior=(0.1, 0.3))}
FAR = {"lr": pbt.Float(1e-4, 1.9, scale="log", prior=(1e-4, 1e-3))}


@dataclass(frozen=True, kw_only=True)
class Noisy:
    """The noisy quadratic model with a noisy score.

    Args:
        deviation: Standard deviation of the error of the logarithm of the loss.
    """

    deviation: float

    def __call__(self, hparams: Mapping[str, Any], state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Any]:
        """Train, and return a noisy score."""
        state, score = noisy_quadratic(hparams, state, steps, ctx)
        error = np.exp(self.deviation * ctx.rng("error", ctx.member, ctx.round).normal())
        return state, {"score": score * error, "loss": -score}


def varied(
    seed: int,
    population: int = 20,
    interval: int = 20,
    factors: tuple[float, ...] = (0.8, 1.25),
    share: float = 0.2,
    space: Any = None,
    error: float = 0.0,
    evolve: bool = True,
) -> tuple[float, int]:
    """True loss of the best member at the end, and number of founders with descendants."""
    plan = pbt.Plan(exploit=pbt.truncation(share), explore=pbt.perturb(factors), interval=interval)
    if not evolve:
        plan = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=STEPS)
        interval = STEPS
    run = pbt.run(
        Noisy(deviation=error),
        NQM["space"] if space is None else space,
        plan=plan,
        population=population,
        rounds=STEPS // interval,
        seed=seed,
    )
    chosen = max(run.view.population, key=lambda member: member.score)
    last = [StateRef(member.id, member.round) for member in run.view.population]
    return run.tree.reports[last[chosen.id]].reported["loss"], len(run.tree.founders(last))


TABLES: Mapping[str, Sequence[tuple[str, dict[str, Any]]]] = {
    "members": [(f"{n}", {"population": n}) for n in (2, 4, 8, 10, 20, 40, 80)],
    "steps of a round": [(f"{n}", {"interval": n}) for n in (5, 10, 20, 50, 100, 250, 500)],
    "factors": [
        (f"{low:g}, {high:g}", {"factors": (low, high)})
        for low, high in ((0.95, 1.05), (0.9, 1.1), (0.8, 1.2), (0.8, 1.25), (0.5, 2.0), (0.25, 4.0))
    ],
    "share replaced": [(f"{share:g}", {"share": share}) for share in (0.05, 0.1, 0.2, 0.3, 0.5)],
    "first values of lr": [
        (f"{where}, {'PBT' if evolve else 'no evolution'}", {"space": space, "evolve": evolve})
        for where, space in (("1e-4 .. 1.9", None), ("0.1 .. 0.3", NARROW), ("1e-4 .. 1e-3", FAR))
        for evolve in (True, False)
    ],
    "error of the score": [(f"{100 * error:g} %", {"error": error}) for error in (0.0, 0.02, 0.1, 0.5)],
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choosing", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40, help="runs of each row")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        for title, rows in TABLES.items():
            print(f"\n| {title} | loss, mean | 5 % .. 95 % | founders left |\n|---|---|---|---|", flush=True)
            for name, changes in rows:
                found = list(pool.map(partial(varied, **changes), range(options.seeds), chunksize=4))
                losses, founders = (np.array(of) for of in zip(*found, strict=True))
                low, high = np.percentile(losses, (5, 95))
                row = (name, f"{losses.mean():.4f}", f"{low:.4f} .. {high:.4f}", f"{founders.mean():.1f}")
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
