"""An exponential moving average of a network's weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

Number = Any
"""A number, or a tensor of them."""


def decay_at(decay: Number, step: Number) -> Number:
    """The decay of a step, counted from 0; lower in early steps, which would otherwise keep the initial weights.

    It is `min(decay, (1 + step) / (10 + step))`, as in TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    """
    early = (1 + step) / (10 + step)
    return torch.minimum(decay, early) if isinstance(decay, Tensor) else min(decay, early)


class Average:
    """The averaged weights of a network; buffers are not averaged.

    Args:
        model: The network with its initial weights.
    """

    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float, step: int) -> None:
        """Include the weights after a step, counted from 0."""
        rate = 1 - decay_at(decay, step)
        for name, parameter in model.named_parameters():
            self.weights[name].lerp_(parameter, rate)

    def outputs(self, model: nn.Module, *inputs: Tensor) -> Any:
        """The outputs of the network with the averaged weights and its own buffers."""
        return functional_call(model, dict(self.weights), inputs)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return dict(self.weights)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy the weights of a state.

        Raises:
            KeyError: A name is missing.
            RuntimeError: A shape differs.
        """
        for name, weight in self.weights.items():
            weight.copy_(state[name])
