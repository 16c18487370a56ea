"""The demonstration: population based training of the fully connected network, in a minute or two on two cores."""

from collections.abc import Mapping

from pbt.mnist.config.record import Config
from pbt.mnist.data.find import Dataset

_EPOCHS_OF_MNIST, _EPOCHS_OF_DIGITS = 10, 40
_ENOUGH_FOR_MNIST = 20_000
"""Training images from which on an epoch takes seconds, not a second."""


def demo_config(overrides: Mapping[str, object] | None = None) -> Config:
    """The configuration of `config/fc_PBT.json`, which an installed package does not have at hand."""
    train = {
        "model": "fc",
        "n_hiddens": [256, 256],
        "batch_size": 200,
        "PBT_lr": [0.1, 0.0001],
        "PBT_keep_prob": [0.5, 0.99],
        "num_iters_for_ckpt": 10,
        "num_worker_tot": 10,
        "num_epochs": 1,
        **(overrides or {}),
    }
    return Config.from_dict({"train": train})


def demo_epochs(data: Dataset) -> int:
    """How many epochs make a demonstration: few of the 55,000 images, many of the 4,000 digits."""
    return _EPOCHS_OF_MNIST if len(data.train_y) > _ENOUGH_FOR_MNIST else _EPOCHS_OF_DIGITS
