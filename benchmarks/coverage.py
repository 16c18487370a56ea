"""Coverage of the intervals of `pbt compare` with few seeds, for distributions whose interquartile mean is known.

    python -m benchmarks.coverage [--samples 1000]

Prints the table of docs/comparing.md: the share of nominal 95 % intervals with the truth inside, and in parentheses the
share of percentile bootstrap intervals.
"""

import argparse
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from pbt.compare import statistics

Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

SHAPES: Mapping[str, tuple[float, Draw]] = {
    "normal": (0.0, lambda rng, size: rng.normal(size=size)),
    "exponential": (0.7384, lambda rng, size: rng.exponential(size=size)),
    "lognormal": (1.0733, lambda rng, size: rng.lognormal(size=size)),
    "normal, rounded to 0.5 standard deviations": (
        0.195,
        lambda rng, size: np.round(rng.normal(0.2, 1.0, size) * 2) / 2,
    ),
}
"""By name: the interquartile mean, and a function that draws samples."""
RESAMPLED = 1_000
"""Bootstrap samples of an interval; ten thousand in `pbt compare`."""


def percentile(sample: Array, rng: np.random.Generator) -> tuple[float, float]:
    """The percentile bootstrap interval of the interquartile mean."""
    drawn = statistics.iqm(sample[rng.integers(len(sample), size=(RESAMPLED, len(sample)))])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def covered(shape: str, seeds: int, samples: int) -> tuple[float, float]:
    """The coverage of both intervals."""
    truth, draw = SHAPES[shape]
    rng = np.random.default_rng([seeds, list(SHAPES).index(shape)])
    hits = np.zeros(2)
    for index, sample in enumerate(draw(rng, (samples, seeds))):
        for kind, (low, high) in enumerate((statistics.bootstrap(sample, index), percentile(sample, rng))):
            hits[kind] += low <= truth <= high
    return float(hits[0]) / samples, float(hits[1]) / samples


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000, help="simulated comparisons of each cell")
    options = parser.parse_args()
    statistics.REPETITIONS = RESAMPLED
    print(f"| seeds | {' | '.join(SHAPES)} |\n|{'---|' * (len(SHAPES) + 1)}", flush=True)
    for seeds in (3, 4, 5, 6, 8, 10, 12):
        cells = [covered(shape, seeds, options.samples) for shape in SHAPES]
        print(f"| {seeds} | {' | '.join(f'{now:.3f} ({before:.3f})' for now, before in cells)} |", flush=True)


if __name__ == "__main__":
    main()
