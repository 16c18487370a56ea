"""The task of a configuration: data, network, optimizer, and evolving hyperparameters."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pbt.domains import Choice, Domain, Float
from pbt.errors import ConfigError, DataError
from pbt.mnist.augment import augmentation
from pbt.mnist.config.evolving import Evolving
from pbt.mnist.config.record import Config
from pbt.mnist.config.sections import Section
from pbt.mnist.data.find import MEAN, STD, Dataset, load_mnist
from pbt.mnist.metrics import METRICS, beside
from pbt.mnist.models import Shape, network
from pbt.pytorch import Binding, Data, Split, SupervisedTask, accuracy, dropout, loss, optimizer
from pbt.runs.catalog import opened
from pbt.runs.results import Run
from pbt.space import Space
from pbt.store.reader import is_begun

log = logging.getLogger("pbt")

BINDINGS: Mapping[str, Binding] = {
    "lr": optimizer("lr"),
    "keep_prob": dropout(keep=True),
    "weight_decay": optimizer("weight_decay"),
    "label_smoothing": loss("label_smoothing"),
    "beta1": optimizer("betas", index=0),
    "beta2": optimizer("betas", index=1),
}
"""The binding of each hyperparameter that may evolve."""
EVALUATION_BATCH = 1000


def supervised(config: Config, *, test: bool = True) -> SupervisedTask:
    """The task that a configuration describes, which can be sent to worker processes.

    Args:
        config: The configuration.
        test: Evaluate the test images after every round, too; not needed beside a tester.
    """
    train = config.train
    shape = Shape.of(train, keep_prob=train.keep_prob)
    test = test and config.test.version != "test_none"
    named = dict.fromkeys((*beside(train.metric), *(beside(config.test.metric) if test else ())))
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
        evaluation_batch=evaluation_batch(config.test.batch_size),
        prepare=PREPARE[train.pixels],
        augment=augmentation(train),
        order=train.data_order if train.shuffle else "stored",
        record_every=train.num_iters_for_ckpt,
    )


def evaluation_batch(configured: int) -> int:
    """Images evaluated at once: as configured; instead of the original's 1, as many as are fast."""
    return configured if configured > 1 else EVALUATION_BATCH


def space(config: Config) -> Space:
    """The hyperparameters that evolve."""
    return Space({name: _domain(entry) for name, entry in config.evolving.items()})


def normalize(images: Tensor) -> Tensor:
    """Bytes (n, channels, height, width) as floats, normalized by mean and deviation of MNIST's training pixels."""
    return images.to(torch.float32).sub_(255 * MEAN).mul_(1 / (255 * STD))


def normalize_as_original(images: Tensor) -> Tensor:
    """The same as computed by the original: mean and deviation of pixels from 0 to 1, applied to bytes."""
    return images.to(torch.float32).sub_(MEAN).mul_(1 / (255 * STD))


PREPARE: Mapping[str, Callable[[Tensor], Tensor]] = {"standard": normalize, "original": normalize_as_original}
"""The functions from stored bytes to a network's inputs, by value of the key `pixels`."""


def load_data(
    folder: Path, num_val: int | None, image: tuple[int, int, int], classes: int, *, test: bool = True
) -> Data:
    """The stored images, to be normalized batch by batch.

    Workers call this after the data has been found, so it never downloads.
    """
    found = _load(folder, num_val, channels=image[0], num_classes=classes, download=False)
    data = as_data(found, image)
    return data if test else dataclasses.replace(data, test=None)


def steps_per_epoch(config: Config, found: Dataset) -> int:
    """Training steps of an epoch; images that fill no batch are left out."""
    return len(found.train_y) // config.train.batch_size


def check_batches(config: Config, found: Dataset) -> None:
    """Check, before the start, that an epoch can be trained with the batch size.

    Raises:
        ConfigError: An epoch has no whole batch, or batch normalization would get single images.
    """
    train = config.train
    if train.batch_size > len(found.train_y):
        raise ConfigError(
            f"batch_size: expected at most {len(found.train_y):,}, the number of training images, got "
            f"{train.batch_size:,}"
        )
    if train.batch_size == 1 and train.batch_norm:
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


def find_data(
    section: Section, progress: Callable[[str, int, int], None] | None = None, *, held_out: bool = True
) -> Dataset:
    """The data set that a configuration names, checked against the configured shape.

    A `data_dir` that is not the default is used or is an error; the default may be downloaded. A default `num_val`
    that is too large for the data is lowered, with a notice.

    Args:
        section: The section of the configuration.
        progress: Called while a file is downloaded.
        held_out: Whether the held-out images are needed; without them `num_val` is not checked.

    Raises:
        ConfigError: The images have another shape.
        DataError: The data set does not exist or is damaged, or `num_val` is too large.
    """
    chosen = "num_val" in section.model_fields_set and (held_out or section.num_val == 0)
    num_val = section.num_val if chosen else None
    channels, classes = section.num_channels, section.num_classes
    found = _load(section.data_dir, num_val, channels=channels, num_classes=classes, progress=progress)
    check_image(found, (channels, section.height, section.width))
    if found.notice and held_out:
        log.info("%s", found.notice)
    return found


def check_same(found: Dataset, path: Path) -> None:
    """Check that a run is resumed with its own data set.

    Raises:
        DataError: The run in `path` was started with another data set.
    """
    if is_begun(path):
        with opened(path) as (run, _):
            check_note(run, found.note, found.line)


def check_note(run: Run, note: str, line: str) -> None:
    """Check that images are of the data set that a run was started with.

    Args:
        run: The run.
        note: The note of the images.
        line: Their folder and note, for the message.

    Raises:
        DataError: They are of another data set.
    """
    started = run.meta["application"].get("note", "")
    if started != note:
        raise DataError(
            f"{run.path}: was started with {started or 'MNIST'}; found in {line}; put its data where it was, or set "
            "PBT_DATA_DIR to it where no data_dir was named"
        )


def with_num_val(config: Config, found: Dataset) -> Config:
    """The configuration with the actual number of held-out images, as resuming needs it."""
    if config.train.num_val == found.num_val:
        return config
    sections = {name: getattr(config, name) for name in ("train", "test", "val")}
    held = {"num_val": found.num_val}
    return dataclasses.replace(config, **{name: one.model_copy(update=held) for name, one in sections.items()})


def _load(folder: Path, num_val: int | None, **how: Any) -> Dataset:
    # A folder given on the command line is absolute, and so never equals the default.
    return load_mnist(folder, num_val=num_val, fall_back=folder == Section.model_fields["data_dir"].default, **how)


def check_image(found: Dataset, image: tuple[int, int, int]) -> None:
    """Check that the images have the configured shape; raises ConfigError."""
    there = (1, *found.train_x.shape[1:])[-3:]
    if there != image:
        raise ConfigError(
            f"num_channels, height, width: the images of {found.source} are {there}, the configuration says {image}; "
            "set the three keys to the images' own"
        )


def _split(images: Tensor, labels: Tensor, image: tuple[int, int, int]) -> Split:
    return Split(images.reshape(-1, *image), labels)


def _domain(entry: Evolving) -> Domain:
    if entry.kind == "choice":
        return Choice(entry.values, ordered=True)
    low, high = entry.bounds
    prior = (entry.values[0], entry.values[-1])
    return Float(low, high, entry.scale, prior=None if prior == (low, high) else prior)
