"""The cost of the machinery alone: the noisy quadratic, whose training costs next to nothing."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pbt
from benchmarks.base import Row
from pbt.testing.problems import NQM_SPACE, noisy_quadratic

MEMBERS, ROUNDS = 20, 50


def measure(repeats: int) -> Sequence[Row]:
    """Milliseconds per member and round with `inline`, every commit durable."""
    plan = pbt.Plan(exploit=pbt.truncation(0.2), explore=pbt.perturb((0.8, 1.25)), interval=20)
    costs = []
    for seed in range(repeats):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            started = time.perf_counter()
            pbt.run(
                noisy_quadratic,
                NQM_SPACE,
                plan=plan,
                population=MEMBERS,
                rounds=ROUNDS,
                seed=seed,
                run_dir=Path(folder) / "run",
            )
            costs.append(1000 * (time.perf_counter() - started) / (MEMBERS * ROUNDS))
    return [
        Row(
            work=f"noisy quadratic, {MEMBERS} members x {ROUNDS} rounds, durable, `inline`",
            measured=f"{median(costs):.2f} ms per member and round",
            against="the limit set for it",
            value=median(costs),
            limit=1.0,
            unit=" ms",
        )
    ]
