"""Tokens of a text as examples of a language model, and the loss and accuracy of its logits."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pbt.errors import TaskError
from pbt.pytorch.mapped import FilePlace, MemoryMap, is_mapped, tensor_of
from pbt.pytorch.sources import Batch, ExampleSource, Request, Stream, read_ahead

_WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
"""Types that torch computes little with on accelerators, and those that hold the same values."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Windows of a long text as examples: inputs (length,), targets (length,) shifted by one token, both int64.

    Window `i` has the tokens from `i * stride` on. With the default stride windows do not overlap, and an epoch
    predicts each token once. `stride=1` has every window of the text; its epoch is long, and a run samples from it
    without replacement. An epoch's order takes 8 bytes per window.

    Args:
        tokens: Token ids, (n,): a tensor or a numpy array of integers, as `np.memmap("train.bin", np.uint16, "r")`.
        length: Tokens of a window.
        stride: Tokens between the starts of two windows; None: `length`.
        windows: Number of windows to use, evenly spaced, for evaluation on a part; None: all.
        stream: As in `Split`.

    Raises:
        TaskError: The tokens are no integers in one dimension, or make fewer windows.
    """

    tokens: Any
    length: int
    stride: int | None = None
    windows: int | None = None
    stream: bool | None = None
    _mapping: MemoryMap | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tensor, mapping = tensor_of(self.tokens, "the tokens")
        if tensor.dim() != 1 or tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool:
            raise TaskError(
                f"expected tokens to be integers in one dimension, got {str(tensor.dtype).removeprefix('torch.')} of "
                f"shape {tuple(tensor.shape)}; join the texts to one array of token ids"
            )
        for name in ("length", "stride", "windows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TaskError(f"expected {name} to be at least 1, got {value}")
        object.__setattr__(self, "tokens", tensor)
        object.__setattr__(self, "_mapping", mapping)
        if len(tensor) and self._all < (self.windows or 1):
            raise TaskError(
                f"expected at least {self.windows or 1:,} windows of {self.length:,} tokens and a next one, got "
                f"{self._all:,} in {len(tensor):,} tokens; choose a smaller length, stride or number of windows"
            )

    @property
    def _step(self) -> int:
        return self.stride or self.length

    @property
    def _all(self) -> int:
        """The number of windows in the text."""
        return max(0, (len(self.tokens) - 1 - self.length) // self._step + 1)

    @property
    def streamed(self) -> bool:
        """Whether the windows are read batch by batch."""
        return self.stream if self.stream is not None else self._mapping is not None or is_mapped(self.tokens)

    @property
    def device(self) -> str:
        """The device of the tokens."""
        return str(self.tokens.device)

    @property
    def labels(self) -> None:
        """None: the targets are made batch by batch."""
        return

    def __len__(self) -> int:
        return self.windows or self._all

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the file again.
        tokens = self.tokens if self._mapping is None else self._mapping.place
        return _opened, (tokens, self.length, self.stride, self.windows, self.stream)

    def to(self, device: str) -> ExampleSource:
        """The same windows on a device."""
        if self.streamed:
            return Stream(self, device)
        wider = self.tokens.to(_WIDER.get(self.tokens.dtype, self.tokens.dtype))
        return Tokens(wider.to(device), self.length, self.stride, self.windows)

    def take(self, index: Tensor | slice) -> Batch:
        """The inputs and targets of these windows, (n, length) or (members, n, length)."""
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)), device=self.tokens.device)
        chosen = index if self.windows is None else index * self._all // self.windows
        places = (chosen * self._step).unsqueeze(-1) + torch.arange(self.length + 1, device=index.device)
        read = self.tokens[places]
        if self._mapping is not None:
            self._mapping.count(index.numel(), read.nbytes)
        # Two copies: one may be changed in place.
        return (read[..., :-1].long().contiguous(),), read[..., 1:].to(torch.int64, copy=True).contiguous()

    def feed(self, requests: Iterable[Request], *, pinned: bool) -> Iterator[Batch]:
        """The batches of these requests, in order, the next ones read ahead."""
        return read_ahead(self.take, requests, pinned=pinned)


def _opened(tokens: Any, *settings: Any) -> Tokens:
    return Tokens(tokens.open() if isinstance(tokens, FilePlace) else tokens, *settings)


def token_cross_entropy(outputs: Tensor, targets: Tensor, **settings: Any) -> Tensor:
    """The mean cross-entropy per token, in nats.

    Args:
        outputs: Logits, (n, length, vocabulary).
        targets: Token ids, (n, length); -100 is left out.
        settings: Those of `F.cross_entropy`, as `label_smoothing`.
    """
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), **settings)


def token_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The fraction of targets (n, length) whose logit (n, length, vocabulary) is the largest; -100 is left out."""
    counted = targets != -100
    return ((outputs.argmax(dim=-1) == targets) & counted).double().sum() / counted.sum()
