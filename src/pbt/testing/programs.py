"""Build the programs described by a `Recipe`, for every form of task.

Networks of about a dozen numbers in double precision. No step draws random numbers, so that a copy can be compared with
its donor bit by bit; `build` does, including for tensors outside of every state_dict.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer, swa_utils
from torch.optim.swa_utils import AveragedModel

from pbt.pytorch import Data, Split
from pbt.testing.recipes import DECAY, TOTAL, Recipe, Values
from pbt.testing.schedulers import BASE, SCHEDULERS, advance

WIDTH, EXAMPLES, BATCH = 4, 12, 5
KEEP = 0.8
"""The decay of the moving averages."""
_ema = swa_utils.get_ema_multi_avg_fn(KEEP)  # type: ignore[no-untyped-call]
BUILT: Values = {"lr": BASE, "head_lr": 0.3 * BASE, "decay": DECAY}
"""The settings with which optimizers are built, by the name of the bound hyperparameter."""


class Counting(Optimizer):
    """SGD with decreasing steps, counted in its parameter groups as in Prodigy."""

    def __init__(self, params: Any, lr: float = BASE, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "steps": 0, "differentiable": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 (torch's signature)
        """One step."""
        for group in self.param_groups:
            group["steps"] += 1
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad + group["weight_decay"] * p, alpha=-group["lr"] / group["steps"] ** 0.5)


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, momentum=0.8, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": partial(torch.optim.RMSprop, momentum=0.5),
    "adagrad": torch.optim.Adagrad,
    "counting": Counting,
}
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": F.sigmoid,
    "softplus": F.softplus,
}


class Net(nn.Module):
    """Two layers, with the buffers and plain tensors of the recipe.

    Args:
        recipe: The recipe.
        activation: The activation between the layers.
    """

    def __init__(self, recipe: Recipe, activation: str = "tanh") -> None:
        super().__init__()
        self.activation, self.slope, self.kept = activation, 0.2, recipe.buffers
        normed = recipe.buffers == "batch_norm"  # which would reduce the gradient of a bias to rounding errors
        self.first, self.head = nn.Linear(3, WIDTH, bias=not normed).double(), nn.Linear(WIDTH, 1).double()
        self.norm: nn.Module = nn.BatchNorm1d(WIDTH).double() if normed else nn.Identity()
        self.features = torch.randn(3, 3).double() if recipe.features else None
        if recipe.buffers == "persistent":
            self.register_buffer("seen", torch.zeros(1).double())
        if recipe.buffers == "hidden":
            self.register_buffer("shift", torch.randn(WIDTH).double(), persistent=False)
            self.register_buffer("cache", torch.zeros(1).double(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions (n, 1) of inputs (n, 3)."""
        x = self.norm(self.first(x if self.features is None else x @ self.features))
        x = ACTIVATIONS[self.activation](x)
        x = torch.maximum(x, x * self.slope)
        if self.kept == "persistent":
            seen: Any = self.seen
            if self.training:
                seen.add_(1)
            x = x * (1 + 0.01 * seen)
        if self.kept == "hidden":
            shift: Any = self.shift
            x = x + shift
        result: Tensor = self.head(x)
        return result


class Tally:
    """A part that counts steps and evaluations."""

    def __init__(self, counter: bool) -> None:
        self.steps: Any = Counter() if counter else 0
        self.evaluations = torch.zeros(1)

    def step(self, number: int) -> None:
        """Count a step."""
        if isinstance(self.steps, Counter):
            self.steps[f"batch {number % 2}"] += 1
        else:
            self.steps += 1

    def state_dict(self) -> Values:
        """The counters; the tensor itself, not a copy, as in modules."""
        return {"steps": self.steps, "evaluations": self.evaluations}

    def load_state_dict(self, state: Values) -> None:
        """Restore the counters."""
        self.steps = state["steps"].copy() if isinstance(state["steps"], Counter) else state["steps"]
        self.evaluations.copy_(state["evaluations"])


class Recent:
    """The last losses, which do not belong to a state."""

    def __init__(self) -> None:
        self.losses: list[float] = []


