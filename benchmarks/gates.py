"""Acceptance ranges of the algorithms, on seeds that no test uses.

    python -m benchmarks.gates [--first 1000] [--workers 2]

Each number is computed over whole runs of `pbt.run`. The tests check the same ranges on fixed seeds (`pytest -m gate`);
a range that those seeds meet by chance fails here. The table is in docs/benchmarks-problems.md.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context

import numpy as np

import pbt
from pbt.strategies import Fire, MultipleFrequencies
from pbt.testing.problems import FIG2, NQM, TOY_DECEPTIVE, TOY_PLAIN, Arguments, Fig2, ToyDeceptive

Number = Callable[[Sequence[float]], float]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A statistic over many seeds, and its accepted range.

    Args:
        name: Name in the tests.
        what: Description.
        scores: Function from a seed to its result.
        number: Statistic of all results.
        seeds: Number of seeds.
        low: Smallest accepted value.
        high: Largest accepted value.
    """

    name: str
    what: str
    scores: Callable[[int], float]
    seeds: int
    low: float
    high: float = np.inf
    number: Number = np.mean

    @property
    def wanted(self) -> str:
        """The range as text."""
        if np.isinf(self.high):
            return f"at least {self.low:g}"
        return f"{self.low:g} .. {self.high:g}"


def reached(problem: Arguments, seed: int, *, group: int | None = None) -> float:
    """Best score of the population, or of one sub-population, at the end."""
    run = pbt.run(**problem | {"seed": seed})
    return max(member.score for member in run.view.population if group in (None, member.group))


def gain(first: Arguments, second: Arguments, seed: int) -> float:
    """Difference of the results of two problems on one seed."""
    return reached(first, seed) - reached(second, seed)


def under(problem: Arguments, **changes: object) -> Arguments:
    """A problem with parts of its plan replaced."""
    plan = problem["plan"]
    parts = {name: getattr(plan, name) for name in ("exploit", "explore", "interval", "inherit")}
    return problem | {"plan": pbt.Plan(**parts | changes)}


def share_above(bar: float) -> Number:
    """Share of results above a value."""
    return lambda scores: float(np.mean(np.array(scores) > bar))


STATE_ONLY = under(FIG2, inherit="state") | {"task": Fig2(lr=0.02)}
NEVER = under(TOY_DECEPTIVE, exploit=pbt.never(), explore=pbt.keep())
CURVES = TOY_DECEPTIVE | {"task": ToyDeceptive(curve=True)}
FIRE = CURVES | {"plan": Fire(interval=20, explore=pbt.perturb((0.8, 1.25))), "population": 16}
FREQUENCIES = TOY_DECEPTIVE | {"plan": MultipleFrequencies(interval=20), "population": 32}
LADDER = [
    ("only values inherited", under(NQM, inherit="hparams")),
    ("all inherited", NQM),
    ("only weights inherited", under(NQM, inherit="state")),
    ("only explore", under(NQM, exploit=pbt.at_random(0.2))),
    ("only exploit", under(NQM, explore=pbt.keep())),
]
"""The plans of gate N4, lowest loss first."""

GATES = [
    Gate(name="F5", what="Fig. 2, all copied: mean", scores=partial(reached, FIG2), seeds=400, low=1.1942, high=1.1972),
    Gate(
        name="F5",
        what="Fig. 2, all copied: share above 1.18",
        scores=partial(reached, FIG2),
        seeds=400,
        low=0.97,
        number=share_above(1.18),
    ),
    Gate(
        name="F6",
        what="Fig. 2, weights copied: mean",
        scores=partial(reached, STATE_ONLY),
        seeds=400,
        low=1.1987,
        high=1.1997,
    ),
    Gate(
        name="F7",
        what="Fig. 2, only explore: mean",
        scores=partial(reached, under(FIG2, exploit=pbt.never())),
        seeds=400,
        low=1.103,
        high=1.137,
    ),
    Gate(name="T2", what="ToyPlain, PBT: worst", scores=partial(reached, TOY_PLAIN), seeds=20, low=1.1994, number=min),
    Gate(
        name="T3", what="ToyDeceptive, PBT: mean", scores=partial(reached, TOY_DECEPTIVE), seeds=20, low=0.88, high=0.95
    ),
    Gate(
        name="T3",
        what="ToyDeceptive, no evolution minus PBT: mean",
        scores=partial(gain, NEVER, TOY_DECEPTIVE),
        seeds=20,
        low=0.0,
    ),
    Gate(name="T4", what="ToyDeceptive, FIRE PBT: mean", scores=partial(reached, FIRE, group=1), seeds=20, low=1.175),
    Gate(name="T5", what="ToyDeceptive, MF-PBT: mean", scores=partial(reached, FREQUENCIES), seeds=20, low=1.17),
    Gate(
        name="N2", what="NQM, PBT of 20: mean score", scores=partial(reached, NQM), seeds=40, low=-0.0142, high=-0.011
    ),
    *(
        Gate(
            name="N4",
            what=f"NQM, {better} better than {worse}: seeds of 40",
            scores=partial(gain, one, other),
            seeds=40,
            low=27,
            number=lambda gains: float(sum(gain > 0 for gain in gains)),
        )
        for (better, one), (worse, other) in pairwise(LADDER)
    ),
]


def main() -> int:
    """Print the table; return 1 if a range was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gates", description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=1000, help="first seed; tests use seeds below 1000")
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    options = parser.parse_args()
    print("| gate | quantity | range | result | |\n|---|---|---|---|---|", flush=True)
    missed = False
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        for gate in GATES:
            seeds = range(options.first, options.first + gate.seeds)
            found = gate.number(list(pool.map(gate.scores, seeds, chunksize=5)))
            passed = gate.low <= found <= gate.high
            missed |= not passed
            row = (gate.name, gate.what, gate.wanted, f"{found:.5g}", "" if passed else "missed")
            print(f"| {' | '.join(row)} |", flush=True)
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
