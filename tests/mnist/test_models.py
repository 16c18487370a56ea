"""The two networks, as the original describes them."""

import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pbt.mnist.config.record import Config
from pbt.mnist.config.sections import Metric
from pbt.mnist.metrics import METRICS, accuracy_onehot, error
from pbt.mnist.models import Shape, count_parameters, network

FC: dict[str, Any] = {"model": "fc", "image": (1, 28, 28), "classes": 10, "sizes": (256, 256), "batch_norm": True}
CONV = {**FC, "model": "conv", "sizes": (16, 32)}


def shape(of: dict[str, Any], **changes: Any) -> Shape:
    return Shape(**{"keep_prob": 0.8, **of, **changes})


def kinds(model: nn.Module) -> list[type[nn.Module]]:
    return [type(layer) for layer in model.children()]


HIDDEN = [nn.BatchNorm1d, nn.ReLU, nn.Dropout]
HIDDEN_2D = [nn.BatchNorm2d, nn.ReLU, nn.Dropout]


def test_fc_has_the_layers_of_the_original_in_their_order() -> None:
    """The fully connected network is Linear - BatchNorm - ReLU - Dropout twice with 256 units, then Linear to 10."""
    model = network(shape(FC))
    assert kinds(model) == [nn.Flatten, nn.Linear, *HIDDEN, nn.Linear, *HIDDEN, nn.Linear]
    shapes = [tuple(layer.weight.shape) for layer in model if isinstance(layer, nn.Linear)]
    assert shapes == [(256, 784), (256, 256), (10, 256)]


def test_conv_has_the_layers_of_the_original_in_their_order() -> None:
    """The convolutional network is Conv 3x3 pad 1 - BatchNorm - ReLU - Dropout twice, no pooling, then Linear."""
    model = network(shape(CONV))
    assert kinds(model) == [nn.Conv2d, *HIDDEN_2D, nn.Conv2d, *HIDDEN_2D, nn.Flatten, nn.Linear]
    convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    assert [tuple(layer.weight.shape) for layer in convolutions] == [(16, 1, 3, 3), (32, 16, 3, 3)]
    assert {(layer.padding, layer.stride) for layer in convolutions} == {((1, 1), (1, 1))}
    assert tuple(model[-1].weight.shape) == (10, 32 * 28 * 28)


@pytest.mark.parametrize(
    ("of", "count"),
    [
        (FC, 784 * 256 + 256 + 2 * 256 + 256 * 256 + 256 + 2 * 256 + 256 * 10 + 10),
        (CONV, 9 * 16 + 16 + 2 * 16 + 9 * 16 * 32 + 32 + 2 * 32 + 32 * 784 * 10 + 10),
        ({**FC, "batch_norm": False}, 784 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10),
        ({**CONV, "batch_norm": False}, 9 * 16 + 16 + 9 * 16 * 32 + 32 + 32 * 784 * 10 + 10),
    ],
)
def test_the_networks_have_the_parameters_that_their_layers_add_up_to(of: dict[str, Any], count: int) -> None:
    """The number of trainable parameters is that of the layers on paper, with and without batch normalization."""
    assert count_parameters(shape(of)) == count


@pytest.mark.parametrize("of", [FC, CONV])
def test_without_batch_norm_nothing_else_changes(of: dict[str, Any]) -> None:
    """With batch_norm 0 the network has the same other layers in the same order, and no running statistics."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    plain = network(shape(of, batch_norm=False))
    assert kinds(plain) == [kind for kind in kinds(network(shape(of))) if kind not in norms]
    assert not list(plain.buffers())


@pytest.mark.parametrize("sizes", [(), (3,), (5, 4), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("of", [FC, CONV])
def test_any_number_of_layers_of_any_size(of: dict[str, Any], sizes: tuple[int, ...]) -> None:
    """As many hidden layers as there are sizes, each with its size, and logits for each class at the end."""
    model = network(shape(of, sizes=sizes, classes=7, image=(2, 6, 5)))
    layers = [layer for layer in model if isinstance(layer, (nn.Linear, nn.Conv2d))]
    assert [layer.weight.shape[0] for layer in layers] == [*sizes, 7]
    assert model(torch.randn(3, 2, 6, 5)).shape == (3, 7)


@pytest.mark.parametrize("of", [FC, CONV])
def test_weights_fill_the_xavier_interval_and_biases_are_zero(of: dict[str, Any]) -> None:
    """Weights are uniform within sqrt(6 / (fan in + fan out)), which for a convolution counts the kernel; biases 0."""
    torch.manual_seed(0)
    for layer in network(shape(of)):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            kernel = math.prod(layer.weight.shape[2:])
            bound = math.sqrt(6 / (kernel * (layer.weight.shape[0] + layer.weight.shape[1])))
            assert 0.95 * bound < layer.weight.abs().max() <= bound
            # The deviation of a uniform draw is its bound over the root of 3.
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
            assert not layer.bias.any()


def test_keep_prob_is_one_minus_the_dropout_probability() -> None:
    """A keep probability of 0.8 drops one element in five."""
    dropped = [layer.p for layer in network(shape(FC, keep_prob=0.8)) if isinstance(layer, nn.Dropout)]
    assert dropped == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize(("model", "sizes"), [("fc", (11, 12)), ("conv", (3, 4, 5))])
def test_a_configuration_names_the_network(model: str, sizes: tuple[int, ...]) -> None:
    """`n_hiddens` builds a fully connected network, `n_filters` a convolutional one, with the configured image."""
    said = {"model": model, "n_hiddens": "11,12", "n_filters": "3,4,5", "height": 20, "width": 24, "num_classes": 4}
    section = Config.from_dict({"train": {**said, "num_channels": 3, "batch_norm": 0}}).train
    assert Shape.of(section, keep_prob=0.7) == Shape(
        model=model, image=(3, 20, 24), classes=4, sizes=sizes, batch_norm=False, keep_prob=0.7
    )


def test_onehot_accuracy_takes_either_form_of_targets() -> None:
    """The share of rows that are right is the same for class numbers and for one-hot targets."""
    outputs = torch.tensor([[0.1, 2.0, 0.3], [3.0, 1.0, 0.0], [0.0, 0.1, 0.2], [0.0, 1.0, 0.5]])
    labels = torch.tensor([1, 0, 1, 1])
    assert float(accuracy_onehot(outputs, labels)) == 0.75
    assert float(accuracy_onehot(outputs, torch.eye(3)[labels])) == 0.75


def test_every_metric_of_a_configuration_is_there() -> None:
    """Each name that `metric` may say is a metric, and error is what accuracy leaves."""
    assert set(METRICS) == set(get_args(Metric))
    outputs, labels = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 1.0]]), torch.tensor([0, 1, 1])
    assert float(METRICS["accuracy_categ"](outputs, labels)) == pytest.approx(2 / 3)
    assert float(error(outputs, labels)) == pytest.approx(1 / 3)
    assert float(METRICS["loss"](outputs, labels)) == pytest.approx(float(F.cross_entropy(outputs, labels)))
