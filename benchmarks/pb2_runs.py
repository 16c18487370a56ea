"""PB2 and its variants over whole runs in which the optimum moves, beside Ray Tune's PB2 and plain PBT.

    python -m benchmarks.pb2_runs [--seeds 20] [--problem tracking] [--members 4 8 16] [--plans pb2 pbt ray ...]

A member's score grows every round by one minus twice the squared distance of its values from the optimum, which moves
once around a circle in 25 rounds; copies keep the score of their donor. All sides start from the same values. Ray's
side calls the selection and the proposals of the installed `ray.tune.schedulers.pb2.PB2` in a synchronous loop. Each
variant differs from `PB2` in one respect. The mixed problem has two choices besides: one with three options, of which
two lose 0.3 per step, and one without any effect. The tables are in docs/benchmarks-problems.md.
"""

import argparse
import logging
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

import pbt
from pbt.core.exploit import number_replaced
from pbt.core.population import Member, View
from pbt.core.rng import Rng
from pbt.core.strategy import Strategy
from pbt.space import HParams
from pbt.strategies import BGPBT, PB2, PB2Mix, pb2, surrogate
from pbt.strategies.pb2 import Wave
from pbt.values import Value

ROUNDS = 25
NAMES = ("a", "b")
SPACE = {name: pbt.Float(0.0, 1.0) for name in NAMES}
MIXED = SPACE | {"rule": pbt.Choice(("x", "y", "z")), "unused": pbt.Choice(("p", "q", "r", "s"))}
PROBLEMS: Mapping[str, pbt.Space] = {"tracking": pbt.Space(SPACE), "mixed": pbt.Space(MIXED)}
QUANTILE = 0.25


def gain(values: Mapping[str, Any], step: int) -> float:
    """What the score gains in one step with these values."""
    angle = 2 * math.pi * step / ROUNDS
    best = (0.5 + 0.35 * math.cos(angle), 0.5 + 0.35 * math.sin(angle))
    lost = 0.3 if values.get("rule", "y") != "y" else 0.0
    distances = ((float(values[name]) - place) ** 2 for name, place in zip(NAMES, best, strict=True))
    return 1 - lost - 2 * sum(distances)


def tracking(hparams: HParams, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, float]:  # noqa: ARG001 (a task)
    """The task: the state is the step and the sum of all gains, which is the score."""
    step, total = state or (0, 0.0)
    total += sum(gain(hparams, step + i) for i in range(steps))
    return (step + steps, total), total


def initial(members: int, seed: int, problem: str = "tracking") -> list[dict[str, Value]]:
    """The first values, the same for all sides."""
    rng = Rng("initial", seed)
    return [PROBLEMS[problem].sample(rng) for _ in range(members)]


def reached(plan: Strategy, members: int, seed: int, problem: str = "tracking") -> float:
    """The best score of the population at the end."""
    first, space = initial(members, seed, problem), PROBLEMS[problem]
    run = pbt.run(tracking, space, plan=plan, population=members, rounds=ROUNDS, seed=seed, initial=first)
    return max(member.score for member in run.view.population)


class Trial:
    """What Ray's scheduler needs of a trial."""

    def __init__(self, number: int, config: dict[str, Value]) -> None:
        self.number = number
        self.config = config
        self.experiment_tag = str(number)
        self.total = 0.0

    def is_finished(self) -> bool:
        """Never before the last round."""
        return False

    def __str__(self) -> str:
        return f"trial-{self.number}"


