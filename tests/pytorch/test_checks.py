"""Mistakes in a supervised task are found before the start, in one line that says what to write."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pbt
from pbt.errors import TaskError
from pbt.pytorch import Data, Split, batch_size, optimizer
from tests.pytorch.tasks import EXAMPLES, NET, make_data, make_net

SPACE = {"lr": pbt.Float(0.01, 0.5, "log")}
PLAIN = replace(NET, bind={"lr": optimizer("lr")}, augment=None)


def pair():
    return make_data().train, make_data().validation


def loader():
    data = make_data().train
    return DataLoader(TensorDataset(data.inputs, data.targets), batch_size=8)


def nothing_held_out():
    data = make_data()
    return Data(train=data.train, validation=Split(data.train.inputs[:0], data.train.targets[:0]))


def lists():
    return Data(train=Split([[1.0]], [1]), validation=Split([[1.0]], [1]))


def unequal():
    data = make_data()
    return Data(train=Split(data.train.inputs, data.train.targets[1:]), validation=data.validation)


def split_of(count):
    data = make_data()
    return Data(train=Split(*(x[:count] for x in (data.train.inputs, data.train.targets))), validation=data.validation)


def two_dimensional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(12, 3)
    )


class MoreData(Data):
    pass


MISTAKES = {
    "a network": (
        {"model": make_net()},
        "model to be a function that returns a new network.*got a Sequential; write model=",
    ),
    "no network": ({"model": dict}, r"model\(\) to return a torch.nn.Module, got a dict"),
    "no parameters": ({"model": nn.Flatten}, "Flatten has no trainable parameters"),
    "a name": ({"optimizer": "sgd"}, "optimizer to be a function of parameters, got 'sgd'; write optimizer="),
    "an optimizer": ({"optimizer": torch.optim.SGD(make_net().parameters())}, "function of parameters, got a SGD"),
    "a binding by name": ({"bind": {"lr": "lr"}}, r"got 'lr'; write bind=\{'lr': optimizer\('lr'\)\}"),
    "data": ({"data": make_data()}, r"data to be a function.*got a Data; write data=make_data"),
    "a loader": ({"data": loader()}, "data to be a function.*got a DataLoader"),
    "a tuple of data": ({"data": pair}, r"data\(\) to return Data\(train=.*got a tuple"),
    "a loader of data": ({"data": loader}, r"data\(\) to return Data.*got a DataLoader; return Data\(train="),
    "nothing held out": ({"data": nothing_held_out}, "validation split is empty, and 3 members cannot be compared"),
    "lists": ({"data": lists}, "a Split to be a tensor or a numpy array, got a list; use torch.as_tensor"),
    "lengths": ({"data": unequal}, f"as many inputs as targets.*got {EXAMPLES} inputs, {EXAMPLES - 1} targets"),
    "a last batch": ({"data": partial(split_of, 49)}, "49 training examples in batches of 16 end with a batch of one"),
    "batches of one": ({"batch_size": 1}, "56 training.* batches of 1 end with a batch of one.*size of at least 2"),
    "whole batches of one": ({"batch_size": 1, "drop_last": True}, "in batches of 1 end with .*choose a batch_size of"),
    "no whole step": ({"batch_size": 57, "drop_last": True}, "57, got 56: with drop_last=True an epoch has no steps"),
    "no whole accumulated step": ({"batch_size": 20, "accumulate": 3, "drop_last": True}, "step takes, 60, got 56"),
    "a loss by name": ({"loss": "cross_entropy"}, r"loss to be a function .*got 'cross_entropy'"),
    "a class of losses": ({"loss": nn.CrossEntropyLoss}, r"got the class CrossEntropyLoss; write CrossEntropyLoss\(\)"),
    "a metric by name": ({"metrics": {"f1": "f1"}}, r"the metric 'f1' to be a function .*got 'f1'"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes(what, tmp_path) -> None:
    """Each is a TaskError of one line, before there is a run directory."""
    changes, message = MISTAKES[what]
    with pytest.raises(TaskError, match=message) as caught:
        pbt.run(replace(PLAIN, **changes), SPACE, population=3, run_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


BOUND = replace(PLAIN, data=partial(split_of, 49), bind={"lr": optimizer("lr"), "size": batch_size()})
SIZES = {
    "range": (pbt.Int(4, 40), {}, "'size': 49 training examples in batches of 4, 6, 8, 12, 16 and 1 more end with"),
    "options": (pbt.Choice((10, 12, 20)), {}, r"batches of 12 end with .*set drop_last=True, or choose other values"),
    "ones": (pbt.Int(1, 3), {"drop_last": True}, "in batches of 1 end with .*; choose values of at least 2"),
    "both": (pbt.Choice((1, 16)), {}, "in batches of 1, 16 end with .*drop_last=True, and choose values of at least 2"),
    "one example": (pbt.Int(3, 9), {"data": partial(split_of, 1)}, "1 training examples in batches of 3, 9 end with"),
    "too large": (pbt.Int(16, 50), {"drop_last": True}, "step takes, 50, got 49: with drop_last=True"),
    "too many": (pbt.Int(16, 24), {"drop_last": True, "accumulate": 3}, "step takes, 72, got 49: with drop_last=True"),
}


@pytest.mark.parametrize("what", SIZES)
def test_bound_batch_sizes(what, tmp_path) -> None:
    """Every size that the space allows is checked before the start."""
    domain, changes, message = SIZES[what]
    with pytest.raises(TaskError, match=message) as caught:
        pbt.run(replace(BOUND, **changes), SPACE | {"size": domain}, population=3, run_dir=tmp_path / "r")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists()


def test_bound_batch_sizes_that_fit() -> None:
    """Sizes that leave no single example, or whose rest is dropped, or that no batch normalization sees, are fine."""
    for domain, changes in (
        (pbt.Choice((10, 20, 30)), {}),
        (pbt.Int(2, 49), {"drop_last": True}),
        (pbt.Int(1, 49), {"model": partial(nn.Linear, 6, 3)}),
    ):
        replace(BOUND, **changes).check_data(3, {"size": domain})


@pytest.mark.parametrize("executor", ["inline", "vectorized"])
def test_a_last_batch_of_one_is_dropped(executor) -> None:
    """With drop_last a network with batch normalization trains through the end of an epoch, on every executor."""
    task = replace(PLAIN, data=partial(split_of, 49), drop_last=True)
    placement = pbt.Placement(executor=executor, workers=1)
    run = pbt.run(task, SPACE, population=2, rounds=2, plan=pbt.Plan(interval=4), placement=placement)
    assert {member.status for member in run.view.population} == {"live"}


@pytest.mark.parametrize(
    "changes",
    [
        {"data": partial(split_of, 49), "model": partial(nn.Linear, 6, 3)},
        {"data": partial(split_of, 49), "model": two_dimensional},
        {"data": partial(split_of, 50)},
    ],
)
def test_a_last_batch_of_one(changes) -> None:
    """It is refused for batch normalization without places to average over, and for nothing else."""
    replace(PLAIN, **changes).check_data(3)


def test_one_member_needs_no_validation() -> None:
    """One member is compared with nobody."""
    replace(PLAIN, data=nothing_held_out).check_data(1)
