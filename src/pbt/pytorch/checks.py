"""Checks of a `SupervisedTask` before training; each error message names the remedy."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from pbt.domains import Choice, Domain
from pbt.errors import TaskError
from pbt.executors.fingerprint import record
from pbt.pytorch.bind import SettingBinding
from pbt.pytorch.data import Data
from pbt.pytorch.data_record import fingerprint_of
from pbt.pytorch.sources import ExampleSource


def check_fields(model: Any, data: Any, optimizer: Any, bind: Any, functions: Mapping[str, Any]) -> None:
    """Raise TaskError for a field of another type, such as a network in place of a function that returns one."""
    if isinstance(model, nn.Module) or not callable(model):
        raise TaskError(
            f"expected model to be a function that returns a new network for each member, got {_named(model)}; write "
            "model=make_net with def make_net(): return ..."
        )
    if isinstance(optimizer, (str, Optimizer)) or not callable(optimizer):
        raise TaskError(
            f"expected optimizer to be a function of parameters, got {_named(optimizer)}; write "
            "optimizer=torch.optim.SGD, or functools.partial(torch.optim.SGD, momentum=0.9)"
        )
    if not callable(data) or isinstance(data, (DataLoader, Dataset)):
        raise TaskError(
            f"expected data to be a function that returns Data(train=..., validation=...), got {_named(data)}; write "
            "data=make_data with def make_data(): return Data(...)"
        )
    if not isinstance(bind, Mapping):
        raise TaskError(f"expected bind to be a mapping as {{'lr': optimizer('lr')}}, got {_named(bind)}")
    for name, binding in bind.items():
        if isinstance(binding, type) or not (hasattr(binding, "apply") and hasattr(binding, "read")):
            raise TaskError(
                f"expected a binding of '{name}', as optimizer('lr') or dropout(), got {_named(binding)}; write "
                f"bind={{'{name}': optimizer('{name}')}} with optimizer from pbt.pytorch"
            )
    for name, function in functions.items():
        if not callable(function):
            raise TaskError(f"expected {name} to be a function (outputs, targets) -> number, got {_named(function)}")
        if isinstance(function, type):
            raise TaskError(f"expected {name} to be a function, got the class {function.__name__}; write "
                            f"{function.__name__}()")  # fmt: skip


def check_network(model: Any) -> None:
    """Raise TaskError unless the model is a network with trainable parameters."""
    if not isinstance(model, nn.Module):
        raise TaskError(f"expected model() to return a torch.nn.Module, got {_named(model)}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TaskError(f"the network {type(model).__name__} has no trainable parameters")


def opened(data: Callable[[], Any]) -> Data:
    """Load the data of a task.

    Raises:
        TaskError: The function does not return Data, or the training split is empty.
    """
    loaded = data()
    if not isinstance(loaded, Data):
        raise TaskError(
            f"expected data() to return Data(train=Split(inputs, targets), validation=Split(...)), got {_named(loaded)}"
            + ("; return Data(train=..., validation=...) with it as one of them"
               if isinstance(loaded, (DataLoader, Dataset)) else "")
        )  # fmt: skip
    splits: dict[str, Any] = {"train": loaded.train, "validation": loaded.validation, "test": loaded.test}
    for name, split in splits.items():
        if not isinstance(split, ExampleSource) and (split is not None or name != "test"):
            raise TaskError(
                f"expected the {name} data to be Split(inputs, targets), Tokens or a map-style Dataset, got "
                f"{_named(split)}"
            )
    if not len(loaded.train):
        raise TaskError("expected examples to train on, found none")
    record(lambda: fingerprint_of(loaded))
    return loaded


def check_selection(data: Data, members: int) -> None:
    """Raise TaskError if several members have no validation data to be compared on."""
    if members > 1 and not len(data.validation):
        raise TaskError(
            f"the validation split is empty, and {members} members cannot be compared without it; move some training "
            "examples to it, or train one member with population=1"
        )


@dataclass(frozen=True, slots=True)
class Values:
    """The possible values of a task's setting during a run: its own, or those of the hyperparameters bound to it."""

    own: int
    domains: Mapping[str, Domain]
    """The domains of the bound hyperparameters by name; empty if none is bound."""

    @classmethod
    def of(cls, task: Any, setting: str, space: Mapping[str, Domain]) -> Self:
        """The possible values of `batch_size` or `accumulate`."""
        bound = [name for name, row in task.bind.items() if isinstance(row, SettingBinding) and row.name == setting]
        return cls(getattr(task, setting), {name: space[name] for name in bound if name in space})

    @property
    def largest(self) -> int:
        """The largest value."""
        return max((most for domain in self.domains.values() for most in _ends(domain)), default=self.own)

    def leaving_one(self, count: int, *, drop_last: bool) -> list[int]:
        """The values with which an epoch of `count` examples has a batch of one example."""
        ends = sorted({end for domain in self.domains.values() for end in _ends(domain)}) or [self.own]
        if count == 1 and not drop_last:
            return ends
        # A batch size leaves one example if it divides the number of all others; a size of 1 always does.
        sizes = [1] if drop_last else _divisors(count - 1)
        return [size for size in sizes if self._may_be(size)]

    def _may_be(self, value: int) -> bool:
        if not self.domains:
            return value == self.own
        return any(domain.contains(value) for domain in self.domains.values())


def _ends(domain: Domain) -> list[int]:
    values = domain.options if isinstance(domain, Choice) else (domain.low, domain.high)
    return [value for value in values if type(value) is int]


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def check_last_batch(
    model: nn.Module, split: ExampleSource, sizes: Values, alone: Sequence[int], prepare: Callable[[Any], Any] | None
) -> None:
    """Raise TaskError if the network's batch normalization cannot train on a batch of one example.

    Args:
        model: A network; the check changes it.
        split: The training examples.
        sizes: The batch sizes of the run.
        alone: The batch sizes that leave a batch of one example.
        prepare: Converts stored inputs to the network's inputs, or None.
    """
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    inputs, _ = split.take(slice(0, 1))
    model.train()
    try:
        with torch.no_grad():
            model(*(inputs if prepare is None else map(prepare, inputs)))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TaskError(_alone(len(split), sizes, alone)) from error


def _alone(count: int, sizes: Values, alone: Sequence[int]) -> str:
    many = bool(sizes.domains)
    least = f"choose {'values' if many else 'a batch_size'} of at least 2"
    other = f"set drop_last=True, or choose {'other values' if many else 'another batch_size'}"
    remedy = other if 1 not in alone else least if alone == [1] else f"set drop_last=True, and {least}"
    shown = ", ".join(map(str, alone[:5])) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
    names = "".join(f"the hyperparameter '{name}': " for name in sizes.domains)
    return (
        f"{names}{count:,} training examples in batches of {shown} end with a batch of one example, and batch "
        f"normalization needs at least 2; {remedy}"
    )


def _named(value: Any) -> str:
    if isinstance(value, str):
        return repr(value)
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
