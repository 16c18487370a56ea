"""The table of cases, and the ways to write one.

A case is a small `SupervisedTask` with the expected word: `EQUAL` (training as one program gives the states and scores
of each member trained alone, to rounding), `Refused` (a program refuses it before the start, and the message has these
facts), or `NOISE` (documented noise: only draws differ).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pbt.pytorch import Data, Split, SupervisedTask, optimizer


@dataclass(frozen=True, slots=True)
class Refused:
    """Refused before the start.

    Args:
        facts: Texts that the message must contain: the attribute, the layer or the option.
        remedy: Whether the executor 'processes' can train it, and the message says so.
    """

    facts: tuple[str, ...]
    remedy: bool = True


EQUAL, NOISE = "equal", "noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table.

    Args:
        task: The task.
        word: `EQUAL`, `NOISE` or a `Refused`.
        hparams: The hyperparameters of the first round by member; those of the second are rotated.
        silent: For `NOISE`: the task without draws, which must be equal.
        dtype: The default type; a case in double precision differs by rounding alone.
        tolerance: Maximal difference relative to the largest number of a tensor; None: by `dtype`.
        sample: Whether the case runs by default.
        moves: Whether members end with different weights.
    """

    task: SupervisedTask
    word: Any
    hparams: tuple[Mapping[str, Any], ...]
    silent: SupervisedTask | None = None
    dtype: torch.dtype = torch.float64
    tolerance: float | None = None
    sample: bool = False
    moves: bool = True


CASES: dict[str, Case] = {}
"""All cases by name."""
RATES: tuple[Mapping[str, Any], ...] = ({"lr": 0.05}, {"lr": 0.1}, {"lr": 0.02})


def refused(*facts: str, remedy: bool = True) -> Refused:
    """The word of a refused case."""
    return Refused(facts, remedy)


def examples(
    shape: tuple[int, ...] = (6,),
    *,
    count: int = 24,
    held_out: int = 15,
    kind: Any = None,
    target: Callable[[Tensor], Tensor] | None = None,
    second: tuple[int, ...] | None = None,
) -> Data:
    """Fixed examples of a shape; `kind` is a dtype, or a number of words; `target` makes targets of 3 numbers each."""
    generator = torch.Generator().manual_seed(5)
    total = count + held_out
    x = torch.randn(total, *shape, generator=generator)
    numbers = x.flatten(1)[:, :1].sum(1, keepdim=True) + 0.3 * torch.randn(total, 3, generator=generator)
    inputs: Any = x
    if isinstance(kind, int):
        inputs = torch.randint(0, kind, (total, *shape), generator=generator)
    elif kind is not None and kind.is_complex:
        inputs = torch.complex(x, torch.randn(total, *shape, generator=generator)).to(kind)
    elif kind is not None:
        inputs = x.to(kind)
    y = numbers.argmax(1) if target is None else target(numbers)
    every = (inputs,) if second is None else (inputs, torch.randn(total, *second, generator=generator))

    def split(part: slice) -> Split:
        parts = tuple(one[part] for one in every)
        return Split(parts[0] if len(parts) == 1 else parts, y[part])

    return Data(train=split(slice(count)), validation=split(slice(count, None)))


class Net(nn.Module):
    """Layers by name, and a function of the network and its inputs."""

    def __init__(self, body: Callable[..., Any], layers: Mapping[str, Any]) -> None:
        super().__init__()
        self.body = body
        for name, make in layers.items():
            setattr(self, name, make() if callable(make) else make)

    def forward(self, *inputs: Tensor) -> Any:
        return self.body(self, *inputs)


class Around(nn.Module):
    """A layer between a trained factor, so that the layer's inputs differ between members, and a linear head."""

    def __init__(self, make: Callable[[], nn.Module], shape: tuple[int, ...], *, words: int = 0, raw: bool = False):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1)) if not (words or raw) else None
        self.layer = make()
        with torch.no_grad():
            example = torch.zeros(2, *shape, dtype=torch.int64) if words else torch.zeros(2, *shape)
            self.layer.eval()
            size = first(self.layer(example)).flatten(1).shape[1]
        self.head = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(first(self.layer(x if self.gain is None else x * self.gain)).flatten(1))
        return result


def first(outputs: Any) -> Tensor:
    """The first tensor of a layer's outputs."""
    while isinstance(outputs, (tuple, list)):
        outputs = outputs[0]
    result: Tensor = outputs
    return result


SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
_OF_CASE = {"hparams", "silent", "dtype", "tolerance", "sample", "moves"}


def task_of(model: Callable[[], nn.Module], data: Callable[[], Data] = examples, **options: Any) -> SupervisedTask:
    """A task whose score shows small differences."""
    given: dict[str, Any] = {
        "optimizer": SGD, "bind": {"lr": optimizer("lr")}, "metrics": {}, "score": "loss", "batch_size": 10,
        "evaluation_batch": 10, "order": "member",
    }  # fmt: skip
    return SupervisedTask(model=model, data=data, **(given | options))


def add(name: str, model: Any, word: Any = EQUAL, data: Callable[[], Data] = examples, **options: Any) -> None:
    """Add a case.

    Args:
        name: Its name.
        model: Returns the network.
        word: The expected word.
        data: Returns the data.
        options: Fields of `Case`, and options of the task.
    """
    assert name not in CASES, name
    own = {key: options.pop(key) for key in _OF_CASE & options.keys()}
    CASES[name] = Case(task=task_of(model, data, **options), word=word, **({"hparams": RATES} | own))


def layer(name: str, make: Any, shape: tuple[int, ...] = (6,), word: Any = EQUAL, **options: Any) -> None:
    """Add a case of one layer for inputs of a shape."""
    words, raw = options.pop("words", 0), options.pop("raw", False)
    data = options.pop("data", partial(examples, shape, kind=words or None))
    add(name, partial(Around, make, shape, words=words, raw=raw), word, data, **options)


def net(word: Any = EQUAL, data: Callable[[], Data] = examples, **given: Any) -> Callable[[Any], Any]:
    """Decorate a function `(network, inputs) -> outputs`: a case of its name, whose network has the given layers.

    Functions and lists of layers are layers of the network (`head` by default); the rest are options.
    """

    def register(body: Any) -> Any:
        fields = _OF_CASE | set(SupervisedTask.__dataclass_fields__)
        layers = {name: value for name, value in given.items() if name not in fields}
        options = {name: value for name, value in given.items() if name in fields}
        layers = {"head": partial(nn.Linear, 6, 3), **layers}
        add(body.__name__, partial(Net, body, layers), word, data, **options)
        return body

    return register
