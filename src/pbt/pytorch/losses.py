"""Losses and metrics that are callable objects, such as modules and partial functions."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from pbt.errors import TaskError
from pbt.values import Value


def placed(function: Any, device: str) -> Any:
    """The function on a device: a copy of a module or a `functools.partial` if its tensors are on another device."""
    if isinstance(function, partial):
        args = [_moved(value, device) for value in function.args]
        keywords = {name: _moved(value, device) for name, value in function.keywords.items()}
        moved = [a is b for a, b in zip(args, function.args, strict=True)]
        same = all(moved) and all(keywords[name] is value for name, value in function.keywords.items())
        inner = placed(function.func, device)
        return function if same and inner is function.func else partial(inner, *args, **keywords)
    if isinstance(function, nn.Module):
        tensors = [*function.parameters(), *function.buffers()]
        on_device = all(_moved(tensor, device) is tensor for tensor in tensors)
        return function if on_device else copy.deepcopy(function).to(device)
    return function


def _moved(value: Any, device: str) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


_LARGE = 2**16
"""Numbers of a tensor from which on copies of a loss share it."""


def fresh(function: Any) -> Any:
    """A copy of a loss with its own state, which shares parameters and large tensors; a plain function is returned."""
    if isinstance(function, type) or (inspect.isroutine(function) and not inspect.ismethod(function)):
        return function
    try:
        return copy.deepcopy(function, {id(tensor): tensor for tensor in _shared(function, {})})
    except Exception:  # noqa: BLE001 (an object that cannot be copied is used as it is)
        return function


def _shared(value: Any, seen: dict[int, Any]) -> Iterator[Tensor]:
    """The parameters and large tensors that an object refers to."""
    if isinstance(value, Tensor):
        if isinstance(value, nn.Parameter) or value.numel() >= _LARGE:
            yield value
        return
    if id(value) in seen or isinstance(value, (str, bytes, int, float, type)):
        return
    seen[id(value)] = value
    if isinstance(value, partial):
        inner: Any = [value.func, *value.args, *value.keywords.values()]
    elif inspect.ismethod(value):
        inner = [value.__self__]
    elif isinstance(value, Mapping):
        inner = value.values()
    else:
        inner = (
            value if isinstance(value, (list, tuple)) else vars(value).values() if hasattr(value, "__dict__") else ()
        )
    for item in list(inner):
        yield from _shared(item, seen)


def training_loss(loss: Any, device: str) -> Callable[..., Tensor]:
    """The loss on a device, as a function `(outputs, targets, **settings)`.

    A setting that is an attribute of an object and not an argument, such as the `label_smoothing` of
    `nn.CrossEntropyLoss`, is set for the duration of the call.
    """
    on_device = placed(loss, device)
    if inspect.isroutine(on_device) or isinstance(on_device, partial):
        result: Callable[..., Tensor] = on_device
        return result
    return partial(_call, on_device)


def _call(loss: Any, outputs: Any, targets: Tensor, /, **settings: Value) -> Tensor:
    names = _attributes(loss, settings)
    before = {name: getattr(loss, name) for name in names}
    try:
        for name in names:
            setattr(loss, name, settings[name])
        value: Tensor = loss(outputs, targets, **{name: own for name, own in settings.items() if name not in names})
        return value
    finally:
        for name, own in before.items():
            setattr(loss, name, own)


def _attributes(loss: Any, settings: Mapping[str, Value]) -> list[str]:
    """The settings that are attributes of the loss and not arguments."""
    if not settings or inspect.isroutine(loss) or isinstance(loss, partial):
        return []
    arguments = _signature(loss).parameters
    return [name for name in settings if name not in arguments and hasattr(loss, name)]


def _signature(loss: Any) -> inspect.Signature:
    return inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss)


def check_loss(loss: Any, settings: Mapping[str, Value]) -> None:
    """Raise TaskError unless the loss takes outputs, targets and these settings, and has no parameters."""
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        raise TaskError(
            f"the loss {type(loss).__name__} has parameters, which the optimizer does not train; make it a part of the "
            "model"
        )
    try:
        names = _attributes(loss, settings)
        _signature(loss).bind(None, None, **{name: own for name, own in settings.items() if name not in names})
    except ValueError:
        # A function without a signature: its first call raises an error for an unexpected argument.
        return
    except TypeError as error:
        raise TaskError(f"the loss does not take the arguments bound to it: {error}") from error
