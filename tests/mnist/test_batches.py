"""No epoch ends a run: images that fill no batch are left out, and sizes that cannot be trained are refused first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pbt.errors import ConfigError
from pbt.mnist.config.record import Config
from pbt.mnist.task import check_batches, find_data, steps_per_epoch
from pbt.mnist.training import prepare
from pbt.runs.placement import Placement

Configure = Callable[..., Config]
ALONE: dict[str, Any] = {"PBT_lr": None, "PBT_keep_prob": None, "num_epochs": 2, "num_iters_for_ckpt": 5}


@pytest.mark.parametrize("executor", ["inline", "vectorized"])
def test_a_population_trains_through_a_last_batch_of_one(configured: Configure, tmp_path: Path, executor: str) -> None:
    """500 images in batches of 499 leave one image over in every epoch, which batch normalization never sees."""
    place = Placement(executor=executor, workers=1, threads=1, device="cpu")
    prepared = prepare(configured(batch_size=499, num_epochs_tot=2, num_worker_tot=2), place, debug=True)
    assert prepared.steps_per_epoch == 1
    run = prepared.train(tmp_path / "run", resume=False)
    assert [member.status for member in run.view.population] == ["live", "live"]


def test_a_network_trains_through_a_last_batch_of_one(configured: Configure, tmp_path: Path) -> None:
    """The same for a single network."""
    place = Placement(executor="inline", threads=1, device="cpu")
    prepared = prepare(configured(**ALONE, num_val=99, batch_size=50), place, debug=True)
    assert prepared.steps_per_epoch == 10  # of 501 images
    assert prepared.train(tmp_path / "run", resume=False).best.step > 0


@pytest.mark.parametrize("keys", [{}, ALONE], ids=["population", "single"])
@pytest.mark.parametrize(
    ("size", "message"),
    [
        (1, "batch_size: expected at least 2 with batch_norm 1.*, got 1; set batch_size to 2 or more, or batch_norm"),
        (501, "batch_size: expected at most 500, the number of training images, got 501"),
    ],
)
def test_sizes_that_no_epoch_can_be_trained_with(
    configured: Configure, keys: dict[str, Any], size: int, message: str
) -> None:
    """They are refused before the start, of a population and of a single network."""
    with pytest.raises(ConfigError, match=message):
        prepare(configured(**keys, batch_size=size), Placement(executor="inline"))


@pytest.mark.parametrize("model", ["fc", "conv"])
def test_batches_of_one_image_with_batch_normalization(configured: Configure, model: str) -> None:
    """They are refused for both networks: a single image has no statistics of a batch."""
    with pytest.raises(ConfigError, match="batch_size: expected at least 2 with batch_norm 1"):
        prepare(configured(**ALONE, model=model, batch_size=1), Placement(executor="inline"))


def test_batches_of_one_image_without_batch_normalization(configured: Configure, tmp_path: Path) -> None:
    """Without batch normalization a batch may be one image."""
    keys = ALONE | {"num_epochs": 1, "num_iters_for_ckpt": 20}
    config = configured(**keys, num_val=580, batch_size=1, batch_norm=0)
    prepared = prepare(config, Placement(executor="inline", threads=1, device="cpu"), debug=True)
    assert prepared.train(tmp_path / "run", resume=False).best.step == 20


def test_steps_are_whole_batches(configured: Configure) -> None:
    """What fills whole batches keeps its number of steps."""
    for size, steps in ((50, 10), (49, 10), (51, 9), (500, 1)):
        config = configured(batch_size=size)
        found = find_data(config.train)
        check_batches(config, found)
        assert steps_per_epoch(config, found) == steps
