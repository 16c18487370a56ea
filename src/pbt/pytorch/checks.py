"""Mistakes in a `SupervisedTask` that can be found before training, each with what to write instead."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from pbt.errors import TaskError
from pbt.pytorch.data import Data, Split


def check_fields(model: Any, data: Any, optimizer: Any, bind: Any, functions: Mapping[str, Any]) -> None:
    """Raise TaskError for a field that is the thing itself and not the function that makes it, and the like."""
    if isinstance(model, nn.Module) or not callable(model):
        raise TaskError(
            f"expected model to be a function that makes a network, so that each member has one of its own, got "
            f"{_named(model)}; write model=make_net with def make_net(): return ..."
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
    """Raise TaskError unless it is a network that can be trained."""
    if not isinstance(model, nn.Module):
        raise TaskError(f"expected model() to return a torch.nn.Module, got {_named(model)}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TaskError(f"the network {type(model).__name__} has no parameters that could be trained")


def opened(data: Callable[[], Any]) -> Data:
    """What `data` returns.

    Raises:
        TaskError: It is no Data, or has nothing to train on.
    """
    found = data()
    if not isinstance(found, Data):
        raise TaskError(
            f"expected data() to return Data(train=Split(inputs, targets), validation=Split(...)), got {_named(found)}"
            + ("; put all examples of a DataLoader or Dataset into tensors"
               if isinstance(found, (DataLoader, Dataset)) else "")
        )  # fmt: skip
    splits: dict[str, Any] = {"train": found.train, "validation": found.validation, "test": found.test}
    for name, split in splits.items():
        if not isinstance(split, Split) and (split is not None or name != "test"):
            raise TaskError(f"expected the {name} data to be Split(inputs, targets), got {_named(split)}")
    if not len(found.train):
        raise TaskError("expected examples to train on, found none")
    return found


def check_selection(data: Data, members: int) -> None:
    """Raise TaskError if there is nothing to compare these members by."""
    if members > 1 and not len(data.validation):
        raise TaskError(
            f"the validation split is empty, and {members} members cannot be compared without it; move some training "
            "examples there, or train one member with population=1"
        )


def check_last_batch(model: nn.Module, split: Split, size: int, prepare: Callable[[Any], Any] | None) -> None:
    """Raise TaskError if an epoch ends with a batch of one example that the network's normalization cannot take."""
    if (len(split) % size != 1 and size != 1) or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    inputs, _ = split.take(slice(0, 1))
    model.train()
    try:
        with torch.no_grad():
            model(*(inputs if prepare is None else map(prepare, inputs)))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TaskError(
            f"{len(split)} training examples in batches of {size} end with a batch of one example, of which batch "
            "normalization has no statistics; choose another batch_size, or leave one example out"
        ) from error


def _named(value: Any) -> str:
    if isinstance(value, str):
        return repr(value)
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
