"""The two networks: fully connected and convolutional."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pbt.errors import ConfigError
from pbt.mnist.config.sections import Section
from pbt.mnist.config.types import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of a network: its images, classes and layers."""

    model: str
    """`fc` or `conv`."""
    image: tuple[int, int, int]
    """Channels, height, width."""
    classes: int
    sizes: tuple[int, ...]
    """fc: size of each hidden layer; conv: filters of each layer."""
    batch_norm: bool
    keep_prob: float

    @classmethod
    def of(cls, section: Section, keep_prob: float = 1.0) -> "Shape":
        """The network that a section of a configuration describes."""
        return cls(
            model=section.model,
            image=(section.num_channels, section.height, section.width),
            classes=section.num_classes,
            sizes=section.n_hiddens if section.model == "fc" else section.n_filters,
            batch_norm=section.batch_norm,
            keep_prob=keep_prob,
        )


def network(shape: Shape) -> nn.Sequential:
    """A new network from images (n, channels, height, width) to logits (n, classes).

    fc: Linear - BatchNorm - ReLU - Dropout per hidden layer, then Linear. conv: Conv 3x3, padded - BatchNorm - ReLU -
    Dropout per layer, no pooling, then Linear. Weights Xavier-uniform (Glorot & Bengio 2010), biases zero.
    """
    body, features = _fc(shape) if shape.model == "fc" else _conv(shape)
    model = nn.Sequential(*body, nn.Linear(features, shape.classes))
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def restored(section: Section, weights: Any, where: str) -> nn.Sequential:
    """The configured network with trained weights, in evaluation mode.

    Args:
        section: The configuration of the network.
        weights: Its tensors by name, as a checkpoint has them under `model`.
        where: Name of their source in errors.

    Raises:
        ConfigError: They do not fit the network.
    """
    shape = Shape.of(section)
    try:
        _check_weights(shape, weights)
        model = network(shape)
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        # Torch lists every difference on a line of its own; the first one suffices.
        difference = next(iter(str(error).splitlines()[1:]), str(error)).strip()
        raise ConfigError(
            f"{where}: expected a {shape.model} network of {plain(shape.sizes)} as configured, found another: "
            f"{difference.rstrip('.')}; use the configuration that it was trained with"
        ) from error
    return model.eval()


def _check_weights(shape: Shape, weights: Any) -> None:
    """Compare the weights with the network before it takes memory: a small file can ask for any size.

    Raises RuntimeError, TypeError or AttributeError, with torch's message.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is copied into a network without memory
        network(shape).load_state_dict(weights)


def _fc(shape: Shape) -> tuple[Sequence[nn.Module], int]:
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(shape.image)
    for size in shape.sizes:
        layers += [nn.Linear(features, size), *_after(shape, nn.BatchNorm1d(size))]
        features = size
    return layers, features


def _conv(shape: Shape) -> tuple[Sequence[nn.Module], int]:
    layers: list[nn.Module] = []
    channels, height, width = shape.image
    for filters in shape.sizes:
        layers += [nn.Conv2d(channels, filters, 3, padding=1), *_after(shape, nn.BatchNorm2d(filters))]
        channels = filters
    return [*layers, nn.Flatten()], channels * height * width


def _after(shape: Shape, norm: nn.Module) -> list[nn.Module]:
    return [*([norm] if shape.batch_norm else []), nn.ReLU(), nn.Dropout(1 - shape.keep_prob)]


def count_parameters(shape: Shape) -> int:
    """Number of trainable parameters of a network."""
    with torch.device("meta"):  # needs no memory and no random numbers
        return sum(parameter.numel() for parameter in network(shape).parameters())
