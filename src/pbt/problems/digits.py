"""A small network on scikit-learn's 1,797 digits of 8 x 8 pixels; half a second per run.

Tests whether an algorithm finds a learning rate from bad initial values (`digits`: all are far too low), and whether it
harms good ones (`digits_centred`: no gain is possible). Validation has 397 images: scores are multiples of 0.0025, and
ties are common.

Initialization: He et al. 2015 (arXiv 1502.01852). Data: `pbt.problems.images`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from pbt.core.exploit import truncation
from pbt.core.explore import perturb
from pbt.core.strategy import Plan
from pbt.domains import Float
from pbt.executors.worker import Context
from pbt.problems.images import Array, Labels, images, splits
from pbt.runs.experiment import Experiment

Weights = dict[str, Array]

SIZES = (64, 32, 10)
BATCH = 50
MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class DigitsMlp:
    """A network 64-32-10 trained by SGD with momentum 0.9, as float64 arrays; the hyperparameter is `lr`.

    Batches of 50 are drawn with replacement per member. The score is validation accuracy; `test` is test accuracy.

    Args:
        examples: Number of training images, at most 1,000.
    """

    examples: int = 1000

    def __call__(
        self, hparams: Mapping[str, Any], state: Weights | None, steps: int, ctx: Context
    ) -> tuple[Weights, dict[str, float]]:
        """Train; the score of a diverged member is NaN."""
        data = splits(ctx.key("order"), self.examples)
        weights = initial(ctx.key("init", ctx.member)) if state is None else {k: v.copy() for k, v in state.items()}
        with np.errstate(all="ignore"):  # divergence is reported by the score
            for step in range(ctx.first_step, ctx.first_step + steps):
                x, y = data.train
                batch = self._batch(step, ctx)
                descend(weights, gradients(weights, x[batch], y[batch]), hparams["lr"])
            finite = all(np.isfinite(values).all() for values in weights.values())
            score = accuracy(weights, *data.validation) if finite else float("nan")
            return weights, {"score": score, "test": accuracy(weights, *data.test)}

    def _batch(self, step: int, ctx: Context) -> Labels:
        """Images of a step, independent of the round."""
        epoch, place = divmod(step, self.examples // BATCH)
        return _drawn(ctx.key("batches", ctx.member, epoch), self.examples)[place]


@lru_cache(maxsize=256)
def _drawn(key: int, examples: int) -> list[Labels]:
    return list(np.random.default_rng(key).integers(examples, size=(examples // BATCH, BATCH)))


def initial(key: int) -> Weights:
    """He-normal weights, zero biases and zero momentum."""
    rng = np.random.default_rng(key)
    shapes = list(pairwise(SIZES))
    weights = {f"w{i}": rng.normal(0, np.sqrt(2 / m), (m, n)) for i, (m, n) in enumerate(shapes)}
    weights |= {f"b{i}": np.zeros(n) for i, (_, n) in enumerate(shapes)}
    return weights | {f"momentum_{name}": np.zeros_like(values) for name, values in weights.items()}


def gradients(weights: Weights, x: Array, y: Labels) -> Weights:
    """Gradients of the mean cross-entropy of a batch."""
    hidden = np.maximum(x @ weights["w0"] + weights["b0"], 0)
    logits = hidden @ weights["w1"] + weights["b1"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = odds / odds.sum(axis=1, keepdims=True)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    back = (error @ weights["w1"].T) * (hidden > 0)
    return {"w0": x.T @ back, "b0": back.sum(axis=0), "w1": hidden.T @ error, "b1": error.sum(axis=0)}


def descend(weights: Weights, slope: Weights, lr: float) -> None:
    """One step in place: momentum = 0.9 momentum + gradient, weight -= lr momentum."""
    for name, gradient in slope.items():
        momentum = weights[f"momentum_{name}"]
        momentum *= MOMENTUM
        momentum += gradient
        weights[name] -= lr * momentum


def accuracy(weights: Weights, x: Array, y: Labels) -> float:
    """Share of correctly classified images."""
    hidden = np.maximum(x @ weights["w0"] + weights["b0"], 0)
    return float(((hidden @ weights["w1"] + weights["b1"]).argmax(axis=1) == y).mean())


def digits() -> Experiment:
    """Initial learning rates from 0.00001 to 0.001, all too low; good values lie outside."""
    return _experiment((1e-5, 1e-3))


def digits_centred() -> Experiment:
    """Initial learning rates from 0.0001 to 1; some are good."""
    return _experiment((1e-4, 1.0))


def _experiment(prior: tuple[float, float]) -> Experiment:
    images()  # reports missing data before the first round
    task = DigitsMlp()
    return Experiment(
        task=task,
        space={"lr": Float(1e-5, 1.0, "log", prior=prior)},
        plan=Plan(exploit=truncation(0.25), explore=perturb((0.5, 2.0)), interval=task.examples // BATCH),
        population=8,
        rounds=20,
    )
