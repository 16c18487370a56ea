"""A loss that is an object is taken like a function."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

import pbt
from pbt import Float, Plan, keep, never
from pbt.errors import TaskError
from pbt.pytorch import loss, optimizer
from pbt.pytorch.losses import placed, training_loss
from tests.pytorch.tasks import NET

WEIGHT = torch.tensor([1.0, 5.0, 0.2])
SPACE = {"lr": Float(0.01, 0.5, "log"), "smoothing": Float(0.0, 0.3)}
PLAIN = replace(NET, bind={"lr": optimizer("lr"), "smoothing": loss("label_smoothing")}, augment=None, order="shared")


class Smoothed:
    def __init__(self):
        self.weight = WEIGHT

    def __call__(self, outputs, targets, label_smoothing=0.0):
        return functional.cross_entropy(outputs, targets, self.weight, label_smoothing=label_smoothing)


class Stiff(nn.Module):
    def forward(self, outputs, targets):
        return functional.cross_entropy(outputs, targets)


LOSSES = {
    "partial": partial(functional.cross_entropy, weight=WEIGHT),
    "module": nn.CrossEntropyLoss(weight=WEIGHT),
    "object": Smoothed(),
}


def history(made, executor):
    placement = pbt.Placement(threads=1, executor=executor, workers=1 if executor == "vectorized" else None)
    frame = pbt.run(
        replace(PLAIN, loss=made, evaluation_batch=7), SPACE, plan=Plan(exploit=never, explore=keep, interval=5),
        population=3, rounds=2, placement=placement, objective="minimize",
    ).history()  # fmt: skip
    return [*frame["score"], *frame["train_loss"]]


def by_function(outputs, targets, label_smoothing=0.0):
    return functional.cross_entropy(outputs, targets, weight=WEIGHT, label_smoothing=label_smoothing)


@pytest.mark.parametrize(
    "executor", ["inline", "pool", pytest.param("processes", marks=pytest.mark.slow), "vectorized"], indirect=True
)
@pytest.mark.parametrize("kind", LOSSES)
def test_objects(kind, executor) -> None:
    """Its scores are those of the function, with a setting of each member's own, in evaluation without it."""
    assert history(LOSSES[kind], executor) == pytest.approx(history(by_function, "inline"), abs=1e-5)
    assert nn.CrossEntropyLoss().label_smoothing == getattr(LOSSES[kind], "label_smoothing", 0.0) == 0.0


def test_what_an_object_does_not_take() -> None:
    """A setting that is neither argument nor attribute is refused, and so is a loss with parameters."""
    with pytest.raises(TaskError, match=r"the loss does not take the arguments bound to it.*label_smoothing"):
        replace(PLAIN, loss=Stiff()).check({"lr": 0.1, "smoothing": 0.1})
    with pytest.raises(TaskError, match="the loss Linear has parameters, which the optimizer does not train"):
        replace(PLAIN, loss=nn.Linear(3, 1)).check({"lr": 0.1})


def test_objects_are_moved() -> None:
    """Tensors of modules and partial functions are moved to the device, in a copy; others are left alone."""
    inner = nn.CrossEntropyLoss(weight=WEIGHT)
    for made in (inner, partial(functional.cross_entropy, weight=WEIGHT), partial(inner)):
        assert placed(made, "cpu") is made
    assert placed(inner, "meta").weight.device.type == "meta"
    assert placed(partial(functional.cross_entropy, weight=WEIGHT), "meta").keywords["weight"].device.type == "meta"
    assert placed(partial(inner), "meta").func.weight.device.type == "meta"
    assert inner.weight is WEIGHT
    assert training_loss(functional.cross_entropy, "meta") is functional.cross_entropy