def ray_reached(members: int, seed: int) -> float:
    """The same under Ray's PB2: its records, its quantiles and its proposals, round by round."""
    from ray.tune.schedulers import pb2 as scheduler
    from ray.tune.schedulers.pbt import _PBTTrialState

    # It draws from the global generators.
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    bounds: dict[str, Any] = {name: [0.0, 1.0] for name in NAMES}
    ray: Any = scheduler.PB2("round", "score", "max", 1, bounds, QUANTILE, log_config=False, synch=True)
    trials = [Trial(i, values) for i, values in enumerate(initial(members, seed))]
    for trial in trials:
        ray._trial_state[trial] = _PBTTrialState(trial)  # type: ignore[arg-type]
    for step in range(ROUNDS):
        for trial in trials:
            trial.total += gain(trial.config, step)
            ray._save_trial_state(ray._trial_state[trial], step + 1, {"round": step + 1, "score": trial.total}, trial)
        worst, best = ray._quantiles()
        # The last round is not followed by copies.
        for trial in worst if step + 1 < ROUNDS else ():
            donor = random.choice(best)
            trial.config, _ = ray._get_new_config(trial, donor)
            trial.total = donor.total
    return max(trial.total for trial in trials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant(PB2):
    """PB2 as in Ray in one or more respects.

    Args:
        weight: The weight of uncertainty by the number of rows.
        from_zero: Every member has a score of 0 before the first round, so the first copies have rows to model.
        newest_start: A candidate starts from the score before the donor's last round, not from its current one.
        only_copies: Only the copies decided in the same round are pending, not the members that continue.
    """

    weight: Callable[[int], float] = surrogate.confidence
    from_zero: bool = False
    newest_start: bool = False
    only_copies: bool = False

    def _wave(self, view: View, ready: Sequence[Member]) -> Wave:
        if self.from_zero and not view.memory:
            view = replace(view, memory={"opened": {str(member.id): [member.round, 0.0] for member in ready}})
        return PB2._wave(self, view, ready)

    def _explore(self, member: Member, donor: Member, wave: Wave) -> tuple[HParams, dict[str, Value], str]:
        before = wave.view.memory.get("opened", {}).get(str(donor.id))
        if self.newest_start and before:
            donor = _with_score(donor, before[1])
        continuing = len(wave.view.population) - number_replaced(self.quantile, len(wave.view.population))
        with self._patched(continuing):
            return PB2._explore(self, member, donor, wave)

    @contextmanager
    def _patched(self, continuing: int) -> Iterator[None]:
        def propose(kernel: Any, seen: Any, values: Any, pending: Any, *rest: Any) -> Any:
            if self.only_copies:
                pending = surrogate._only(pending, range(continuing, len(pending.times)))
            return surrogate.propose(kernel, seen, values, pending, *rest)

        with patch.object(surrogate, "confidence", self.weight), patch.object(pb2, "propose", propose):
            yield


def _with_score(member: Member, score: float) -> Member:
    return Member(
        id=member.id,
        hparams=member.hparams,
        step=member.step,
        state=member.state,
        scores=(score,),
        round=member.round,
        opened=member.opened,
    )


def published_weight(rows: int) -> float:
    """The weight of uncertainty in Ray's program, and in that of the authors."""
    return math.sqrt(0.2 + max(0.0, math.log(0.4 * rows)))


# Those of Ray's forms that are not the default.
AS_RAY: Mapping[str, Mapping[str, Any]] = {
    "weight": {"weight": published_weight},
    "score before the first round": {"from_zero": True},
    "start of the newest row": {"newest_start": True},
    "only copies pending": {"only_copies": True},
}
PLANS: Mapping[str, Strategy] = {
    "pb2": PB2(),
    "variance not refitted": PB2(refit=False),
    "bg-pbt": BGPBT(),
    "pb2-mix": PB2Mix(horizon=ROUNDS),
    "pbt": pbt.Plan(exploit=pbt.truncation(QUANTILE), explore=pbt.perturb((0.8, 1.25)), interval=1),
    **{name: Variant(**settings) for name, settings in AS_RAY.items()},
    "all four": Variant(**{key: value for settings in AS_RAY.values() for key, value in settings.items()}),
}
RAY = "ray"


def results(name: str, members: int, seeds: Sequence[int], problem: str = "tracking") -> npt.NDArray[np.float64]:
    """The results of one side."""
    if name == RAY:
        return np.array([ray_reached(members, seed) for seed in seeds])
    return np.array([reached(PLANS[name], members, seed, problem) for seed in seeds])


def main() -> None:
    """Print a table per size of the population."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pb2_runs", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="seeds per row (default: 20)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: 0)")
    parser.add_argument("--members", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--plans", nargs="+", default=[*PLANS, RAY], choices=[*PLANS, RAY])
    parser.add_argument("--problem", choices=PROBLEMS, default="tracking", help="Ray has only tracking")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    # The reference fits without noise, so its fits often end with a warning.
    warnings.simplefilter("ignore")
    seeds = range(options.first, options.first + options.seeds)
    for members in options.members:
        print(f"\n| {members} members | score, mean ± standard error | minus the first | better | CPU s per run |")
        print("|---|---|---|---|---|")
        first = None
        for name in options.plans:
            start = time.process_time()
            found = results(name, members, seeds, options.problem)
            seconds = (time.process_time() - start) / len(seeds)
            first = found if first is None else first
            apart = found - first
            row = f"{_with_error(found)} | {_with_error(apart)} | {(apart > 0).sum()} of {len(seeds)} | {seconds:.1f}"
            print(f"| {name} | {row} |", flush=True)


def _with_error(values: npt.NDArray[np.float64]) -> str:
    return f"{values.mean():.2f} ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}"


if __name__ == "__main__":
    main()
