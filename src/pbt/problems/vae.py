"""A small variational autoencoder on scikit-learn's digits, with a learning rate and a weight of the KL term.

Tests a hyperparameter that changes the training loss. Losses with different weights `beta` cannot be compared, so the
score is the evidence lower bound on validation images, with weight 1 and the same noise for all members. The schedule
shows whether the usual warm-up, a small weight early in training, is discovered.

References: Kingma and Welling 2014 (arXiv 1312.6114); Higgins et al. 2017 (the weight); Sonderby et al. 2016
(arXiv 1602.02282, warm-up).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbt.core.exploit import truncation
from pbt.core.explore import perturb
from pbt.core.strategy import Plan
from pbt.domains import Float
from pbt.executors.worker import Context
from pbt.problems.images import images, splits
from pbt.pytorch import Binding, argument, optimizer
from pbt.runs.experiment import Experiment
from pbt.space import HParams

PIXELS, HIDDEN, CODE = 64, 64, 8
EXAMPLES, BATCH = 1000, 50


class Autoencoder(nn.Module):
    """Encodes an image as a normal distribution of codes, and decodes a code to the logits of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * CODE))
        self.decoder = nn.Sequential(nn.Linear(CODE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The two terms of the negative bound in nats, (n,) each: reconstruction error and divergence.

        Args:
            x: Images, (n, 64).
            noise: Standard normal draws, (n, 8).
        """
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        logits = self.decoder(mean + torch.exp(0.5 * log_variance) * noise)
        error = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return error, divergence


class Vae:
    """Trains the autoencoder with Adam; draws are keyed by member and step, independent of rounds."""

    bind: Mapping[str, Binding] = {"lr": optimizer("lr"), "beta": argument()}

    def build(self, hparams: HParams, ctx: Context) -> dict[str, Any]:  # noqa: ARG002 (the form of a task)
        """A new network and its optimizer."""
        model = Autoencoder().to(ctx.device)
        return {"model": model, "optimizer": torch.optim.Adam(model.parameters())}

    def train(self, parts: Mapping[str, Any], hparams: Mapping[str, Any], steps: int, ctx: Context) -> None:
        """Minimize reconstruction error + beta * divergence."""
        x = tensors(ctx.key("order"), ctx.device)[0]
        for step in range(ctx.first_step, ctx.first_step + steps):
            draws = torch.Generator().manual_seed(ctx.key("step", ctx.member, step))
            batch = torch.randint(len(x), (BATCH,), generator=draws).to(ctx.device)
            noise = torch.randn(BATCH, CODE, generator=draws).to(ctx.device)
            error, divergence = parts["model"](x[batch], noise)
            parts["optimizer"].zero_grad()
            (error + hparams["beta"] * divergence).mean().backward()
            parts["optimizer"].step()

    @torch.no_grad()
    def evaluate(self, parts: Mapping[str, Any], ctx: Context) -> dict[str, float]:
        """The bound on validation images as the score, and on test images as `test`, in nats per image."""
        _, validation, test = tensors(ctx.key("order"), ctx.device)
        error, divergence = _measured(parts["model"], validation, ctx.key("validation"))
        test_error, test_divergence = _measured(parts["model"], test, ctx.key("test"))
        return {
            "score": -(error + divergence),
            "test": -(test_error + test_divergence),
            "reconstruction": error,
            "divergence": divergence,
        }


def _measured(model: nn.Module, x: Tensor, key: int) -> tuple[float, float]:
    """The mean of both terms, with the same noise for every member and round."""
    noise = torch.randn(len(x), CODE, generator=torch.Generator().manual_seed(key)).to(x.device)
    error, divergence = model(x, noise)
    return float(error.mean()), float(divergence.mean())


@lru_cache(maxsize=8)
def tensors(seed: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Training, validation and test images with pixels from 0 to 1."""
    train, validation, test = (torch.from_numpy(x).float().to(device) for x, _ in splits(seed, EXAMPLES))
    return train, validation, test


def vae() -> Experiment:
    """Mostly too low initial learning rates, and weights of the divergence around 1."""
    images()  # reports missing data before the first round
    return Experiment(
        task=Vae(),
        space={"lr": Float(1e-5, 0.1, "log", prior=(1e-4, 1e-2)), "beta": Float(0.05, 4.0, "log")},
        plan=Plan(exploit=truncation(0.25), explore=perturb((0.8, 1.25)), interval=EXAMPLES // BATCH),
        population=8,
        rounds=20,
    )
