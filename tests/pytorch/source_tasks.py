"""Tasks on data that is read batch by batch, in a module of their own so that workers can import them."""

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pbt.pytorch import Data, Examples, Split, SupervisedTask, Tokens, optimizer, token_accuracy, token_cross_entropy
from tests.pytorch.tasks import BATCH, NET, jitter_inputs, make_data

TENSORS = make_data()
FORMS = ("numpy", "memmap", "kept on the CPU", "dataset", "batched dataset", "loader", "tensor dataset", "workers")


class Pairs(Dataset):
    """The examples of a split, one by one; jittered by numbers of all three global generators if `noise` is not 0."""

    def __init__(self, split, noise=0.0):
        self.x, self.y, self.noise = split.inputs, split.targets, noise

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        shift = self.noise * (random.random() + float(np.random.random()) + float(torch.rand(())))  # noqa: NPY002
        return self.x[i] + shift if self.noise else self.x[i], self.y[i]


class Batched(Pairs):
    """The same, read many at a time."""

    def __getitems__(self, indices):
        return [(self.x[i], self.y[i]) for i in indices]


def save(folder: Path):
    """The examples as files for memory maps."""
    for name, split in (("train", TENSORS.train), ("validation", TENSORS.validation)):
        np.save(folder / f"{name}_x.npy", split.inputs.numpy())
        np.save(folder / f"{name}_y.npy", split.targets.numpy())


def split_in(form, name, folder):
    """A split of the data in a form."""
    split = getattr(TENSORS, name)
    if form == "memmap":
        return Split(*(np.load(Path(folder) / f"{name}_{kind}.npy", mmap_mode="r") for kind in "xy"))
    shuffled = name == "train"
    return {
        "tensors": lambda: split,
        "numpy": lambda: Split(split.inputs.numpy(), split.targets.numpy()),
        "kept on the CPU": lambda: Split(split.inputs, split.targets, stream=True),
        "dataset": lambda: Pairs(split),
        "batched dataset": lambda: Batched(split),
        "loader": lambda: DataLoader(Pairs(split), batch_size=BATCH, shuffle=shuffled),
        "tensor dataset": lambda: torch.utils.data.TensorDataset(split.inputs, split.targets),
        "workers": lambda: Examples(Pairs(split), num_workers=1),
        "noise": lambda: Pairs(split, noise=0.3),
        "noise and workers": lambda: Examples(Pairs(split, noise=0.3), num_workers=2),
    }[form]()


def data_in(form, folder=""):
    """The data in a form; the same examples in each."""
    return Data(**{name: split_in(form, name, folder) for name in ("train", "validation")})


def task_in(form, folder="", **changes):
    """A task on the data in a form, with dropout and batch normalization."""
    fields = {"augment": None, "order": "shared", **changes}
    return replace(NET, data=partial(data_in, form, str(folder)), **fields)


AUGMENTED = {"augment": jitter_inputs}

# A language model

VOCABULARY, LENGTH = 11, 8
TEXT = torch.arange(700).square().add(torch.arange(700) // 3) % VOCABULARY


class Bigrams(nn.Module):
    """Logits of the next token from the last one, (n, length, vocabulary)."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, VOCABULARY)

    def forward(self, tokens):
        return self.head(self.embedding(tokens))


def token_data(file=""):
    """Tokens in memory, or in a file of 16-bit numbers."""
    tokens = np.memmap(file, np.uint16, "r") if file else TEXT.numpy().astype(np.uint16)
    return Data(train=Tokens(tokens[:600], LENGTH), validation=Tokens(tokens[600:], LENGTH, windows=5))


LANGUAGE = SupervisedTask(
    model=Bigrams,
    data=token_data,
    optimizer=partial(torch.optim.Adam, lr=0.01),
    bind={"lr": optimizer("lr")},
    loss=token_cross_entropy,
    metrics={"accuracy": token_accuracy},
    score="loss",
    batch_size=4,
)


# Data sets that go wrong


class Broken(Pairs):
    """One example fails, or has another form."""

    def __init__(self, split, at, how):
        super().__init__(split)
        self.at, self.how = at, how

    def __getitem__(self, i):
        if i != self.at:
            return super().__getitem__(i)
        if self.how == "missing file":
            raise FileNotFoundError(2, "No such file or directory", "images/17.png")
        x, y = super().__getitem__(i)
        return self.x[1000] if self.how == "length" else (x[:5], y) if self.how == "shape" else (x.double(), y)


def broken_data(at=17, how="missing file", num_workers=0):
    return Data(train=Examples(Broken(TENSORS.train, at, how), num_workers=num_workers), validation=TENSORS.validation)


def shorter_data(folder):
    """Examples of a file that may have been cut."""
    x = np.load(Path(folder) / "train_x.npy", mmap_mode="r")
    return Data(train=Split(x, TENSORS.train.targets[: len(x)]), validation=TENSORS.validation)


class MixedTargets(Pairs):
    """Tokens with targets left out, a different number in each example."""

    def __getitem__(self, i):
        tokens = TEXT[i * LENGTH : (i + 1) * LENGTH + 1].long()
        targets = tokens[1:].clone()
        targets[: i % LENGTH] = -100
        return tokens[:-1], targets


def masked_data(streamed):
    pairs = MixedTargets(TENSORS.validation)
    if streamed:
        return Data(train=pairs, validation=pairs)
    inputs, targets = (torch.stack(same) for same in zip(*(pairs[i] for i in range(len(pairs))), strict=True))
    return Data(train=Split(inputs, targets), validation=Split(inputs, targets))
