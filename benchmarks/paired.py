"""Combine several results of `pbt compare` into one table, paired by seed, for plans with different experiments.

    pbt compare text --plans pbt,no-evolution,selection-only --seeds 12 --first-seed 100 --out runs/text
    pbt compare text-cosine --plans no-evolution --seeds 12 --first-seed 100 --out runs/text-cosine
    python -m benchmarks.paired runs/text/comparison.json runs/text-cosine/comparison.json

Each plan is compared with the first plan of the first file, on common seeds. Columns are mean and standard error, also
of the paired differences, Wilcoxon's p after Holm's correction, and the number of seeds on which a plan is worse.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pbt.compare.sentences import p_value
from pbt.compare.statistics import paired
from pbt.errors import UsageError


def values(found: Mapping[str, Any], metric: str) -> dict[str, dict[int, float]]:
    """Results of a comparison, by "task, plan" and seed."""
    return {
        f"{found['task']}, {plan}": {run["seed"]: run["values"][metric] for run in result["runs"] if run["values"]}
        for plan, result in found["plans"].items()
    }


def table(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows.

    Raises:
        UsageError: The comparisons have different metrics, or no common seed.
    """
    metric, better = comparisons[0]["metric"], comparisons[0]["better"]
    for found in comparisons:
        if (found["metric"], found["better"]) != (metric, better):
            raise UsageError(f"expected comparisons by one metric, got {metric} and {found['metric']}")
    plans: dict[str, dict[int, float]] = {}
    for found in comparisons:
        plans |= values(found, metric)
    (first, reference), *others = plans.items()
    if any(not reference.keys() & own.keys() for _, own in others):
        raise UsageError("expected comparisons on common seeds, got other ones")
    pairs = paired([own for _, own in others], reference, metric)
    rows = [
        f"| task, plan | {metric}, {better} is better | difference | p | worse |",
        "|---|---|---|---|---|",
        f"| {first} | {mean(list(reference.values()))} | | | |",
    ]
    for (name, own), pair in zip(others, pairs, strict=True):
        worse = sum((gap > 0) == (better == "lower") for gap in pair.differences if gap)
        share = f"{worse} of {len(pair.seeds)}"
        cells = (name, mean(list(own.values())), mean(pair.differences, "+"), p_value(pair.adjusted), share)
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def mean(numbers: Sequence[float], sign: str = "") -> str:
    """Mean and standard error."""
    error = np.std(numbers, ddof=1) / np.sqrt(len(numbers)) if len(numbers) > 1 else np.nan
    return f"{np.mean(numbers):{sign}.4f} ± {error:.4f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="comparison.json")
    options = parser.parse_args()
    print("\n".join(table([json.loads(file.read_text(encoding="utf-8")) for file in options.files])))


if __name__ == "__main__":
    main()
