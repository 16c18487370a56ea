"""Your own training loop: a class with `build`, `train` and `evaluate` over ordinary PyTorch.

Shows: `bind`, which applies hyperparameters; `argument`, for values that your code reads itself; and keyed random
draws, which give the same bits for any length of a round.

    pbt run examples/own_loop.py:experiment
"""

import math

import torch

import pbt
from pbt.pytorch import argument, optimizer

TURNS = 1.5 * math.pi


def spirals(n, seed):
    """Points of two intertwined spirals, with labels."""
    draws = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 2
    turn = TURNS * torch.rand(n, generator=draws).sqrt()
    angle = turn + math.pi * label
    points = torch.stack([turn * angle.cos(), turn * angle.sin()], dim=1) / TURNS
    return points + 0.02 * torch.randn(n, 2, generator=draws), label


TRAIN, VALIDATION, TEST = spirals(1000, seed=1), spirals(500, seed=2), spirals(500, seed=3)


class Spirals:
    # Each value is applied and read back before every round; an unbound hyperparameter is an error.
    bind = {"lr": optimizer("lr"), "momentum": optimizer("momentum"), "noise": argument()}

    def build(self, hparams, ctx):
        """Build new parts. Parts with a `state_dict` are saved, and transferred by copies between members."""
        model = torch.nn.Sequential(
            torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)
        ).to(ctx.device)
        return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)}

    def train(self, parts, hparams, steps, ctx):
        model, sgd = parts["model"], parts["optimizer"]
        for step in range(ctx.first_step, ctx.first_step + steps):
            draws = torch.Generator().manual_seed(ctx.key("batch", ctx.member, step))
            rows = torch.randint(len(TRAIN[0]), (50,), generator=draws)
            x, y = (part[rows].to(ctx.device) for part in TRAIN)
            x = x + hparams["noise"] * torch.randn(x.shape, generator=draws).to(ctx.device)
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            sgd.step()

    @torch.no_grad()
    def evaluate(self, parts, ctx):
        """Return the score on validation data; other metrics are reported and do not influence selection."""

        def accuracy(x, y):
            return float((parts["model"](x.to(ctx.device)).argmax(dim=1) == y.to(ctx.device)).float().mean())

        return {"score": accuracy(*VALIDATION), "test": accuracy(*TEST)}


experiment = pbt.Experiment(
    task=Spirals(),
    space={
        "lr": pbt.Float(1e-4, 1.0, "log"),
        "momentum": pbt.Float(0.0, 0.99, "one_minus_log"),
        "noise": pbt.Float(0.0, 0.2),
    },
    plan=pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.8, 1.25)), interval=50),
    population=8,
    rounds=15,
)

if __name__ == "__main__":
    run = experiment.run()
    print(f"validation accuracy {run.best.score:.3f}, test accuracy {run.best.reported['test']:.3f}")
    print(*run.best_schedule.segments, sep="\n")
