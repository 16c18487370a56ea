"""Dropout with noise keyed by seed, member and step, which needs no saved generator state.

The bits depend neither on the executor nor on the boundaries of rounds. They are also cheap: sixteen random bits decide
one element, where a Bernoulli draw computes a float; and a ReLU followed by dropout is one pass, which saves only its
result for the backward pass.
"""

from collections import Counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pbt.errors import TaskError
from pbt.executors.context import Context
from pbt.pytorch import philox

_LEVELS = 2**16
_LAYERS = 2**16
"""Maximum number of layers of a network, so that a layer and its use are encoded in one number."""


class Noise:
    """The source of noise, shared by all dropout layers of a network; `at` sets the step.

    A layer that is used several times in a step draws anew each time, like `nn.Dropout`. When `torch.utils.checkpoint`
    recomputes a part of the network in the backward pass, the layer repeats its draw.

    This class is for the CPU. It uses NumPy's SFC64, which is faster than torch's generator, takes seeds of more than
    32 bits, and has a stream that NumPy guarantees to be stable.
    """

    def __init__(self) -> None:
        self._keys: tuple[int, ...] = (0,)
        self._calls: dict[int, int] = {}
        """Number of uses of each layer in this step."""
        self._marks: dict[tuple[int, int], int] = {}
        """The number of each use that may be recomputed, by layer and mark."""

    @staticmethod
    def of(device: str) -> "Noise":
        """The source of noise for networks on a device."""
        return Noise() if device == "cpu" else CounterNoise(device)

    def key(self, context: Context, step: int) -> int:
        """The key of a member at a step, for `at`."""
        return context.key("noise", context.member, step)

    def at(self, *keys: int, step: int = 0) -> None:  # noqa: ARG002 (these keys include the step)
        """Set the keys and the step of the next draws; each key has its own row of bits."""
        self._keys = keys
        self.begin()

    def begin(self) -> None:
        """Begin a step: the next use of each layer is its first."""
        self._calls.clear()
        self._marks.clear()

    def bits(self, shape: torch.Size, layer: int) -> Tensor:
        """Sixteen random bits for each element, as int16 `(keys, *shape)`."""
        call = self._use(layer)
        drawn = self._bits(shape.numel(), layer, call)
        return drawn.reshape(len(drawn), *shape)

    def _use(self, layer: int) -> int:
        """The number of this use of the layer in the step; a recomputation has the number of the original use.

        Checkpointing restores torch's global generator before it recomputes, so a number from that generator identifies
        the use. It is drawn only under checkpointing, which is detected by saved-tensor hooks or by a forward pass
        without gradients.
        """
        uses = self._calls.get(layer, 0)
        again = torch._C._current_graph_task_id() != -1
        hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        if again or hooked or not torch.is_grad_enabled():
            mark = layer, int(torch.empty((), dtype=torch.int64).random_(generator=torch.default_generator))
            if again and uses:
                if uses > 1 and mark not in self._marks:
                    raise TaskError(
                        "a dropout layer that is used several times in a step is checkpointed without the random "
                        "state; use torch.utils.checkpoint with preserve_rng_state=True, its default"
                    )
                return self._marks.get(mark, 0)
            self._marks[mark] = uses
        self._calls[layer] = uses + 1
        return uses

    def _bits(self, count: int, layer: int, call: int) -> Tensor:
        """Sixteen random bits for each of `count` elements of every key, as int16 (keys, count)."""
        drawn = [np.random.SFC64([key, layer, call]).random_raw((count + 3) // 4) for key in self._keys]
        rows = [torch.from_numpy(words.view(np.int16)) for words in drawn]
        return (torch.stack(rows) if len(rows) > 1 else rows[0].unsqueeze(0))[:, :count]


class CounterNoise(Noise):
    """Noise as a function of tensors on the device: one operation draws the bits of all members.

    Keys identify members, and the step is a tensor, which a captured graph can increment.

    Args:
        device: The device of the bits.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self._held = torch.zeros(1, dtype=torch.int64, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        """The number of the step, on the device."""

    def key(self, context: Context, step: int) -> int:  # noqa: ARG002 (the step is counted on the device)
        """The key of a member, the same at every step."""
        return context.key("noise", context.member)

    def at(self, *keys: int, step: int = 0) -> None:
        """Set the keys and the step of the next draws."""
        if keys != self._keys:
            held = torch.tensor(keys, dtype=torch.int64)
            # In place if possible: a captured graph reads this tensor.
            self._held = self._held.copy_(held) if len(held) == len(self._held) else held.to(self._held.device)
        self.step.fill_(step)
        super().at(*keys)

    def _bits(self, count: int, layer: int, call: int) -> Tensor:
        return philox.bits(self._held, self.step, layer + call * _LAYERS, count)


def scale_of(p: float) -> float:
    """The factor of kept elements: one over the rounded keep probability, so that the mean is exact."""
    kept = _LEVELS - round(p * _LEVELS)
    return _LEVELS / kept if kept else 0.0


def threshold_of(p: float) -> int:
    """The largest int16 of sixteen bits that drops its element; p is rounded to a multiple of 2**-16."""
    return round(p * _LEVELS) - _LEVELS // 2 - 1


_gate = torch.ops.aten.threshold_backward
"""`(x, by, threshold)`: x where `by` is larger, else 0. One vectorized pass over floats, which on the CPU takes a
quarter of the time of a comparison and a `masked_fill`; its gradient is the same gate."""


def wide(x: Tensor) -> Tensor:
    """X in a dtype that represents every int16 exactly, so that thresholds are exact."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def drop(x: Tensor, noise: Tensor, threshold: float, scale: float | Tensor) -> Tensor:
    """X times scale where the noise, floats of x's shape, is above the threshold, else 0."""
    kept: Tensor = _gate(wide(x) * scale, noise, threshold)
    return kept.to(x.dtype)


def relu_drop(x: Tensor, noise: Tensor, threshold: float, scale: float | Tensor) -> Tensor:
    """`drop` of the ReLU of x."""
    result: Tensor = _ReluDrop.apply(x, noise, threshold, scale)  # type: ignore[no-untyped-call]
    return result


class _ReluDrop(torch.autograd.Function):
    """The result is positive exactly where the gradient passes, so the backward pass needs no mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, noise: Tensor, threshold: float, scale: float | Tensor) -> Tensor:
        """Zero where x is negative or dropped, else x scaled."""
        y = wide(x) * scale
        _gate.grad_input(y, noise, threshold, grad_input=y).clamp_min_(0)
        y = y.to(x.dtype)
        ctx.save_for_backward(y)
        ctx.scale = scale
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient scaled where the result is positive."""
        (y,) = ctx.saved_tensors
        passed = _gate(wide(gradients[0]), wide(y), 0.0).mul_(ctx.scale)
        return passed.to(y.dtype), None, None, None


class KeyedDropout(nn.Module):
    """The replacement of `nn.Dropout`, `nn.Dropout1d`, `nn.Dropout2d` and `nn.Dropout3d`.

    Args:
        p: Probability of dropping an element (or a channel), 0 to 1.
        layer: Number of the layer in its network; the noise of layers differs.
        noise: The network's source of noise.
        shared_dims: Number of trailing dimensions that share one decision: 0 for elements, 2 for channels of images.
    """

    def __init__(self, p: float, layer: int, noise: Noise, shared_dims: int = 0) -> None:
        super().__init__()
        self.p, self.layer, self.shared_dims = p, layer, shared_dims
        self.relu = False
        """Whether the layer includes the ReLU before it."""
        self._noise = noise

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements and scale the others in training, return x in evaluation; after a ReLU if it is fused."""
        if not self.training or self.p == 0:
            return F.relu(x) if self.relu else x
        noise = self._noise.bits(self.decisions(x.shape), self.layer)[0].to(wide(x).dtype).expand_as(x)
        act = relu_drop if self.relu else drop
        return act(x, noise, threshold_of(self.p), scale_of(self.p))

    def decisions(self, shape: torch.Size) -> torch.Size:
        """The shape of the drawn decisions for an input of this shape."""
        dims = len(shape) - self.shared_dims
        return torch.Size((*shape[:dims], *([1] * self.shared_dims)))

    def extra_repr(self) -> str:
        """The arguments in the representation of the layer."""
        return f"p={self.p}, layer={self.layer}"


_SHARED_DIMS = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}
DROPOUT = tuple(_SHARED_DIMS)
"""The layers that `key_dropout` replaces."""


def key_dropout(model: nn.Module, noise: Noise) -> list[KeyedDropout]:
    """Replace every dropout layer inside the model by a keyed one; returns the new layers in the order of the model.

    Dropout in functional form and inside layers such as `nn.MultiheadAttention` is not replaced; it draws from the
    global generator, which a `SupervisedTask` seeds at every step.
    """
    layers: list[KeyedDropout] = []
    replaced: dict[nn.Module, KeyedDropout] = {}
    places = Counter(child for _, child in model.named_modules(remove_duplicate=False))
    for path, child in list(model.named_modules(remove_duplicate=False)):
        shared_dims = _SHARED_DIMS.get(type(child))
        if shared_dims is None or not path:
            continue
        # A layer used in two places remains one layer.
        if child not in replaced:
            replaced[child] = KeyedDropout(child.p, len(layers), noise, shared_dims)
            layers.append(replaced[child])
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, replaced[child])
        if shared_dims == 0 and places[child] == 1:
            replaced[child].relu = _take_relu(model.get_submodule(parent), name)
    return layers


def _take_relu(parent: nn.Module, name: str) -> bool:
    """Remove a plain ReLU directly before this layer from a sequence; returns whether it did."""
    if type(parent) is not nn.Sequential:
        return False
    names = list(parent._modules)
    place = names.index(name)
    before = parent[place - 1] if place else None
    if type(before) is not nn.ReLU or before._forward_hooks or before._forward_pre_hooks:
        return False
    parent[place - 1] = nn.Identity()
    return True
