"""Dropout for a population: noise and probability per member, in one pass."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbt.errors import TaskError
from pbt.pytorch.noise import CounterNoise, KeyedDropout, Noise, drop, relu_drop, scale_of, threshold_of, wide
from pbt.pytorch.vectorized.failures import REMEDY
from pbt.pytorch.vectorized.vmap_rules import for_all


class StackedDropout(nn.Module):
    """The replacement of a `KeyedDropout` in a network run by `vmap`; each member draws the same bits as without it.

    Args:
        one: The layer of one member.
        noise: The source of noise; `noise.at` sets one key per member.
    """

    def __init__(self, one: KeyedDropout, noise: Noise) -> None:
        super().__init__()
        self._decisions, self._layer, self.relu = one.decisions, one.layer, one.relu
        self._noise = noise
        self._thresholds: list[int] = []
        self._scales: list[float] = []
        self._columns = torch.zeros(0)
        """Thresholds and scales (2, members) in double precision, read by a captured graph."""
        self.row = torch.zeros(())
        """The member's number under `vmap`; it differs between members even if their input is the same."""

    def set(self, probabilities: Sequence[float], device: str = "cpu") -> None:
        """Set one probability per member; the inputs are on `device`."""
        self._thresholds = [threshold_of(p) for p in probabilities]
        self._scales = [scale_of(p) for p in probabilities]
        columns = torch.tensor([self._thresholds, self._scales], dtype=torch.float64)
        if columns.shape == self._columns.shape:
            self._columns.copy_(columns)
        else:
            self._columns = columns.to(device)

    @property
    def drops(self) -> bool:
        """Whether any member drops elements."""
        return any(threshold != threshold_of(0.0) for threshold in self._thresholds)

    @property
    def p(self) -> float:
        """The probability, as attention of `transformers` reads it, if no member drops elements.

        Raises:
            TaskError: A member does; its noise would then be drawn outside this layer.
        """
        if self.drops and self.training:
            raise TaskError(
                "the network reads the probability of a dropout layer to drop elements itself, which members of one "
                f"program cannot do; set that probability to 0, or {REMEDY}"
            )
        return 0.0

    def forward(self, x: Tensor) -> Tensor:
        """The outputs for one member's input under `vmap`; after a ReLU if it is fused."""
        if not self.training:
            return self.undropped(x)
        return for_all(lambda stacked, _: self.stacked(stacked), x, self.row)

    def undropped(self, x: Tensor) -> Tensor:
        """The input without dropout; after a ReLU if it is fused."""
        return F.relu(x) if self.relu else x

    def stacked(self, x: Tensor) -> Tensor:
        """The outputs for all members' inputs, (members, *shape)."""
        if not self.drops:
            return self.undropped(x)
        bits = self._noise.bits(self._decisions(x.shape[1:]), self._layer)
        act = relu_drop if self.relu else drop
        # A graph must not keep a probability that members happen to have in common.
        if len(set(self._thresholds)) == 1 and not isinstance(self._noise, CounterNoise):
            return act(x, bits.to(wide(x).dtype).expand_as(x), self._thresholds[0], self._scales[0])
        thresholds, scales = self._columns.to(wide(x).dtype).view(2, -1, *[1] * (x.dim() - 1))
        return act(x, _laid_out_as(x, bits).sub_(thresholds).expand_as(x), 0.0, scales)


def _laid_out_as(x: Tensor, bits: Tensor) -> Tensor:
    """The bits as floats, in the memory layout of x if the shapes are equal: kernels then read both in order."""
    if bits.shape != x.shape:
        return bits.to(wide(x).dtype)
    return torch.empty_like(x, dtype=wide(x).dtype).copy_(bits)
