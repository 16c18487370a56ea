"""Dropout for a whole population: each member's own noise and probability, in one pass."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbt.pytorch.noise import KeyedDropout, Noise, drop, relu_drop, scale_of, threshold_of, wide
from pbt.pytorch.vectorized.vmap_rules import for_all


class StackedDropout(nn.Module):
    """Takes the place of a `KeyedDropout` in a network that `vmap` runs; the same bits for every member.

    Args:
        one: The layer of one member.
        noise: The source; `noise.at` names one key per member.
    """

    def __init__(self, one: KeyedDropout, noise: Noise) -> None:
        super().__init__()
        self._decisions, self._layer, self.relu = one.decisions, one.layer, one.relu
        self._noise = noise
        self._thresholds: list[int] = []
        self._scales: list[float] = []
        self.row = torch.zeros(())
        """This member's number as `vmap` sees it: there even where the input is the same for all members."""

    def set(self, probabilities: Sequence[float]) -> None:
        """One probability per member, from now on."""
        self._thresholds = [threshold_of(p) for p in probabilities]
        self._scales = [scale_of(p) for p in probabilities]

    def forward(self, x: Tensor) -> Tensor:
        """One member's input as `vmap` sees it; ReLU first where that was taken in."""
        if not self.training:
            return self.undropped(x)
        return for_all(lambda stacked, _: self.stacked(stacked), x, self.row)

    def undropped(self, x: Tensor) -> Tensor:
        """What is left without dropout: nothing, or the ReLU that was taken in."""
        return F.relu(x) if self.relu else x

    def stacked(self, x: Tensor) -> Tensor:
        """All members' inputs, (members, *shape)."""
        if not any(threshold_of(0.0) != threshold for threshold in self._thresholds):
            return self.undropped(x)
        bits = self._noise.bits(self._decisions(x.shape[1:]), self._layer).to(wide(x).dtype)
        act = relu_drop if self.relu else drop
        if len(set(self._thresholds)) == 1:
            return act(x, bits.expand_as(x), self._thresholds[0], self._scales[0])
        column = (-1, *[1] * (x.dim() - 1))
        bits -= torch.tensor(self._thresholds, dtype=bits.dtype, device=x.device).view(column)
        return act(
            x, bits.expand_as(x), 0.0, torch.tensor(self._scales, dtype=bits.dtype, device=x.device).view(column)
        )
