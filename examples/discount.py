"""A discount factor that evolves by its distance from one, such as 0.9, 0.99, 0.999.

Shows: `scale="one_minus_log"`. A factor of 1.25 would increase a discount of 0.9 above one. On this scale 1 - discount
is sampled and multiplied, and with it the horizon 1 / (1 - discount).

The task is Q-learning in a corridor with a small reward at its left end and a large one at its right. With a short
horizon the large reward has no value far away; with a long one both directions have similar values for a long time.

    pbt run examples/discount.py:experiment
"""

import numpy as np

import pbt

LENGTH, SMALL, LARGE, CAP = 16, 0.2, 1.0, 60
LEFT, RIGHT = 0, 1


def walk(values, position, explore, draws):
    """Yield position, action, next position, reward and whether the walk ended, for each step of one walk."""
    for _ in range(CAP):
        action = int(values[position, RIGHT] > values[position, LEFT])
        if explore and draws.random() < explore:
            action = int(draws.integers(2))
        following = position + (1 if action == RIGHT else -1)
        end = following in (0, LENGTH)
        yield position, action, following, (LARGE if following == LENGTH else SMALL) if end else 0.0, end
        if end:
            return
        position = following


def train(hparams, state, steps, ctx):
    """Train; a step is one walk from a random position, with an update per move."""
    values = np.zeros((LENGTH + 1, 2)) if state is None else state["values"].copy()
    for step in range(ctx.first_step, ctx.first_step + steps):
        draws = np.random.default_rng(ctx.key("walk", ctx.member, step))
        start = int(draws.integers(1, LENGTH))
        for position, action, following, reward, end in walk(values, start, hparams["explore"], draws):
            worth = reward if end else hparams["discount"] * values[following].max()
            values[position, action] += hparams["lr"] * (worth - values[position, action])
    return {"values": values}, score(values)


def score(values):
    """Mean reward of one greedy walk from each position; undiscounted, so that members are comparable."""
    return sum(reward for start in range(1, LENGTH) for *_, reward, _ in walk(values, start, 0.0, None)) / (LENGTH - 1)


experiment = pbt.Experiment(
    task=train,
    space={
        "discount": pbt.Float(0.5, 0.9999, "one_minus_log", prior=(0.5, 0.99)),
        "explore": pbt.Float(0.1, 1.0, "log"),
        "lr": pbt.Float(0.05, 1.0, "log"),
    },
    plan=pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.8, 1.25)), interval=20),
    population=8,
    rounds=20,
)

if __name__ == "__main__":
    run = experiment.run()
    print(f"mean reward {run.best.score:.2f}; the maximum is {LARGE}")
    print(*run.best_schedule.segments, sep="\n")
