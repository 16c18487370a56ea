"""Hyperparameters that exist only under a condition, and names with dots.

Shows: `when=(name, value)`. The width of the noise exists only for members that add noise to their examples, the
strength of the mixing only for members that mix them. When evolution changes the choice, obsolete hyperparameters are
removed and new ones drawn from their prior; a copy takes the complete set.

    pbt run examples/conditional.py:experiment
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import pbt
from pbt.pytorch import argument, optimizer

SIZE, CLASSES, BATCH = 20, 5, 20


def examples(n, seed):
    """Points around five centers that overlap strongly."""
    centers = torch.randn(CLASSES, SIZE, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (n,), generator=draws)
    return centers[y] + 2 * torch.randn(n, SIZE, generator=draws), y


# So few that a network memorizes them without regularization.
TRAIN, VALIDATION = examples(100, seed=1), examples(1000, seed=2)


def augmented(x, y, hparams, draws):
    """Augment a batch; return it with its targets as probabilities."""
    target = nn.functional.one_hot(y, CLASSES).float()
    if hparams["augment.kind"] == "noise":
        return x + hparams["augment.noise.width"] * torch.randn(x.shape, generator=draws), target
    if hparams["augment.kind"] == "mixing":
        share = 1 - 0.5 * hparams["augment.mixing.strength"] * torch.rand(len(x), 1, generator=draws)
        other = torch.randperm(len(x), generator=draws)
        return share * x + (1 - share) * x[other], share * target + (1 - share) * target[other]
    return x, target


class Classifier:
    bind = {
        "optimizer.lr": optimizer("lr"),
        "optimizer.weight_decay": optimizer("weight_decay"),
        "augment.kind": argument(),
        "augment.noise.width": argument(),
        "augment.mixing.strength": argument(),
    }

    def build(self, hparams, ctx):
        model = nn.Sequential(nn.Linear(SIZE, 64), nn.ReLU(), nn.Linear(64, CLASSES))
        return {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}

    def train(self, parts, hparams, steps, ctx):
        for step in range(ctx.first_step, ctx.first_step + steps):
            draws = torch.Generator().manual_seed(ctx.key("batch", ctx.member, step))
            rows = torch.randint(len(TRAIN[0]), (BATCH,), generator=draws)
            x, target = augmented(TRAIN[0][rows], TRAIN[1][rows], hparams, draws)
            parts["optimizer"].zero_grad()
            cross_entropy(parts["model"](x), target).backward()
            parts["optimizer"].step()

    @torch.no_grad()
    def evaluate(self, parts, ctx):
        outputs = parts["model"](VALIDATION[0])
        right = (outputs.argmax(dim=1) == VALIDATION[1]).float().mean()
        return {"score": -float(cross_entropy(outputs, VALIDATION[1])), "accuracy": float(right)}


experiment = pbt.Experiment(
    task=Classifier(),
    space={
        "optimizer.lr": pbt.Float(1e-5, 1e-1, "log", prior=(1e-4, 1e-2)),
        "optimizer.weight_decay": pbt.Float(1e-3, 10.0, "log"),
        "augment.kind": pbt.Choice(("none", "noise", "mixing")),
        "augment.noise.width": pbt.Float(0.1, 4.0, "log", when=("augment.kind", "noise")),
        "augment.mixing.strength": pbt.Float(0.1, 1.0, when=("augment.kind", "mixing")),
    },
    # Perturbing an unordered choice resamples it, so each value is perturbed only with probability 0.5.
    plan=pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.random_subset(pbt.perturb(), 0.5), interval=20),
    population=12,
    rounds=15,
)

if __name__ == "__main__":
    run = experiment.run()
    print(f"validation loss {-run.best.score:.3f}, accuracy {run.best.reported['accuracy']:.3f}")
    print(*run.best_schedule.segments, sep="\n")
