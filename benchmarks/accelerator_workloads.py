"""The networks that are timed on an accelerator, as tasks over random examples: no time depends on the images."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from pbt.mnist.config.record import load_config
from pbt.mnist.task import supervised
from pbt.pytorch import Data, Split, SupervisedTask, optimizer
from pbt.pytorch.bind import DropoutBinding
from pbt.values import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A population whose training step is timed."""

    name: str
    task: SupervisedTask
    members: int
    hparams: Mapping[str, tuple[float, float]]
    """The smallest and largest value of each hyperparameter in the population."""
    floor: float | None = None
    """How many times faster than the members one after the other it must be; None: nothing is asked."""
    moonshot: float | None = None
    precise: bool = False
    """Whether it is trained in every precision, too."""
    with_memory: bool = False
    """Whether the memory of all members is compared with that of one."""
    small: "Callable[[], Workload] | None" = None
    """The same at a size that the CPU can train; None: it can train this one."""

    def without_dropout(self) -> "Workload":
        """The same networks without dropout, whose bits differ between devices."""
        model = partial(_without_dropout, self.task.model)
        bind = {name: binding for name, binding in self.task.bind.items() if not isinstance(binding, DropoutBinding)}
        hparams = {name: given for name, given in self.hparams.items() if name in bind}
        return replace(self, task=replace(self.task, model=model, bind=bind), hparams=hparams)

    def in_float64(self) -> "Workload":
        """The same in double precision; inputs that are whole numbers stay so."""
        task, prepare = self.task, partial(_prepared_double, self.task.prepare)
        return replace(self, task=replace(task, model=partial(_double, task.model), prepare=prepare))

    def births(self) -> list[dict[str, Value]]:
        """The hyperparameters of each member, evenly spread."""
        places = [i / max(1, self.members - 1) for i in range(self.members)]
        return [{name: low + place * (high - low) for name, (low, high) in self.hparams.items()} for place in places]


def _without_dropout(model: Callable[[], nn.Module]) -> nn.Module:
    made = model()
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made


def _double(model: Callable[[], nn.Module]) -> nn.Module:
    return model().double()


def _prepared_double(prepare: Callable[[Tensor], Tensor] | None, x: Tensor) -> Tensor:
    prepared = x if prepare is None else prepare(x)
    return prepared.double() if prepared.is_floating_point() else prepared


class Block(nn.Module):
    """A layer of a transformer encoder with the normalization first (Xiong et al. 2020, arXiv:2002.04745).

    Args:
        width: Of the residual stream.
        heads: Of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.between = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.activation = nn.GELU()
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, length, width) to the same."""
        normal = self.before(x)
        x = x + self.drop(self.attention(normal, normal, normal, need_weights=False)[0])
        return x + self.drop(self.narrow(self.activation(self.widen(self.between(x)))))


class Encoder(nn.Module):
    """A transformer encoder over tokens that classifies each row.

    Args:
        tokens: Size of the vocabulary.
        length: Tokens in a row.
        width: Of the residual stream.
        layers: Of the encoder.
        heads: Of each attention.
    """

    def __init__(self, tokens: int, length: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.places = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.normal = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, length) to logits (n, tokens)."""
        hidden = self.normal(self.blocks(self.embed(x) + self.places))
        result: Tensor = self.head(hidden.mean(dim=1))
        return result


class Adapted(nn.Module):
    """A linear layer that is not trained, with a trained product of low rank (Hu et al. 2021, arXiv:2106.09685).

    Args:
        layer: The layer.
        rank: Of the product.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        result: Tensor = self.layer(x) + (x @ self.down.T) @ self.up.T
        return result


@cache
def base_weights(width: int, layers: int) -> Mapping[str, Tensor]:
    """The weights of an encoder over 64 tokens in rows of 64, the same for every caller."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder(64, 64, width, layers, max(1, width // 64)).state_dict()


def adapted(width: int, layers: int) -> nn.Module:
    """An encoder on the base weights, with adapters of rank 4 on the layers of its blocks and on its head."""
    with torch.device("meta"):
        network = Encoder(64, 64, width, layers, max(1, width // 64))
    network.load_state_dict(base_weights(width, layers), assign=True)
    network.requires_grad_(False)
    for block in network.blocks:
        block.widen, block.narrow = Adapted(block.widen, 4), Adapted(block.narrow, 4)
    network.head = Adapted(network.head, 4)
    return network


def random_images(count: int, image: tuple[int, int, int], classes: int) -> Data:
    """Bytes (count, channels, height, width) and classes, the same for every caller."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *image), dtype=torch.uint8, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    held = Split(images[: count // 4], labels[: count // 4])
    return Data(train=Split(images, labels), validation=held)


