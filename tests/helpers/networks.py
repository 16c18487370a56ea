"""Small networks of many kinds, for executors that must train all of them.

A layer before a normalization has no bias: its gradient would consist of rounding errors, which optimizers that divide
by the gradient's size would amplify.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES, EXAMPLES, BATCH, WORDS, LENGTH = 3, 40, 12, 9, 5
"""Classes, training examples, examples per step (the last step of an epoch has 4), words and their number in a row."""


class Residual(nn.Module):
    """Convolutions with batch normalization and a shortcut, and dropout of whole channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.other = nn.BatchNorm2d(4)
        self.drop = nn.Dropout2d(0.2)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of images (n, 2, 6, 6)."""
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(x + self.other(self.second(x)))
        result: Tensor = self.head(self.drop(x).mean(dim=(2, 3)))
        return result


class SelfAttention(nn.Module):
    """An embedding and `nn.MultiheadAttention`.

    Args:
        weights: Whether to compute attention weights, for which torch uses another implementation.
    """

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.weights = weights
        self.embed = nn.Embedding(WORDS, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        """Scores of rows of words (n, length)."""
        x = self.embed(words)
        x = self.norm(x + self.attend(x, x, x, need_weights=self.weights)[0])
        result: Tensor = self.head(self.drop(x).mean(dim=1))
        return result


class CausalAttention(nn.Module):
    """Attention written by hand, with a mask as a buffer and position embeddings as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6)
        self.places = nn.Parameter(torch.randn(LENGTH, 6))
        self.mix = nn.Linear(6, 18, bias=False)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(6, CLASSES)
        self.mask: Tensor
        self.register_buffer("mask", torch.ones(LENGTH, LENGTH).tril().bool(), persistent=False)

    def forward(self, words: Tensor) -> Tensor:
        """Scores of rows of words (n, length)."""
        x = self.embed(words) + self.places
        query, key, value = self.mix(x).chunk(3, dim=-1)
        weights = (query @ key.transpose(1, 2) / 6**0.5).masked_fill(~self.mask, -torch.inf).softmax(dim=-1)
        result: Tensor = self.head((x + self.drop(weights) @ value)[:, -1])
        return result


class Tied(nn.Module):
    """A network whose input embedding and output layer share weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6)
        self.inner = nn.Linear(6 * LENGTH, 6)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(6, WORDS)
        self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        """Scores of the next word after rows of words (n, length)."""
        result: Tensor = self.head(self.drop(torch.tanh(self.inner(self.embed(words).flatten(1)))))
        return result


class TwoInputs(nn.Module):
    """Two branches, for numbers and for words; one layer and one dropout are used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Linear(6, 8)
        self.words = nn.EmbeddingBag(WORDS, 8, mode="mean")
        self.shared = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Bilinear(8, 8, CLASSES)

    def forward(self, numbers: Tensor, words: Tensor) -> Tensor:
        """Scores of numbers (n, 6) with words (n, length)."""
        left = self.drop(torch.tanh(self.shared(self.numbers(numbers))))
        right = self.drop(torch.tanh(self.shared(self.words(words))))
        result: Tensor = self.head(left, right)
        return result


class Recurrent(nn.Module):
    """An embedding and a recurrent network.

    Args:
        kind: The recurrent layer, such as `nn.LSTM`.
    """

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 5)
        self.inner = kind(5, 6, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        """Scores of rows of words (n, length)."""
        result: Tensor = self.head(self.drop(self.inner(self.embed(words))[0][:, -1]))
        return result


class Partly(nn.Module):
    """A network with a frozen and an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 8)
        self.frozen.requires_grad_(False)
        self.unused = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of numbers (n, 6)."""
        result: Tensor = self.head(self.drop(torch.relu(self.norm(self.frozen(x)))))
        return result


def dense() -> nn.Module:
    """Two hidden layers with batch normalization and dropout."""
    return nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, CLASSES),
    )  # fmt: skip


def plain() -> nn.Module:
    """A network without noise and without buffers."""
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def layer_norms() -> nn.Module:
    """Layer normalization, GELU and PReLU."""
    return nn.Sequential(
        nn.Linear(6, 10), nn.LayerNorm(10), nn.GELU(), nn.Dropout(0.2),
        nn.Linear(10, 8), nn.LayerNorm(8, elementwise_affine=False), nn.PReLU(), nn.Linear(8, CLASSES),
    )  # fmt: skip


def group_norms() -> nn.Module:
    """Group normalization, padding that reflects, strides and pooling."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same", padding_mode="reflect", bias=False), nn.GroupNorm(2, 4), nn.SiLU(),
        nn.MaxPool2d(2), nn.Dropout(0.2), nn.Conv2d(4, 6, 2, stride=2), nn.ELU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip


def depthwise() -> nn.Module:
    """Depthwise and pointwise convolutions in one dimension and two, one of them transposed."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.Dropout(0.2), nn.ConvTranspose2d(4, 2, 2),
        nn.Flatten(start_dim=2), nn.Conv1d(2, 4, 5, stride=2, dilation=2, groups=2), nn.Softplus(),
        nn.AvgPool1d(2), nn.Flatten(), nn.Linear(16, CLASSES),
    )  # fmt: skip
