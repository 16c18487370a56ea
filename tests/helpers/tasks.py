"""Small supervised tasks for many networks and optimizers.

All are in double precision, so that two computations differ only by rounding, and importable, so that worker processes
can load them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from pbt.pytorch import Binding, Data, Split, SupervisedTask, clip_norm, dropout, optimizer
from tests.helpers.networks import (
    BATCH,
    CLASSES,
    EXAMPLES,
    LENGTH,
    WORDS,
    CausalAttention,
    Partly,
    Recurrent,
    Residual,
    SelfAttention,
    Tied,
    TwoInputs,
    dense,
    depthwise,
    group_norms,
    layer_norms,
    plain,
)
from tests.helpers.optimizers import ScheduleFree


def doubled(make: Callable[..., nn.Module], *args: Any) -> nn.Module:
    """The network in double precision."""
    return make(*args).double()


def examples(*kinds: str, next_word: bool = False) -> Data:
    """Fixed examples with these inputs: `numbers` (6), `images` (2, 6, 6), `words` (5)."""
    generator = torch.Generator().manual_seed(8)
    count = EXAMPLES + 30
    shapes = {"numbers": (6,), "images": (2, 6, 6)}
    made = {
        kind: torch.randn(count, *shape, generator=generator, dtype=torch.float64) for kind, shape in shapes.items()
    }
    made["words"] = torch.randint(0, WORDS, (count, LENGTH), generator=generator)
    rule = torch.randn(made[kinds[0]][0].numel(), CLASSES, generator=generator, dtype=torch.float64)
    targets = made["words"][:, 0] if next_word else (made[kinds[0]].double().flatten(1) @ rule).argmax(dim=1)
    inputs = [made[kind] for kind in kinds]

    def split(part: slice) -> Split:
        return Split(inputs[0][part] if len(inputs) == 1 else tuple(x[part] for x in inputs), targets[part])

    return Data(train=split(slice(EXAMPLES)), validation=split(slice(EXAMPLES, None)), test=split(slice(EXAMPLES + 9)))


def task_of(make: Callable[..., nn.Module], *args: Any, data: Callable[[], Data]) -> SupervisedTask:
    """A task with SGD; learning rate, momentum, weight decay, dropout and clipping are hyperparameters."""
    bind: dict[str, Binding] = {
        "lr": optimizer("lr"),
        "momentum": optimizer("momentum"),
        "decay": optimizer("weight_decay"),
        "clip": clip_norm(),
        "p": dropout(),
    }
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    return SupervisedTask(model=partial(doubled, make, *args), data=data, optimizer=sgd, bind=bind, batch_size=BATCH)


NUMBERS, IMAGES, ROWS = (partial(examples, kind) for kind in ("numbers", "images", "words"))

DENSE = task_of(dense, data=NUMBERS)
PLAIN = replace(task_of(plain, data=NUMBERS), optimizer=partial(torch.optim.SGD, lr=0.1), bind={"lr": optimizer("lr")})
"""A task without noise: with a learning rate of zero, a round returns its state unchanged."""

NETWORKS: Mapping[str, SupervisedTask] = {
    "residual": task_of(Residual, data=IMAGES),
    "layer_norms": task_of(layer_norms, data=NUMBERS),
    "group_norms": task_of(group_norms, data=IMAGES),
    "attention": task_of(SelfAttention, True, data=ROWS),
    "fused_attention": task_of(SelfAttention, False, data=ROWS),
    "causal_attention": task_of(CausalAttention, data=ROWS),
    "depthwise": task_of(depthwise, data=IMAGES),
    "tied": task_of(Tied, data=partial(examples, "words", next_word=True)),
    "two_inputs": task_of(TwoInputs, data=partial(examples, "numbers", "words")),
    "lstm": task_of(Recurrent, nn.LSTM, data=ROWS),
    "partly": task_of(Partly, data=NUMBERS),
}
"""By name."""


@dataclass(frozen=True, slots=True)
class Optimized:
    """An optimizer with settings of four members, all different."""

    make: Callable[[Any], torch.optim.Optimizer]
    settings: Mapping[str, tuple[Any, Any, Any, Any]]
    """Four values by setting; `beta1` and `beta2` are the entries of `betas`."""

    @property
    def task(self) -> SupervisedTask:
        """`dense` under this optimizer."""
        places = {"beta1": optimizer("betas", index=0), "beta2": optimizer("betas", index=1)}
        bind: dict[str, Binding] = {name: places.get(name) or optimizer(name) for name in self.settings}
        return replace(DENSE, optimizer=self.make, bind={**bind, "p": dropout(), "clip": clip_norm()})

    def hparams(self, member: int) -> dict[str, Any]:
        """The hyperparameters of a member; they repeat after four members."""
        own = {name: values[member % 4] for name, values in self.settings.items()}
        return {**own, "p": (0.0, 0.1, 0.3, 0.2)[member % 4], "clip": (0.5, 3.0, 0.2, 1.0)[member % 4]}


_RATES = (0.003, 0.01, 0.02, 0.005)
_DECAYS = (0.0, 0.01, 0.1, 0.001)
_BETAS = {"beta1": (0.9, 0.8, 0.0, 0.95), "beta2": (0.999, 0.9, 0.99, 0.95), "eps": (1e-8, 1e-6, 1e-4, 1e-7)}
OPTIMIZERS: Mapping[str, Optimized] = {
    "sgd": Optimized(partial(torch.optim.SGD, lr=0.1), {"lr": (0.1, 0.05, 0.2, 0.01), "weight_decay": _DECAYS}),
    "sgd_momentum": Optimized(
        partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        {
            "lr": (0.1, 0.05, 0.02, 0.01),
            "momentum": (0.9, 0.5, 0.8, 0.95),
            "dampening": (0.0, 0.5, 0.1, 0.9),
            "weight_decay": _DECAYS,
        },
    ),
    "sgd_nesterov": Optimized(
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
        {"lr": (0.1, 0.05, 0.02, 0.01), "momentum": (0.9, 0.5, 0.8, 0.95), "weight_decay": _DECAYS},
    ),
    "adam": Optimized(torch.optim.Adam, {"lr": _RATES, "weight_decay": _DECAYS, **_BETAS}),
    "adamw": Optimized(torch.optim.AdamW, {"lr": _RATES, "weight_decay": _DECAYS, **_BETAS}),
    "rmsprop": Optimized(
        partial(torch.optim.RMSprop, centered=True, momentum=0.5),
        {
            "lr": (0.001, 0.002, 0.005, 0.0005),
            "alpha": (0.99, 0.9, 0.95, 0.999),
            "eps": (1e-6, 1e-5, 1e-3, 1e-4),
            "momentum": (0.9, 0.5, 0.1, 0.7),
            "weight_decay": _DECAYS,
        },
    ),
    "schedule_free": Optimized(ScheduleFree, {"lr": (0.1, 0.05, 0.2, 0.01), "beta": (0.9, 0.8, 0.95, 0.9)}),
    "nadam": Optimized(torch.optim.NAdam, {"lr": _RATES, "weight_decay": _DECAYS}),
}
"""By name."""