def random_tokens(count: int, length: int, tokens: int) -> Data:
    """Rows of tokens (count, length) and classes, the same for every caller."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(tokens, (count, length), generator=generator)
    labels = torch.randint(tokens, (count,), generator=generator)
    return Data(train=Split(rows, labels), validation=Split(rows[: count // 4], labels[: count // 4]))


def mnist(kind: str, *, batches: int = 20) -> SupervisedTask:
    """The task of `config/<kind>_PBT.json` on random images, so many batches of them."""
    config = load_config(f"config/{kind}_PBT.json")
    train = config.train
    image = (train.num_channels, train.height, train.width)
    data = partial(random_images, batches * train.batch_size, image, train.num_classes)
    return replace(supervised(config), data=data, record_every=None)


def transformer(width: int = 128, layers: int = 4, length: int = 64, batch: int = 32) -> SupervisedTask:
    """A small transformer that is trained by AdamW."""
    return SupervisedTask(
        model=partial(Encoder, 64, length, width, layers, 4),
        data=partial(random_tokens, 20 * batch, length, 64),
        optimizer=partial(torch.optim.AdamW, lr=1e-3, fused=True),
        bind={"lr": optimizer("lr"), "weight_decay": optimizer("weight_decay")},
        batch_size=batch,
    )


def trained(parameters: Any) -> torch.optim.Optimizer:
    """The optimizer of the adapters."""
    return torch.optim.AdamW([p for p in parameters if p.requires_grad], lr=1e-3, fused=True)


def lora(parameters: float, members: int = 16, batch: int = 8) -> Workload:
    """Adapters of rank 4 on an encoder of about so many parameters, which all members share.

    Args:
        parameters: Of the base.
        members: Of the population.
        batch: Rows of 64 tokens in a step.
    """
    layers = 18 if parameters > 1e7 else 1
    width = max(16, round((parameters / (12 * layers)) ** 0.5 / 64) * 64)
    task = SupervisedTask(
        model=partial(adapted, width, layers),
        data=partial(random_tokens, 20 * batch, 64, 64),
        optimizer=trained,
        bind={"lr": optimizer("lr"), "weight_decay": optimizer("weight_decay")},
        batch_size=batch,
    )
    size = sum(weight.numel() for weight in base_weights(width, layers).values())
    return Workload(
        name=f"LoRA x {members} on a shared base ({size / 1e6:,.1f} M, {batch} rows of 64 tokens)", task=task,
        members=members, hparams={"lr": (1e-4, 1e-2), "weight_decay": (1e-3, 1e-1)}, floor=3, moonshot=8,
        with_memory=True, small=partial(lora, 1e6) if parameters > 1e7 else None,
    )  # fmt: skip


MNIST_HPARAMS = {"lr": (1e-4, 1e-2), "keep_prob": (0.5, 0.9)}
WORKLOADS: Mapping[str, Callable[[], Workload]] = {
    "fc x 64": lambda: Workload(
        name="fc x 64", task=mnist("fc"), members=64, hparams=MNIST_HPARAMS, floor=10, moonshot=50, precise=True
    ),
    "fc x 512": lambda: Workload(
        name="fc x 512", task=mnist("fc"), members=512, hparams=MNIST_HPARAMS, floor=25, moonshot=50
    ),
    "conv x 64": lambda: Workload(
        name="conv x 64", task=mnist("conv"), members=64, hparams=MNIST_HPARAMS, floor=2.5, moonshot=5
    ),
    "transformer x 16": lambda: Workload(
        name="transformer x 16 (4 layers, width 128, 32 rows of 64 tokens)", task=transformer(), members=16,
        hparams={"lr": (1e-4, 1e-2), "weight_decay": (1e-3, 1e-1)}, floor=6, moonshot=12, precise=True,
    ),
    "LoRA x 16": lambda: lora(float(os.environ.get("PBT_BENCH_BASE", "5e8"))),
}  # fmt: skip
"""By name; made when they are asked for."""


def tiny() -> Workload:
    """A population that is timed in a moment, where only the way is tried."""
    hparams = {"lr": (1e-4, 1e-2), "weight_decay": (1e-3, 1e-1)}
    task = transformer(width=8, layers=1, length=4, batch=4)
    return Workload(name="tiny", task=task, members=3, hparams=hparams, precise=True)


def first_batch(task: SupervisedTask, device: str) -> tuple[Any, Tensor]:
    """The first stored batch of the training examples, on the device."""
    (inputs,), targets = task.data().train.to(device).take(slice(0, task.batch_size))
    return inputs, targets
