"""A pole on a cart, balanced by four weights that learn by REINFORCE: reinforcement learning in seconds.

Good for: noisy scores. The score is the mean of the last ten episode returns, which come as `series` for a t-test; a
learning rate that is too high loses what was learned. `test` is the mean return of 50 episodes that train nobody.

The physics are those of gymnasium's CartPole-v1, a first state by the same seed included, but all episodes of a step
move as one array: it needs no gymnasium and is several times as fast. References: Barto, Sutton and Anderson 1983 (the
pole); Williams 1992 (REINFORCE).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pbt.core.exploit import truncation
from pbt.core.explore import perturb
from pbt.core.strategy import Plan
from pbt.executors.worker import Context
from pbt.runs.experiment import Experiment
from pbt.space import Float

Array = npt.NDArray[np.float64]

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TICK = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
MASS = CART + POLE
LIMITS = np.array([[2.4], [12 * np.pi / 180]])
"""Of the cart's place and the pole's angle."""
CAP = 500
"""Steps of an episode, and so the highest return."""
EPISODES = 5
"""Of an iteration."""
KEPT = 10
"""Newest returns that make the score."""
TESTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """What happened in n episodes of at most T steps.

    Args:
        states: Place, speed, angle and angular speed before each step, (T, 4, n).
        right: Whether the cart was pushed to the right, (T, n).
        lengths: Steps of each episode, and so its return, (n,).
    """

    states: Array
    right: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64]


def starts(seeds: Sequence[int]) -> Array:
    """The states (4, n) in which CartPole-v1 begins when it is reset with these seeds."""
    return np.stack([np.random.default_rng(seed).uniform(-0.05, 0.05, 4) for seed in seeds], axis=1)


def advance(states: Array, right: npt.NDArray[np.bool_]) -> Array:
    """The states (4, n) one Euler step later."""
    _, speed, angle, turning = states
    cos, sin = np.cos(angle), np.sin(angle)
    push = (np.where(right, FORCE, -FORCE) + POLE * HALF_LENGTH * turning**2 * sin) / MASS
    turn = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE * cos**2 / MASS))
    pull = push - POLE * HALF_LENGTH * turn * cos / MASS
    return states + TICK * np.stack([speed, pull, turning, turn])


def play(weights: Array, begin: Array, levels: Array) -> Episodes:
    """Episodes until each has fallen: to the right with probability sigmoid(weights . state).

    Args:
        weights: Of the policy, (4,).
        begin: First states, (4, n).
        levels: Draws from the logistic distribution, (500, n), which lie below z with probability sigmoid(z).
    """
    states, before, pushed = begin, [], []
    lengths = np.zeros(begin.shape[1], dtype=np.int64)
    upright = np.ones(begin.shape[1], dtype=bool)
    for level in levels:
        right = level < weights @ states
        before.append(states)
        pushed.append(right)
        lengths += upright
        states = advance(states, right)
        upright &= (np.abs(states[::2]) <= LIMITS).all(axis=0)
        if not upright.any():
            break
    return Episodes(states=np.stack(before), right=np.stack(pushed), lengths=lengths)


def slope(weights: Array, played: Episodes) -> Array:
    """The policy gradient: the mean over steps of grad log p(action) times the standardized return still to come."""
    alive = np.arange(len(played.right))[:, None] < played.lengths
    to_come = (played.lengths - np.arange(len(played.right))[:, None])[alive].astype(np.float64)
    advantage = (to_come - to_come.mean()) / (to_come.std() + 1e-6)
    states = played.states.transpose(0, 2, 1)[alive]
    # The derivative of log sigmoid: the action less its probability; as a tanh it cannot overflow.
    surprise = played.right[alive] - 0.5 * (1 + np.tanh(states @ weights / 2))
    gradient: Array = (surprise * advantage) @ states / len(states)
    return gradient


def reinforce(
    hparams: Mapping[str, Any], state: dict[str, Any] | None, steps: int, ctx: Context
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Iterations of five episodes each; the hyperparameter is the learning rate `lr`.

    `env_steps` counts the steps of the environment that the weights were trained on, those of their ancestors included.
    """
    state = {"weights": np.zeros(4), "returns": np.zeros(0), "env_steps": 0} if state is None else dict(state)
    for iteration in range(ctx.first_step, ctx.first_step + steps):
        played = _keyed(state["weights"], EPISODES, ctx, "train", ctx.member, iteration)
        state["weights"] = state["weights"] + hparams["lr"] * slope(state["weights"], played)
        state["returns"] = np.append(state["returns"], played.lengths)[-KEPT:]
        state["env_steps"] += int(played.lengths.sum())
    test = _keyed(state["weights"], TESTS, ctx, "test")  # the same episodes for everybody, whenever
    return state, {
        "score": float(state["returns"].mean()),
        "series": state["returns"].tolist(),
        "test": float(test.lengths.mean()),
        "env_steps": state["env_steps"],
    }


def _keyed(weights: Array, count: int, ctx: Context, *purpose: str | int) -> Episodes:
    """Episodes each of which is seeded by what it is for; the policy's draws have a key of their own."""
    begin = starts([ctx.key(*purpose, "episode", i) for i in range(count)])
    return play(weights, begin, np.random.default_rng(ctx.key(*purpose, "actions")).logistic(size=(CAP, count)))


def cartpole() -> Experiment:
    """150 iterations from learning rates between 0.01 and 1, which is low: up to 100 may be found."""
    return Experiment(
        task=reinforce,
        space={"lr": Float(0.01, 100.0, "log", prior=(0.01, 1.0))},
        plan=Plan(exploit=truncation(0.25), explore=perturb((0.5, 2.0)), interval=2),
        population=8,
        rounds=75,
    )
