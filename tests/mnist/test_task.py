"""From a configuration to a task: data, normalization, the space, and where evolving values act."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pbt.domains import Choice, Float
from pbt.errors import ConfigError
from pbt.mnist.config.record import Config
from pbt.mnist.config.types import HYPERPARAMETERS
from pbt.mnist.data.find import load_mnist
from pbt.mnist.task import BINDINGS, as_data, check_image, find_data, load_data, normalize, space, supervised
from pbt.pytorch.bind import Live, bind_all
from pbt.pytorch.noise import KeyedDropout, Noise

Configure = Callable[..., Config]


def test_pixels_are_normalized_with_the_mean_and_deviation_of_mnist() -> None:
    """A byte x becomes (x / 255 - 0.1307) / 0.3081, and the stored bytes stay as they are."""
    stored = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    found = normalize(stored)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, (stored / 255 - 0.1307) / 0.3081)
    assert torch.equal(stored.flatten(), torch.arange(256, dtype=torch.uint8))


def test_networks_get_each_split_with_a_channel(digits: Path) -> None:
    """Training, held-out and test images come with labels of their own and a channel dimension, pixels unchanged."""
    found = load_mnist(digits, num_val=100, download=False)
    data = as_data(found, (1, 28, 28))
    assert data.test is not None
    assert [len(split) for split in (data.train, data.validation, data.test)] == [500, 100, 100]
    assert data.train.inputs.shape == (500, 1, 28, 28)  # type: ignore[union-attr]
    assert torch.equal(data.validation.inputs[:, 0], found.val_x)  # type: ignore[call-overload]
    assert torch.equal(data.test.targets, found.test_y)


def test_a_worker_loads_what_was_found_before_the_start(digits: Path) -> None:
    """The data that a worker loads are those of the folder, without the test images where somebody else tests."""
    data = load_data(digits, 100, (1, 28, 28), 10)
    assert data.test is not None
    assert torch.equal(data.train.targets, load_mnist(digits, num_val=100).train_y)
    assert load_data(digits, 100, (1, 28, 28), 10, test=False).test is None


@pytest.mark.parametrize("change", [{"height": 32}, {"width": 14}, {"num_channels": 3}])
def test_images_of_another_shape_are_refused(configured: Configure, change: dict[str, Any]) -> None:
    """Data that are not of the configured shape are an error that says both shapes."""
    with pytest.raises(ConfigError, match=r"are \(1, 28, 28\), the configuration says"):
        find_data(configured(**change).train)


def test_images_of_the_configured_shape_are_taken(digits: Path) -> None:
    """The shape of the data itself passes."""
    check_image(load_mnist(digits, num_val=0), (1, 28, 28))


@pytest.mark.parametrize(
    ("keys", "domain"),
    [
        ({"PBT_lr": "0.1,0.0001"}, Float(0.0001, 0.1)),
        ({"PBT_lr": "0.1,0.0001", "PBT_lr_scale": "log"}, Float(0.0001, 0.1, "log")),
        ({"PBT_lr": "0.1,0.01", "PBT_lr_bounds": "1,0.001"}, Float(0.001, 1.0, prior=(0.01, 0.1))),
        ({"PBT_lr": "0.1,0.01,0.05"}, Choice((0.01, 0.05, 0.1), ordered=True)),
    ],
)
def test_two_values_are_a_range_and_more_are_ordered_choices(
    configured: Configure, keys: dict[str, str], domain: object
) -> None:
    """A range gives prior and bounds, optional keys widen or bend it, and three values or more are ordered choices."""
    assert dict(space(configured(**{"PBT_keep_prob": None, **keys}))) == {"lr": domain}


def _dropout(live: Live) -> set[float]:
    return {layer.p for layer in live.parts["model"].modules() if isinstance(layer, KeyedDropout)}


def _group(live: Live) -> dict[str, Any]:
    groups: list[dict[str, Any]] = live.parts["optimizer"].param_groups
    return groups[0]


EFFECTS: dict[str, Callable[[Live], object]] = {
    "lr": lambda live: _group(live)["lr"],
    "weight_decay": lambda live: _group(live)["weight_decay"],
    "beta1": lambda live: _group(live)["betas"][0],
    "beta2": lambda live: _group(live)["betas"][1],
    "label_smoothing": lambda live: live.loss["label_smoothing"],
    "keep_prob": lambda live: 1 - max(_dropout(live)),
}


def test_whatever_may_evolve_is_bound() -> None:
    """Every name that a configuration lets evolve has a place where it takes effect."""
    assert set(BINDINGS) == set(HYPERPARAMETERS) == set(EFFECTS)


@pytest.mark.parametrize("name", sorted(BINDINGS))
def test_an_evolving_value_reaches_the_live_network(configured: Configure, name: str) -> None:
    """Binding a value changes the optimizer, the dropout layers or the loss to exactly that value."""
    task = supervised(configured())
    live = task.build("cpu", Noise(), seed=0)
    bind_all(live, {name: 0.375}, BINDINGS)
    assert EFFECTS[name](live) == 0.375


def test_what_does_not_evolve_is_as_configured(configured: Configure) -> None:
    """The optimizer and dropout that are built have the configuration's own values."""
    config = configured(lr=0.02, weight_decay=0.003, beta1=0.8, beta2=0.95, keep_prob=0.75)
    live = supervised(config).build("cpu", Noise(), seed=0)
    assert {name: _group(live)[name] for name in ("lr", "weight_decay", "betas")} == {
        "lr": 0.02,
        "weight_decay": 0.003,
        "betas": (0.8, 0.95),
    }
    assert _dropout(live) == {0.25}


def test_the_task_can_be_sent_to_workers(configured: Configure) -> None:
    """A task goes through pickle and builds the same network on the other side."""
    task = supervised(configured())
    sent = pickle.loads(pickle.dumps(task))
    one, other = (t.build("cpu", Noise(), seed=3).parts["model"].state_dict() for t in (task, sent))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
