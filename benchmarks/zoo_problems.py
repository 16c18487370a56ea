"""The problems of `benchmarks.zoo`: 16 members each, seconds per run on one core, with a curve for every plan.

16 members are the fewest that MF-PBT splits. Every task reports `series`, the scores at several points of a round, as
the t-test and FIRE need; it changes no training. The toys, digits and CartPole are those of `pbt.problems`. The images
and the text are made here from fixed keys; they resemble no data set, and nothing is downloaded.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pbt
from pbt.problems import load
from pbt.problems.digits import accuracy, descend, gradients
from pbt.problems.images import Array, Labels, Splits
from pbt.testing.problems import noisy_quadratic

MEMBERS = 16
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Curved:
    """A task that does not depend on the length of rounds, with its scores at several points of a round as `series`.

    Args:
        task: The task.
        points: Number of points, which must divide the steps of a round.
    """

    task: Callable[[Values, Any, int, pbt.Context], tuple[Any, Any]]
    points: int

    def __call__(self, hparams: Values, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Any]:
        """Train in parts; the metrics are those at the end."""
        length, curve, metrics = steps // self.points, list[float](), dict[str, Any]()
        for first in range(ctx.first_step, ctx.first_step + steps, length):
            state, found = self.task(hparams, state, length, replace(ctx, first_step=first))
            metrics = dict(found) if isinstance(found, Mapping) else {"score": found}
            curve.append(metrics["score"])
        return state, metrics | {"series": curve}


def _sized(name: str, rounds: int, interval: int, points: int = 0) -> pbt.Experiment:
    """A shipped problem with 16 members and another number of rounds; with a curve of this many points."""
    own = load(name)
    assert isinstance(own.plan, pbt.Plan)
    task: Any = own.task
    if points:
        task = Curved(task, points)
    return replace(
        own, task=task, plan=replace(own.plan, interval=interval), population=MEMBERS, rounds=rounds, initial=()
    )


def toy_plain() -> pbt.Experiment:
    """Greedy selection is right."""
    return _sized("toy-plain", rounds=50, interval=20)


def toy_deceptive() -> pbt.Experiment:
    """Greedy selection is wrong."""
    return _sized("toy-deceptive", rounds=50, interval=20)


def nqm() -> pbt.Experiment:
    """A schedule beats every constant rate."""
    assert load("nqm").task is noisy_quadratic
    return _sized("nqm", rounds=25, interval=40, points=10)


def digits() -> pbt.Experiment:
    """All initial rates are far too low."""
    return _sized("digits", rounds=15, interval=20, points=4)


def cartpole() -> pbt.Experiment:
    """Noisy scores, and initial rates that are low; the series are the last ten returns."""
    return _sized("cartpole", rounds=12, interval=4)


SIDE, CLASSES, HIDDEN, BATCH = 12, 10, 32, 32
AUGMENTATIONS = ("none", "shift", "flip")


@functools.cache
def made_images() -> Splits:
    """Ten kinds of shapes on 12 x 12 pixels: two spots of a kind, moved, of changing brightness, with noise.

    Neighboring kinds share a spot, so that they are confused; a tenth of the training labels are wrong.
    """
    rng = np.random.default_rng(2017)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2, indexing="ij"))
    centers, widths = rng.uniform(-0.6, 0.6, (CLASSES, 2)), rng.uniform(0.15, 0.5, (CLASSES, 2))

    def drawn(count: int, wrong: float) -> tuple[Array, Labels]:
        kinds = rng.integers(CLASSES, size=count)
        pixels, moved = rng.normal(0, 0.25, (count, SIDE, SIDE)), rng.normal(0, 0.12, (count, 2))
        for spot in (kinds, (kinds + 1) % CLASSES):
            places = centers[spot] + moved + rng.normal(0, 0.05, (count, 2))
            offsets = (grid - places[:, :, None, None]) / widths[spot][:, :, None, None]
            pixels += rng.uniform(0.5, 1.0, (count, 1, 1)) * np.exp(-(offsets**2).sum(axis=1))
        labels = np.where(rng.random(count) < wrong, rng.integers(CLASSES, size=count), kinds)
        return pixels.reshape(count, -1), labels

    return Splits(drawn(600, 0.1), drawn(300, 0.0), drawn(1000, 0.0))


@dataclass(frozen=True, slots=True)
class Shapes:
    """A network 144-32-10 on the made images: SGD with momentum 0.9 and batches of 32, as float64 arrays."""

    def __call__(self, hparams: Values, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Values]:
        """Train; the score is validation accuracy, NaN for a diverged member, and `test` is test accuracy."""
        data = made_images()
        weights = _initial(ctx.init_key) if state is None else {name: values.copy() for name, values in state.items()}
        with np.errstate(all="ignore"):  # divergence is reported by the score
            for step in range(ctx.first_step, ctx.first_step + steps):
                rng = np.random.default_rng(ctx.key("step", ctx.member, step))
                x, y = _batch(rng)
                slope = gradients(weights, varied(x, hparams, rng), y)
                for name in ("w0", "w1"):
                    slope[name] += hparams["weight_decay"] * weights[name]
                descend(weights, slope, hparams["lr"])
            finite = all(np.isfinite(values).all() for values in weights.values())
            score = accuracy(weights, *data.validation) if finite else float("nan")
            return weights, {"score": score, "test": accuracy(weights, *data.test)}


def _batch(rng: np.random.Generator) -> tuple[Array, Labels]:
    x, y = made_images().train
    drawn = rng.integers(len(y), size=BATCH)
    return x[drawn], y[drawn]


def _initial(key: int) -> dict[str, Array]:
    """He-normal weights, zero biases and zero momentum."""
    rng, pixels = np.random.default_rng(key), SIDE * SIDE
    weights = {"w0": rng.normal(0, np.sqrt(2 / pixels), (pixels, HIDDEN)), "b0": np.zeros(HIDDEN)}
    weights |= {"w1": rng.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, CLASSES)), "b1": np.zeros(CLASSES)}
    return weights | {f"momentum_{name}": np.zeros_like(values) for name, values in weights.items()}


def varied(x: Array, hparams: Values, rng: np.random.Generator) -> Array:
    """Images (n, 144) with noise, and shifted or flipped; only shifts keep their kind."""
    pixels = (x + hparams["noise"] * rng.normal(size=x.shape)).reshape(-1, SIDE, SIDE)
    if hparams["augmentation"] == "flip":
        flipped = rng.random(len(pixels)) < 0.5
        pixels[flipped] = pixels[flipped, :, ::-1]
    elif hparams["augmentation"] == "shift":
        down, right = (int(by) for by in rng.integers(-1, 2, 2))
        pixels = np.roll(pixels, (down, right), axis=(1, 2))
    changed: Array = pixels.reshape(x.shape)
    return changed


def shapes() -> pbt.Experiment:
    """Four hyperparameters, one of them a choice without order; many initial rates are good."""
    return pbt.Experiment(
        task=Curved(Shapes(), 4),
        space={
            "lr": pbt.Float(1e-4, 1.0, "log", prior=(1e-3, 0.3)),
            "weight_decay": pbt.Float(1e-5, 0.1, "log"),
            "noise": pbt.Float(0.0, 1.0),
            "augmentation": pbt.Choice(AUGMENTATIONS),
        },
        plan=pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.8, 1.25)), interval=8),
        population=MEMBERS,
        rounds=20,
    )


WIDTH, CONTEXT, WINDOWS = 32, 24, 16
LETTERS = " .abcdefghijklmnopqrstuvwxyz"


@functools.cache
def made_text() -> tuple[Tensor, Tensor, Tensor]:
    """Codes of windows (n, 25) of a text for training, validation and test.

    Sentences of invented words, common and rare, in which the endings of subject and verb agree in number.
    """
    rng = np.random.default_rng(2022)
    nouns, verbs = (
        ["".join(rng.choice(list("bdfgklmnprst")) + rng.choice(list("aeo")) for _ in range(n)) for n in syllables]
        for syllables in (rng.integers(1, 4, 24), rng.integers(1, 3, 16))
    )

    def word(words: Sequence[str]) -> str:
        """A word; that of rank n is drawn in proportion to 1/n."""
        odds = 1 / np.arange(1, len(words) + 1)
        return words[rng.choice(len(words), p=odds / odds.sum())]

    def windows(count: int) -> Tensor:
        text = ""
        while len(text) < count * (CONTEXT + 1):
            subject, verb = ("i", "u") if rng.random() < 0.5 else ("", "")
            text += f"{word(nouns)}{subject} {word(verbs)}{verb} {word(nouns)}. "
        codes = torch.tensor([LETTERS.index(letter) for letter in text[: count * (CONTEXT + 1)]])
        return codes.view(count, CONTEXT + 1)

    return windows(300), windows(30), windows(100)


class Transformer(nn.Module):
    """One block of causal attention with two heads and a feed-forward layer, both residual, of width 32."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(len(LETTERS), WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.attended, self.mixed = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, len(LETTERS))

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (n, letters, 24) of the letter after each of the codes (n, 24)."""
        x = self.letters(codes) + self.places.weight
        parts = self.attended(x).view(len(codes), CONTEXT, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self.mixed(mixed.transpose(1, 2).flatten(2))
        logits: Tensor = self.out(x + self.narrow(F.relu(self.wide(x))))
        return logits.transpose(1, 2)


def letters(hparams: Values, state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Values]:
    """Train with AdamW; the score is the validation loss in nats per letter, measured at every second step."""
    torch.manual_seed(ctx.init_key)
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    ctx.apply(optimizer, lr=hparams["lr"], weight_decay=hparams["weight_decay"])
    train, validation, test = made_text()
    curve = []
    for step in range(ctx.first_step, ctx.first_step + steps):
        draws = torch.Generator().manual_seed(ctx.key("step", ctx.member, step))
        windows = train[torch.randint(len(train), (WINDOWS,), generator=draws)]
        others = torch.randint(len(LETTERS), (WINDOWS, CONTEXT), generator=draws)
        wrong = torch.rand(WINDOWS, CONTEXT, generator=draws) < hparams["replaced"]
        loss = F.cross_entropy(model(torch.where(wrong, others, windows[:, :-1])), windows[:, 1:])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step % 2:
            curve.append(_loss(model, validation))
    ctx.in_effect(replaced=hparams["replaced"])
    metrics = {"score": curve[-1], "series": curve, "test_loss": _loss(model, test)}
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, metrics


@torch.no_grad()
def _loss(model: nn.Module, windows: Tensor) -> float:
    return float(F.cross_entropy(model(windows[:, :-1]), windows[:, 1:]))


def transformer() -> pbt.Experiment:
    """Three hyperparameters; the share of replaced letters regularizes, and costs."""
    return pbt.Experiment(
        task=letters,
        space={
            "lr": pbt.Float(1e-5, 0.3, "log", prior=(1e-4, 0.1)),
            "weight_decay": pbt.Float(1e-4, 1.0, "log"),
            "replaced": pbt.Float(0.0, 0.5),
        },
        plan=pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.8, 1.25)), interval=6),
        population=MEMBERS,
        rounds=12,
        objective="minimize",
    )