def make_optimizer(
    recipe: Recipe, params: Iterable[Tensor], kind: str | None = None, built: Values = BUILT
) -> Optimizer:
    """The optimizer of the recipe, for parameters in the order of the network.

    Args:
        recipe: The recipe, which determines the groups.
        params: The parameters to train.
        kind: An entry of `OPTIMIZERS` instead of the recipe's.
        built: The settings with which it is built.
    """
    params, lr = list(params), built["lr"]
    matrices, vectors = [p for p in params if p.ndim > 1], [p for p in params if p.ndim <= 1]
    groups: Any = {
        "one": params,
        "rates": [{"params": matrices}, {"params": vectors, "lr": 0.3 * lr}],
        "no_decay": [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
        "own": [
            {"params": matrices, "name": "matrices"},
            {"params": vectors, "name": "vectors", "lr": built["head_lr"]},
        ],
    }[recipe.groups]
    return OPTIMIZERS[kind or recipe.optimizer](groups, lr=lr, weight_decay=built["decay"] if recipe.decay else 0.0)


def make_scheduler(recipe: Recipe, of: Optimizer) -> Any:
    """The scheduler of the recipe."""
    return SCHEDULERS[recipe.scheduler](of, TOTAL)


def build(recipe: Recipe, hparams: Values, built: Values = BUILT) -> dict[str, Any]:
    """New parts, without the scratch part."""
    model = Net(recipe, hparams.get("activation", "tanh"))
    if recipe.unfreeze != "never":
        model.head.requires_grad_(False)
    params = [p for p in model.parameters() if p.requires_grad or recipe.unfreeze == "flag"]
    parts: dict[str, Any] = {"model": model}
    parts["optimizer"] = make_optimizer(recipe, params, hparams.get("kind"), built)
    if recipe.scheduler != "none":
        parts["scheduler"] = make_scheduler(recipe, parts["optimizer"])
    if recipe.average:
        parts["average"] = AveragedModel(model, multi_avg_fn=_ema)
    if recipe.counter != "none":
        parts["tally"] = Tally(recipe.counter == "Counter")
    return parts


def data() -> Data:
    """The same examples every time."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(EXAMPLES + 6, 3, generator=generator, dtype=torch.float64)
    y = torch.sin(x.sum(dim=1, keepdim=True))
    return Data(train=Split(x[:EXAMPLES], y[:EXAMPLES]), validation=Split(x[EXAMPLES:], y[EXAMPLES:]))


def _batch(step: int) -> tuple[Tensor, Tensor]:
    inputs, targets = data().train.take(torch.arange(step * BATCH, (step + 1) * BATCH) % EXAMPLES)
    return inputs[0], targets


def unfreeze(recipe: Recipe, parts: Mapping[str, Any], lr: float) -> None:
    """Unfreeze the head."""
    head = list(parts["model"].head.parameters())
    for p in head:
        p.requires_grad_(True)
    if recipe.unfreeze == "group":
        parts["optimizer"].add_param_group({"params": head, "lr": 0.5 * lr})
    elif recipe.unfreeze == "default_group":
        parts["optimizer"].add_param_group({"params": head})


def train(recipe: Recipe, parts: Mapping[str, Any], lr: float, steps: range) -> None:
    """Train these steps at this base learning rate."""
    model, of = parts["model"], parts["optimizer"]
    model.train()
    model.found = [float(model.cache) if recipe.buffers == "hidden" else 0.0]
    if "recent" in parts:
        model.found.append(len(parts["recent"].losses))
    for step in steps:
        if recipe.unfreeze != "never" and step == recipe.at:
            unfreeze(recipe, parts, lr)
        inputs, targets = _batch(step)
        loss = F.mse_loss(model(inputs), targets)
        of.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        of.step()
        if "scheduler" in parts:
            advance(parts["scheduler"], step)
        if "average" in parts:
            parts["average"].update_parameters(model)
        if "tally" in parts:
            parts["tally"].step(step)
        if recipe.buffers == "hidden":
            model.cache.fill_(loss.detach())
        if "recent" in parts:
            parts["recent"].losses.append(float(loss.detach()))


@torch.no_grad()
def evaluate(recipe: Recipe, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The score, the settings in effect, and the content of parts outside of the state."""
    model = parts["model"]
    network = parts.get("average", model).eval()
    if recipe.evaluation != "pure":
        parts["tally"].evaluations += 1
    inputs, targets = data().validation.take(slice(None))
    loss = F.mse_loss(network(*inputs), targets)
    return {"score": -float(loss), "found": model.found, "activation": model.activation, "slope": model.slope}
