"""Low-rank adapters on a frozen network, as in LoRA (Hu et al. 2021, arXiv 2106.09685).

Shows: only the parts that `build` returns are saved and copied. The frozen network is not a part, so a copy between
members transfers only the adapters, however large the network is. The network is built once per worker.

    pbt run examples/adapters.py:experiment
"""

from functools import cache

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import pbt
from pbt.pytorch import attribute, optimizer

SIZE, HIDDEN, CLASSES, RANK = 32, 128, 8, 4


def examples(n, seed, *, shifted):
    """Points around eight centers; in the shifted data half of the coordinates are exchanged."""
    centers = torch.randn(CLASSES, SIZE, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (n,), generator=draws)
    x = centers[y] + 1.5 * torch.randn(n, SIZE, generator=draws)
    return (torch.cat([x[:, : SIZE // 2].flip(1), x[:, SIZE // 2 :]], dim=1) if shifted else x), y


@cache
def frozen():
    """A network pretrained on the original data."""
    with torch.random.fork_rng():  # later draws must not depend on when the network was built
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(SIZE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    x, y = examples(2000, seed=1, shifted=False)
    for _ in range(100):
        adam.zero_grad()
        cross_entropy(model(x), y).backward()
        adam.step()
    return model.requires_grad_(False)


class Adapter(nn.Module):
    """Adds a product of two thin matrices to a frozen layer; initially the product is zero."""

    def __init__(self, layer):
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, RANK))

    def forward(self, x):
        return x @ self.down.T @ self.up.T


class Adapters(nn.Module):
    """One adapter per layer; `scale` is their weight."""

    def __init__(self, first, last):
        super().__init__()
        self.first, self.last, self.scale = Adapter(first), Adapter(last), 1.0

    def forward(self, x):
        first, relu, last = frozen()
        hidden = relu(first(x) + self.scale * self.first(x))
        return last(hidden) + self.scale * self.last(hidden)


class Adaptation:
    bind = {
        "lr": optimizer("lr"),
        "weight_decay": optimizer("weight_decay"),
        "scale": attribute("adapters.scale"),
    }

    def build(self, hparams, ctx):
        first, _, last = frozen()
        adapters = Adapters(first, last)
        return {"adapters": adapters, "optimizer": torch.optim.AdamW(adapters.parameters())}

    def train(self, parts, hparams, steps, ctx):
        x, y = examples(400, seed=2, shifted=True)  # few: examples of the shifted data are expensive
        for step in range(ctx.first_step, ctx.first_step + steps):
            draws = torch.Generator().manual_seed(ctx.key("batch", ctx.member, step))
            rows = torch.randint(len(x), (40,), generator=draws)
            parts["optimizer"].zero_grad()
            cross_entropy(parts["adapters"](x[rows]), y[rows]).backward()
            parts["optimizer"].step()

    @torch.no_grad()
    def evaluate(self, parts, ctx):
        x, y = examples(1000, seed=3, shifted=True)
        outputs = parts["adapters"](x)
        return {"score": -float(cross_entropy(outputs, y)), "accuracy": float((outputs.argmax(1) == y).float().mean())}


experiment = pbt.Experiment(
    task=Adaptation(),
    space={
        "lr": pbt.Float(1e-5, 1e-1, "log", prior=(1e-5, 1e-2)),
        "weight_decay": pbt.Float(1e-4, 10.0, "log"),
        "scale": pbt.Float(0.1, 10.0, "log"),
    },
    plan=pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.8, 1.25)), interval=20),
    population=8,
    rounds=15,
)

if __name__ == "__main__":
    run = experiment.run()
    numbers = sum(p.numel() for p in frozen().parameters())
    handed = sum(tensor.numel() for tensor in run.load_state()["adapters"].values())
    print(f"validation loss {-run.best.score:.3f}, accuracy {run.best.reported['accuracy']:.3f}")
    print(f"{handed:,} numbers copied, {numbers:,} frozen", *run.best_schedule.segments, sep="\n")
