"""Reinforcement learning with gymnasium: CartPole with a linear policy of four weights, trained by REINFORCE.

Shows: a task as one function `(hparams, state, steps, ctx) -> (state, metrics)` with a state of plain arrays; seeding
of episodes for repeatable runs; and `series`: the t-test compares the last ten returns of two members, and copies only
if the difference is significant.

    pip install 'population-based-training[problems]'
    pbt run examples/cartpole.py:experiment
"""

import gymnasium
import numpy as np

import pbt


def episode(weights, seed):
    """Play one episode of CartPole-v1; return its states, actions and return."""
    env = gymnasium.make("CartPole-v1")
    seen, done = env.reset(seed=seed)[0], False
    draws = np.random.default_rng(seed)
    states, actions = [], []
    while not done:
        action = int(draws.random() < 1 / (1 + np.exp(-weights @ seen)))
        states.append(seen)
        actions.append(action)
        seen, _, fallen, late, _ = env.step(action)
        done = fallen or late
    return np.array(states), np.array(actions), len(actions)


def gradient(weights, episodes):
    """REINFORCE: increase the probability of actions before a high return-to-go (Williams 1992)."""
    states = np.concatenate([states for states, _, _ in episodes])
    actions = np.concatenate([actions for _, actions, _ in episodes])
    to_come = np.concatenate([np.arange(length, 0, -1) for _, _, length in episodes])
    advantage = (to_come - to_come.mean()) / (to_come.std() + 1e-6)
    surprise = actions - 1 / (1 + np.exp(-states @ weights))
    return (surprise * advantage) @ states / len(states)


def train(hparams, state, steps, ctx):
    """Train; a step is one iteration of five episodes."""
    state = dict(state or {"weights": np.zeros(4), "returns": []})
    for step in range(ctx.first_step, ctx.first_step + steps):
        # Keyed by member, step and episode, so that draws depend neither on other members nor on rounds.
        played = [episode(state["weights"], ctx.key(ctx.member, step, i)) for i in range(5)]
        state["weights"] = state["weights"] + hparams["lr"] * gradient(state["weights"], played)
        state["returns"] = (state["returns"] + [length for _, _, length in played])[-10:]
    return state, {"score": np.mean(state["returns"]), "series": state["returns"]}


experiment = pbt.Experiment(
    task=train,
    space={"lr": pbt.Float(0.01, 100.0, "log", prior=(0.1, 10.0))},
    plan=pbt.Plan(exploit=pbt.t_test(alpha=0.05), explore=pbt.perturb((0.5, 2.0)), interval=2),
    population=6,
    rounds=15,
)

if __name__ == "__main__":
    run = experiment.run()
    weights = run.load_state()["weights"]
    fresh = [episode(weights, seed)[2] for seed in range(20)]
    print(f"mean return {run.best.score:.0f} during training, {np.mean(fresh):.0f} in 20 new episodes")
    print(*run.best_schedule.segments, sep="\n")
