"""Dropout whose noise is keyed by seed, member and step, not drawn from a generator that somebody must save.

The bits are the same whatever the executor and wherever training is cut into rounds. They are also cheap: sixteen
random bits decide about one element, where a Bernoulli draw would compute a float for each.
"""

import torch
from torch import Tensor, nn

_LEVELS = 2**16
_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: spreads small layer numbers over all bits of a seed (Knuth, TAOCP 3, 6.4)."""


class Noise:
    """The source that all dropout layers of one network share; `at` names the step.

    A layer that is used several times within a step draws anew each time, as `nn.Dropout` does.
    """

    def __init__(self, device: str) -> None:
        self._generator = torch.Generator(device=device)
        self._device = device
        self._key = 0
        self._calls: dict[int, int] = {}

    def at(self, key: int) -> None:
        """From now on draw what belongs to this key."""
        self._key = key
        self._calls.clear()

    def keep(self, shape: torch.Size, layer: int, p: float, dtype: torch.dtype) -> Tensor:
        """A mask of this shape: 0 where dropped, 1 / (share kept) elsewhere.

        The probability is rounded to a multiple of 2**-16, and the scale belongs to the rounded one, so that the
        expectation is exact.
        """
        dropped = round(p * _LEVELS)
        if dropped >= _LEVELS:
            return torch.zeros(shape, dtype=dtype, device=self._device)
        call = self._calls[layer] = self._calls.get(layer, -1) + 1
        self._generator.manual_seed((self._key + (layer + 1 + (call << 20)) * _GOLDEN) % 2**63)
        count = shape.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64, device=self._device)
        words.random_(-(2**63), None, generator=self._generator)
        bits = words.view(torch.int16)[:count].view(shape)
        kept = torch.ge(bits, dropped - _LEVELS // 2)
        return kept.to(dtype).mul_(_LEVELS / (_LEVELS - dropped))


class KeyedDropout(nn.Module):
    """Takes the place of `nn.Dropout` and its kin.

    Args:
        p: Probability that an element (or a channel) is dropped, 0 to 1.
        layer: Number of the layer in its network; layers differ in their noise.
        noise: The source; shared by the network.
        shared_dims: How many trailing dimensions share one decision: 0 for elements, 2 for channels of images.
    """

    def __init__(self, p: float, layer: int, noise: Noise, shared_dims: int = 0) -> None:
        super().__init__()
        self.p, self.layer, self.shared_dims = p, layer, shared_dims
        self._noise = noise

    def forward(self, x: Tensor) -> Tensor:
        """X with elements dropped and the others scaled in training, x itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        dims = x.dim() - self.shared_dims
        shape = torch.Size((*x.shape[:dims], *([1] * self.shared_dims)))
        return x * self._noise.keep(shape, self.layer, self.p, x.dtype)

    def extra_repr(self) -> str:
        """What is shown between the brackets."""
        return f"p={self.p}, layer={self.layer}"


_SHARED_DIMS = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}


def key_dropout(model: nn.Module, noise: Noise) -> list[KeyedDropout]:
    """Replace every dropout layer inside the model by a keyed one; returns them in the order of the model.

    Dropout in functional form, and inside layers such as `nn.MultiheadAttention`, cannot be seen from here; it draws
    from the global generator, which a `SupervisedTask` seeds at every step.
    """
    layers: list[KeyedDropout] = []
    replaced: dict[nn.Module, KeyedDropout] = {}
    for path, child in list(model.named_modules(remove_duplicate=False)):
        shared_dims = _SHARED_DIMS.get(type(child))
        if shared_dims is None or not path:
            continue
        # One layer used in two places stays one layer.
        if child not in replaced:
            replaced[child] = KeyedDropout(child.p, len(layers), noise, shared_dims)
            layers.append(replaced[child])
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, replaced[child])
    return layers
