"""CartPole with a linear policy of four weights, trained by REINFORCE in seconds.

Tests noisy scores. The score is the mean of the last ten episode returns, which are also reported as `series` for a
t-test; a learning rate that is too high destroys the policy. `test` is the mean return of 50 separate episodes.

The dynamics, including the initial state for a seed, are those of gymnasium's CartPole-v1. All episodes of a step are
simulated as one array, without gymnasium and several times as fast. References: Barto, Sutton and Anderson 1983 (the
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
from pbt.domains import Float
from pbt.executors.worker import Context
from pbt.runs.experiment import Experiment

Array = npt.NDArray[np.float64]

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, TICK = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
MASS = CART + POLE
LIMITS = np.array([[2.4], [12 * np.pi / 180]])
"""Bounds of the cart's position and the pole's angle."""
CAP = 500
"""Longest episode in steps, which is the highest return."""
EPISODES = 5
"""Episodes per iteration."""
KEPT = 10
"""Number of latest returns averaged as the score."""
TESTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """Record of n episodes of at most T steps.

    Args:
        states: Position, velocity, angle and angular velocity before each step, (T, 4, n).
        right: Whether the cart is pushed to the right, (T, n).
        lengths: Steps of each episode, which are its return, (n,).
    """

    states: Array
    right: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64]


def starts(seeds: Sequence[int]) -> Array:
    """Initial states (4, n) of CartPole-v1 for these seeds."""
    return np.stack([np.random.default_rng(seed).uniform(-0.05, 0.05, 4) for seed in seeds], axis=1)


def advance(states: Array, right: npt.NDArray[np.bool_]) -> Array:
    """States (4, n) after one Euler step."""
    _, speed, angle, turning = states
    cos, sin = np.cos(angle), np.sin(angle)
    push = (np.where(right, FORCE, -FORCE) + POLE * HALF_LENGTH * turning**2 * sin) / MASS
    turn = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE * cos**2 / MASS))
    pull = push - POLE * HALF_LENGTH * turn * cos / MASS
    return states + TICK * np.stack([speed, pull, turning, turn])


def play(weights: Array, begin: Array, levels: Array) -> Episodes:
    """Play episodes to their end; the action is right with probability sigmoid(weights . state).

    Args:
        weights: Weights of the policy, (4,).
        begin: Initial states, (4, n).
        levels: Draws from the logistic distribution, (500, n); a draw is below z with probability sigmoid(z).
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
    """Policy gradient: mean over steps of grad log p(action) times the standardized return-to-go."""
    alive = np.arange(len(played.right))[:, None] < played.lengths
    to_come = (played.lengths - np.arange(len(played.right))[:, None])[alive].astype(np.float64)
    advantage = (to_come - to_come.mean()) / (to_come.std() + 1e-6)
    states = played.states.transpose(0, 2, 1)[alive]
    # Derivative of log sigmoid: action minus its probability, written as tanh to avoid overflow.
    surprise = played.right[alive] - 0.5 * (1 + np.tanh(states @ weights / 2))
    gradient: Array = (surprise * advantage) @ states / len(states)
    return gradient


def reinforce(
    hparams: Mapping[str, Any], state: dict[str, Any] | None, steps: int, ctx: Context
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train iterations of five episodes each; the hyperparameter is the learning rate `lr`.

    `env_steps` counts the environment steps that the weights were trained on, including those of their ancestors.
    """
    state = {"weights": np.zeros(4), "returns": np.zeros(0), "env_steps": 0} if state is None else dict(state)
    for iteration in range(ctx.first_step, ctx.first_step + steps):
        played = _keyed(state["weights"], EPISODES, ctx, "train", ctx.member, iteration)
        state["weights"] = state["weights"] + hparams["lr"] * slope(state["weights"], played)
        state["returns"] = np.append(state["returns"], played.lengths)[-KEPT:]
        state["env_steps"] += int(played.lengths.sum())
    test = _keyed(state["weights"], TESTS, ctx, "test")  # the same episodes for all members and rounds
    return state, {
        "score": float(state["returns"].mean()),
        "series": state["returns"].tolist(),
        "test": float(test.lengths.mean()),
        "env_steps": state["env_steps"],
    }


def _keyed(weights: Array, count: int, ctx: Context, *purpose: str | int) -> Episodes:
    """Play episodes seeded by their purpose; the policy's draws have a separate key."""
    begin = starts([ctx.key(*purpose, "episode", i) for i in range(count)])
    return play(weights, begin, np.random.default_rng(ctx.key(*purpose, "actions")).logistic(size=(CAP, count)))


def cartpole() -> Experiment:
    """150 iterations with initial learning rates from 0.01 to 1, which are low; the bound is 100."""
    return Experiment(
        task=reinforce,
        space={"lr": Float(0.01, 100.0, "log", prior=(0.01, 1.0))},
        plan=Plan(exploit=truncation(0.25), explore=perturb((0.5, 2.0)), interval=2),
        population=8,
        rounds=75,
    )
