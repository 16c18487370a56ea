"""Overhead per member and round: the noisy quadratic, whose training costs almost nothing.

Measures `pbt` with `inline` and durable commits. References: Ray Tune's PBT on the same problem with fewer members, and
a fixed limit for a small population.
"""

import contextlib
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import pbt
from benchmarks.base import Options, Row, times_faster
from benchmarks.ray_side import RayTune, UnavailableError
from benchmarks.ray_toy import STEPS
from benchmarks.sides import Child, EnoughError, Gate, run_folder, take_turns
from pbt.testing.problems import NQM_SPACE, noisy_quadratic

MEMBERS, ROUNDS = 20, 50
LARGE, LARGE_ROUNDS = 1000, 100
"""The large population, and its rounds in all turns except the first."""
TRIALS, TRIAL_ROUNDS = 20, 3
"""Ray Tune's population, and rounds per turn."""


def measure(options: Options) -> Sequence[Row]:
    """Measure milliseconds per member and round."""
    return [_small(options.repeats), _large(options.repeats)]


def _small(repeats: int) -> Row:
    costs = []
    for seed in range(repeats):
        with run_folder() as folder:
            started = time.perf_counter()
            _run(MEMBERS, ROUNDS, folder, seed=seed)
            costs.append(1000 * (time.perf_counter() - started) / (MEMBERS * ROUNDS))
    return Row(
        work=f"noisy quadratic, {MEMBERS} members x {ROUNDS} rounds, durable, `inline`",
        measured=f"{median(costs):.2f} ms per member and round",
        against="its limit",
        value=median(costs),
        limit=1.0,
        unit=" ms",
    )


def _large(repeats: int) -> Row:
    rounds = LARGE_ROUNDS // repeats or 1
    work = f"noisy quadratic, {LARGE} members x {repeats * rounds} rounds, durable, `inline`"
    limit, aim = times_faster(100), times_faster(200)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Child(_population, repeats, rounds))
        try:
            ray = stack.enter_context(RayTune.of_toy(TRIALS, TRIAL_ROUNDS))
        except UnavailableError as error:
            return Row.missing(work, str(error), limit=limit, aim=aim)
        mine, theirs = take_turns([ours, ray], repeats)
    own = [1000 * seconds / (LARGE * rounds) for seconds in mine]
    other = [1000 * seconds / (TRIALS * TRIAL_ROUNDS) for seconds in theirs]
    return Row(
        work=work,
        measured=f"{median(own):.3f} ms per member and round",
        against=f"{ray.name}, {TRIALS} members, 2 CPU slots: {median(other):.1f} ms",
        value=median(one / two for one, two in zip(own, other, strict=True)),
        limit=limit,
        aim=aim,
    )


def _population(connection: Connection, turns: int, rounds: int) -> None:
    with run_folder() as folder, contextlib.suppress(EnoughError):
        _run(LARGE, turns * rounds + 2, folder, observers=[Gate(connection, rounds)])


def _run(members: int, rounds: int, path: Path, *, seed: int = 0, observers: Sequence[Gate] = ()) -> None:
    pbt.run(
        noisy_quadratic,
        NQM_SPACE,
        plan=pbt.Plan(exploit=pbt.truncation(0.2), explore=pbt.perturb((0.8, 1.25)), interval=STEPS),
        population=members,
        rounds=rounds,
        seed=seed,
        run_dir=path,
        observers=observers,
    )
