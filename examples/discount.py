"""A discount factor that evolves by its distance from one, as 0.9, 0.99, 0.999 do.

What one learns: `scale="one_minus_log"`. A factor of 1.25 would take a discount of 0.9 beyond one; on this scale
1 - discount is what is drawn and multiplied, and with it the horizon 1 / (1 - discount).

The task: a corridor with a small reward at its left end and a large one at its right, learned by Q-learning. With a
short horizon the large one is worth nothing far away from it; with a long one both ways look alike for long.

    pbt run examples/discount.py:experiment
"""

import numpy as np

import pbt

LENGTH, SMALL, LARGE, CAP = 16, 0.2, 1.0, 60
LEFT, RIGHT = 0, 1


def walk(values, place, explore, draws):
    """One walk: yields the place, the action, the next place, the reward, and whether it ended there."""
    for _ in range(CAP):
        action = int(values[place, RIGHT] > values[place, LEFT])
        if explore and draws.random() < explore:
            action = int(draws.integers(2))
        following = place + (1 if action == RIGHT else -1)
        end = following in (0, LENGTH)
        yield place, action, following, (LARGE if following == LENGTH else SMALL) if end else 0.0, end
        if end:
            return
        place = following


def train(hparams, state, steps, ctx):
    """A step is one walk from anywhere, learned from as it goes."""
    values = np.zeros((LENGTH + 1, 2)) if state is None else state["values"].copy()
    for step in range(ctx.first_step, ctx.first_step + steps):
        draws = np.random.default_rng(ctx.key("walk", ctx.member, step))
        start = int(draws.integers(1, LENGTH))
        for place, action, following, reward, end in walk(values, start, hparams["explore"], draws):
            worth = reward if end else hparams["discount"] * values[following].max()
            values[place, action] += hparams["lr"] * (worth - values[place, action])
    return {"values": values}, score(values)


def score(values):
    """The mean reward of one walk from each place without exploration: not discounted, so members can be compared."""
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
    print(f"mean reward {run.best.score:.2f}; {LARGE} is the best there is")
    print(*run.best_schedule.segments, sep="\n")
