"""From a configuration to something that `pbt` trains: data, network, optimizer, and what evolves."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pbt.errors import ConfigError
from pbt.mnist.augment import augmentation
from pbt.mnist.config.evolving import Evolving
from pbt.mnist.config.record import Config
from pbt.mnist.config.sections import Section
from pbt.mnist.data.find import MEAN, STD, Dataset, load_mnist
from pbt.mnist.metrics import METRICS, beside
from pbt.mnist.models import Shape, network
from pbt.pytorch import Binding, Data, Split, SupervisedTask, accuracy, dropout, loss, optimizer
from pbt.space import Choice, Domain, Float, Space

BINDINGS: Mapping[str, Binding] = {
    "lr": optimizer("lr"),
    "keep_prob": dropout(keep=True),
    "weight_decay": optimizer("weight_decay"),
    "label_smoothing": loss("label_smoothing"),
    "beta1": optimizer("betas", index=0),
    "beta2": optimizer("betas", index=1),
}
"""Where each value of the configuration that may evolve takes effect."""


def supervised(config: Config, *, test: bool = True) -> SupervisedTask:
    """The task that a configuration describes; it can be sent to worker processes.

    Args:
        config: The configuration.
        test: Report the test images after every round too; where a tester does that they are left out.
    """
    train = config.train
    shape = Shape.of(train, keep_prob=train.keep_prob)
    named = beside(config.test.metric) if test else ()
    return SupervisedTask(
        model=functools.partial(network, shape),
        data=functools.partial(load_data, train.data_dir, train.num_val, shape.image, train.num_classes, test=test),
        # fused: one pass over each tensor instead of eight.
        optimizer=functools.partial(
            torch.optim.Adam,
            lr=train.lr,
            betas=(train.beta1, train.beta2),
            weight_decay=train.weight_decay,
            fused=True,
        ),
        bind=BINDINGS,
        metrics={"accuracy": accuracy, **{name: METRICS[name] for name in named}},
        batch_size=train.batch_size,
        drop_last=True,
        prepare=normalize,
        augment=augmentation(train),
        order=train.data_order if train.shuffle else "stored",
        record_every=train.num_iters_for_ckpt,
    )


def space(config: Config) -> Space:
    """The hyperparameters that evolve."""
    return Space({name: _domain(entry) for name, entry in config.evolving.items()})


def normalize(images: Tensor) -> Tensor:
    """Bytes (n, channels, height, width) as floats with the mean and deviation of MNIST's training pixels."""
    return images.to(torch.float32).sub_(255 * MEAN).mul_(1 / (255 * STD))


def load_data(folder: Path, num_val: int, image: tuple[int, int, int], classes: int, *, test: bool = True) -> Data:
    """The images as they are stored, ready to be normalized a batch at a time.

    Workers call this after the data was found once, and so never download.
    """
    data = as_data(load_mnist(folder, num_val=num_val, download=False, num_classes=classes), image)
    return data if test else dataclasses.replace(data, test=None)


def steps_per_epoch(config: Config, found: Dataset) -> int:
    """Training steps of an epoch; images at its end that do not fill a batch are left out."""
    return len(found.train_y) // config.train.batch_size


def check_batches(config: Config, found: Dataset) -> None:
    """Refuse, before the start, a batch size that no epoch can be trained with.

    Raises:
        ConfigError: An epoch has no whole batch, or batch normalization would see one value at a time.
    """
    train = config.train
    if train.batch_size > len(found.train_y):
        raise ConfigError(
            f"batch_size: expected at most {len(found.train_y):,}, the number of training images, got "
            f"{train.batch_size:,}"
        )
    if train.batch_size == 1 and train.batch_norm and (train.model == "fc" or train.height * train.width == 1):
        raise ConfigError(
            "batch_size: expected at least 2 with batch_norm 1, which has no statistics of a single image, got 1; "
            "set batch_size to 2 or more, or batch_norm to 0"
        )


def as_data(found: Dataset, image: tuple[int, int, int]) -> Data:
    """The three splits with the channel dimension that networks expect."""
    return Data(
        train=_split(found.train_x, found.train_y, image),
        validation=_split(found.val_x, found.val_y, image),
        test=_split(found.test_x, found.test_y, image),
    )


def find_data(section: Section, progress: Callable[[str, int, int], None] | None = None) -> Dataset:
    """The data set that a configuration names, downloaded if need be; checked against the configured shape."""
    found = load_mnist(section.data_dir, num_val=section.num_val, progress=progress, num_classes=section.num_classes)
    check_image(found, (section.num_channels, section.height, section.width))
    return found


def check_image(found: Dataset, image: tuple[int, int, int]) -> None:
    """Raise ConfigError unless the images have the configured shape."""
    there = (1, *found.train_x.shape[1:])
    if there != image:
        raise ConfigError(
            f"num_channels, height, width: the images of {found.source} are {there}, the configuration says {image}"
        )


def _split(images: Tensor, labels: Tensor, image: tuple[int, int, int]) -> Split:
    return Split(images.reshape(-1, *image), labels)


def _domain(entry: Evolving) -> Domain:
    if entry.kind == "choice":
        return Choice(entry.values, ordered=True)
    low, high = entry.bounds
    prior = (entry.values[0], entry.values[-1])
    return Float(low, high, entry.scale, prior=None if prior == (low, high) else prior)
