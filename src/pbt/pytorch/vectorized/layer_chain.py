"""A chain of plain layers, run for all members without `vmap`, whose overhead per layer equals a small layer's work."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pbt.pytorch.vectorized.noise import StackedDropout
from pbt.pytorch.vectorized.vmap_rules import Rule, as_channels, as_members

Tensors = Mapping[str, Tensor]
Layer = Callable[[Tensor, Tensors], Tensor]
"""A layer of all members: inputs (members, n, ...) and the members' tensors by name to outputs (members, n, ...)."""
Operation = Callable[..., Tensor]

_ELEMENTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def chain_of(model: nn.Module, names: Mapping[int, str], rules: Mapping[Any, Rule]) -> Sequence[Layer] | None:
    """The layers of a model in order; None if the model is not a chain of supported layers.

    Args:
        model: The network of one member.
        names: The names of its parameters and buffers by `id`.
        rules: The rules of operations for the device.
    """
    if "forward" in vars(model) or any(getattr(model, hooks) for hooks in _HOOKS):
        return None
    if type(model) is not nn.Sequential:
        layer = _layer(model, names, rules)
        return None if layer is None else [layer]
    layers: list[Layer] = []
    for module in model:
        inner = chain_of(module, names, rules)
        if inner is None:
            return None
        layers += inner
    return layers


def _layer(module: Any, names: Mapping[int, str], rules: Mapping[Any, Rule]) -> Layer | None:
    kind = type(module)
    if kind in _ELEMENTWISE:
        # Copied before an in-place operation: x may be the batch that all members share.
        return lambda x, _: module(x.clone() if getattr(module, "inplace", False) else x)
    if kind is StackedDropout:
        return lambda x, _: module.stacked(x) if module.training else module.undropped(x)
    if kind is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return lambda x, _: x.flatten(2)
    if kind in _POOLS and not getattr(module, "return_indices", False):
        return lambda x, _: _pool(module, x)
    return _with_weights(module, names, rules)


def _with_weights(module: Any, names: Mapping[int, str], rules: Mapping[Any, Rule]) -> Layer | None:
    kind = type(module)
    if kind is nn.Linear:
        return _linear(module, names, rules[F.linear].run)
    if kind in _NORMS and module.momentum is not None:
        return _batch_norm(module, names, rules[F.batch_norm].run)
    if kind is nn.Conv2d and module.padding_mode == "zeros":
        return _convolution(module, names, rules[F.conv2d].run)
    return None


def _pool(module: Any, x: Tensor) -> Tensor:
    # The layout without a copy: channels are pooled independently.
    flat = x.is_contiguous()
    y: Tensor = module(x.flatten(0, 1) if flat else as_channels(x))
    return y.view(*x.shape[:2], *y.shape[1:]) if flat else as_members(y, len(x))


def _linear(module: Any, names: Mapping[int, str], run: Operation) -> Layer:
    weight, bias = _names(module, names, "weight", "bias")
    return lambda x, of: run(x, of[weight], of.get(bias))


def _convolution(module: Any, names: Mapping[int, str], run: Operation) -> Layer:
    weight, bias = _names(module, names, "weight", "bias")

    def layer(x: Tensor, of: Tensors) -> Tensor:
        return run(x, of[weight], of.get(bias), module.stride, module.padding, module.dilation, module.groups)

    return layer


def _batch_norm(module: Any, names: Mapping[int, str], run: Operation) -> Layer:
    weight, bias, mean, var, count = _names(
        module, names, "weight", "bias", "running_mean", "running_var", "num_batches_tracked"
    )

    def layer(x: Tensor, of: Tensors) -> Tensor:
        if module.training and count in of:
            of[count].add_(1)
        training = module.training or mean not in of
        return run(x, of.get(mean), of.get(var), of.get(weight), of.get(bias), training, module.momentum, module.eps)

    return layer


def _names(module: nn.Module, names: Mapping[int, str], *keys: str) -> list[str]:
    """The names of a layer's tensors; an empty name, which no tensor has, if one is missing."""
    return [names.get(id(getattr(module, key)), "") for key in keys]
