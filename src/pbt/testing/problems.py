"""Toy problems with known answers, which test an algorithm in seconds and without a GPU.

Each is a task, a space and the arguments of a run: `pbt.run(**problems.NQM, seed=3)`, or, with another plan,
`pbt.run(**problems.NQM | {"plan": ...})`. They are deterministic (all randomness is the algorithm's), keep float64 in
their states, and give the same bits however training is divided into rounds. An algorithm's result is the best score of
the population at the end. `docs/benchmarks-problems.md` describes the purpose of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pbt.core.exploit import truncation
from pbt.core.explore import jitter, perturb
from pbt.core.schedule import Schedule, Segment
from pbt.core.strategy import Plan
from pbt.domains import Float
from pbt.executors.worker import Context

Arguments = dict[str, Any]
Values = Mapping[str, Any]
Numbers = dict[str, float]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fig2:
    """The example of two workers in the paper that introduced PBT (Jaderberg et al. 2017, arXiv 1711.09846, figure 2).

    Maximize Q = 1.2 - (t0^2 + t1^2) by gradient ascent on the surrogate 1.2 - (h0 t0^2 + h1 t1^2), from (0.9, 0.9). A
    member with h = (1, 0) never moves t1, and one with (0, 1) never moves t0: only both together reach the maximum,
    1.2. Q, the start and the initial h are the paper's; it does not state the step size.

    Args:
        lr: The step size.
    """

    lr: float = 0.01

    def __call__(self, hparams: Values, state: Numbers | None, steps: int, ctx: Context) -> tuple[Numbers, float]:  # noqa: ARG002 (the form of a task)
        """Steps of gradient ascent; the score is Q."""
        t0, t1 = (0.9, 0.9) if state is None else (state["t0"], state["t1"])
        for _ in range(steps):
            t0 -= self.lr * 2 * hparams["h0"] * t0
            t1 -= self.lr * 2 * hparams["h1"] * t1
        return {"t0": t0, "t1": t1}, 1.2 - (t0**2 + t1**2)


FIG2_SPACE = {"h0": Float(0.0, 1.0), "h1": Float(0.0, 1.0)}
FIG2_INITIAL = ({"h0": 1.0, "h1": 0.0}, {"h0": 0.0, "h1": 1.0})

# Both members start with equal scores, so a tie must copy; and a factor would never change an h of zero.
FIG2: Arguments = {
    "task": Fig2(),
    "space": FIG2_SPACE,
    "plan": Plan(exploit=truncation(0.5, ties="copy"), explore=jitter(0.1), interval=4),
    "population": 2,
    "rounds": 50,
    "initial": FIG2_INITIAL,
}

NQM_CURVATURE: Vector = 1.0 / np.arange(1.0, 101.0)
"""The eigenvalues of the quadratic, 1/i; also the variance of its gradient noise, up to a factor 0.1."""
NQM_INITIAL_LOSS = float(NQM_CURVATURE.sum()) / 2


def noisy_quadratic(
    hparams: Values,
    state: dict[str, Vector] | None,
    steps: int,
    ctx: Context,  # noqa: ARG001 (the form of a task)
) -> tuple[dict[str, Vector], float]:
    """SGD with learning rate `lr` on the noisy quadratic model, in expectation; the score is minus the loss.

    The model of Schaul et al. 2013 (arXiv 1206.1106), with the eigenvalues and the noise of Zhang et al. 2019
    (arXiv 1907.04164): the second moment of coordinate i becomes (1 - lr c_i)^2 v_i + 0.1 lr^2 c_i. The noise is
    averaged analytically, so the loss of a schedule is exact. A high rate is needed early and a low one late; greedy
    selection lowers it too early (Wu et al. 2018, arXiv 1803.02021).
    """
    moments = np.ones_like(NQM_CURVATURE) if state is None else state["moments"]
    moments = _descend(moments, hparams["lr"], steps)
    return {"moments": moments}, -_loss(moments)


def _descend(moments: Vector, lr: float, steps: int) -> Vector:
    shrink, noise = (1 - lr * NQM_CURVATURE) ** 2, 0.1 * lr**2 * NQM_CURVATURE
    moments = moments.copy()
    for _ in range(steps):
        moments *= shrink
        moments += noise
    return moments


def _loss(moments: Vector) -> float:
    return float((NQM_CURVATURE * moments).sum()) / 2


def nqm_loss(schedule: Schedule) -> float:
    """The loss of the noisy quadratic model at the end of a schedule of `lr`."""
    moments = np.ones_like(NQM_CURVATURE)
    for segment in schedule.segments:
        values: Values = segment.hparams
        moments = _descend(moments, values["lr"], segment.stop - segment.start)
    return _loss(moments)


NQM_SPACE = {"lr": Float(1e-4, 1.9, scale="log")}
NQM: Arguments = {
    "task": noisy_quadratic,
    "space": NQM_SPACE,
    "plan": Plan(exploit=truncation(0.2), explore=perturb((0.8, 1.25)), interval=20),
    "population": 20,
    "rounds": 50,
}

TOY_BLOCK = 20
"""Steps of a block in the two problems below, counted from step 0, independent of the rounds."""
TOY_RATE = 0.002


@dataclass(frozen=True, slots=True)
class ToyPlain:
    """A problem on which greedy selection is right (after Chebykin et al., TMLR 2025): a smaller `h` is always better.

    Maximize 1.2 - t^2 by steps t -= 0.002 (2 - h) t, from 0.9.

    Args:
        curve: Also return `series`: the objective before each step of the round.
    """

    curve: bool = False

    def __call__(self, hparams: Values, state: Numbers | None, steps: int, ctx: Context) -> tuple[Numbers, Values]:  # noqa: ARG002 (the form of a task)
        """Steps of gradient ascent; the score is the objective."""
        t = 0.9 if state is None else state["t"]
        rate = TOY_RATE * (2 - hparams["h"])
        curve = []
        for _ in range(steps):
            if self.curve:
                curve.append(1.2 - t**2)
            t -= rate * t
        return {"t": t}, _metrics(1.2 - t**2, curve)


@dataclass(frozen=True, slots=True)
class ToyDeceptive:
    """A problem on which greedy selection is wrong (after Chebykin et al., TMLR 2025): a small `h` has a delayed cost.

    Like `ToyPlain`, but the distance of `h` from a linear decay, 1 - step / 1000 at the start of each block of 20
    steps, accumulates as a debt that is part of the weights and is inherited with them:
    t -= 0.002 max(2 - h - 0.2 debt, 0) t.

    Args:
        curve: Also return `series`: the objective before each step of the round.
    """

    curve: bool = False

    def __call__(self, hparams: Values, state: Numbers | None, steps: int, ctx: Context) -> tuple[Numbers, Values]:
        """Steps of gradient ascent; the score is the objective before the last one."""
        t, debt = (0.9, 0.0) if state is None else (state["t"], state["debt"])
        h, before = hparams["h"], t
        curve = []
        for step in range(ctx.first_step, ctx.first_step + steps):
            if step % TOY_BLOCK == 0:
                debt += abs(h - (1000 - step) / 1000)
            before = t
            if self.curve:
                curve.append(1.2 - t**2)
            t -= TOY_RATE * max(2 - h - 0.2 * debt, 0.0) * t
        return {"t": t, "debt": debt}, _metrics(1.2 - before**2, curve)


def _metrics(score: float, curve: Sequence[float]) -> Values:
    return {"score": score, "series": curve} if curve else {"score": score}


TOY_SPACE = {"h": Float(1e-4, 1.1, prior=(0.9, 1.1))}
TOY_PLAN = Plan(exploit=truncation(0.25), explore=perturb((0.5, 2.0)), interval=TOY_BLOCK)
TOY_PLAIN: Arguments = {"task": ToyPlain(), "space": TOY_SPACE, "plan": TOY_PLAN, "population": 22, "rounds": 50}
TOY_DECEPTIVE: Arguments = TOY_PLAIN | {"task": ToyDeceptive()}


def blocks(name: str, values: Sequence[float], steps: int) -> Schedule:
    """A schedule in which `name` has each of the values for `steps` steps."""
    return Schedule(
        tuple(Segment(start=i * steps, stop=(i + 1) * steps, hparams={name: value}) for i, value in enumerate(values))
    )
