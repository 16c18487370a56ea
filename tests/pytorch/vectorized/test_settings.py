"""What each member is trained with is read off one live network and optimizer, without leaks between members."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn

from pbt.errors import TaskError
from pbt.executors.base_values import MARK
from pbt.pytorch import attribute, clip_norm, dropout, loss, optimizer
from pbt.pytorch.vectorized.settings import HParamReader
from tests.helpers.tasks import DENSE


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.other, self.last = (
            nn.Linear(6, 4),
            nn.Dropout(0.1),
            nn.Dropout(0.2),
            nn.Linear(4, 3),
        )
        self.inner = nn.Module()
        self.inner.temperature = 1.5

    def forward(self, x):
        return self.last(self.other(self.drop(self.first(x)))) / self.inner.temperature


TASK = replace(
    DENSE,
    model=Net,
    optimizer=partial(torch.optim.Adam, lr=0.25),
    bind={
        "lr": optimizer("lr"),
        "beta": optimizer("betas", index=1),
        "p": dropout(),
        "one": attribute("model.other.p"),
        "s": loss("label_smoothing"),
        "clip": clip_norm(),
        "t": attribute("model.inner.temperature"),
        "eps": attribute("optimizer.defaults"),
    },
    clip_norm=7.0,
)


def test_as_the_task_made_it() -> None:
    """Without hyperparameters everything is as the task made it."""
    found = HParamReader(TASK).settle({}, None)
    (group,) = found.groups
    assert (group["lr"], group["betas"]) == (0.25, (0.9, 0.999))
    assert "params" not in group
    assert (found.dropout, found.loss, found.task["clip_norm"], found.attributes) == ((0.1, 0.2), {}, 7.0, {})


def test_every_kind_of_binding() -> None:
    """Each value is found where its binding puts it."""
    found = HParamReader(TASK).settle({"lr": 0.5, "beta": 0.8, "p": 0.4, "s": 0.1, "clip": 2.0, "t": 3.0}, None)
    (group,) = found.groups
    assert (group["lr"], group["betas"]) == (0.5, (0.9, 0.8))
    assert found.dropout == (0.4, 0.4)
    assert found.loss == {"label_smoothing": 0.1}
    assert found.task["clip_norm"] == 2.0
    assert found.attributes == {"inner.temperature": 3.0}


def test_the_probability_of_one_layer() -> None:
    """A layer's probability that is bound as an attribute is that layer's dropout, and no attribute besides."""
    found = HParamReader(TASK).settle({"one": 0.6}, None)
    assert found.dropout == (0.1, 0.6)
    assert found.attributes == {}


def test_values_that_come_and_go() -> None:
    """A member that has not a value which another had is trained as the task made it, whatever was settled before."""
    reader = HParamReader(TASK)
    fresh = reader.settle({"lr": 0.5}, None)
    reader.settle({"lr": 0.1, "beta": 0.5, "p": 0.4, "s": 0.1, "clip": 2.0, "t": 3.0}, None)
    reader.settle({"lr": 0.2, "beta": 0.6}, None)
    assert reader.settle({"lr": 0.5}, None) == fresh
    (again,), (first,) = reader.settle({"lr": 0.5, "beta": 0.999}, None).groups, fresh.groups
    assert {**again, MARK: None} == {**first, MARK: None}


def test_what_was_decided_wins_over_what_was_restored() -> None:
    """What was never bound stays as stored; what is bound moves in proportion; what is not bound any more goes back."""
    reader = HParamReader(TASK)
    (group,) = reader.settle({"lr": 0.5, "beta": 0.8}, None).groups
    restored = [{**group, "lr": 0.05, "weight_decay": 0.3}]
    (found,) = reader.settle({"lr": 0.125}, restored).groups
    assert (found["lr"], found["betas"], found["weight_decay"]) == (0.0125, (0.9, 0.999), 0.3)
    restored[0]["weight_decay"] = 8.0
    assert found["weight_decay"] == 0.3
    (again,) = reader.settle({"lr": 0.125}, None).groups
    assert again["weight_decay"] == 0


@dataclass
class Unknown:
    def apply(self, live, value):
        return

    def read(self, live):
        return []


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        ({"x": Unknown()}, "'x' is bound by Unknown.*use the executor 'processes'"),
        ({"x": attribute("optimizer.rate")}, "only attributes of the model.*use the executor 'processes'"),
        ({"x": attribute("model.nowhere")}, "no such attribute"),
        ({"x": optimizer("momentum")}, "no such optimizer setting"),
    ],
)
def test_refused(bind, message) -> None:
    """A binding of another kind, or to something that members share, is refused with the executor that takes it."""

    def make(params):
        made = torch.optim.Adam(params)
        made.rate = 1.0
        return made

    with pytest.raises(TaskError, match=message):
        HParamReader(replace(TASK, optimizer=make, bind=bind)).settle({"x": 0.5}, None)


def test_states_that_fit() -> None:
    """A state of another network or of other parameter groups is refused; a fresh one has no groups yet."""
    reader = HParamReader(TASK)
    model = Net().state_dict()
    (places,) = reader.places
    groups = [{"params": places}]
    assert places == [0, 1, 2, 3]
    reader.check({"model": model, "optimizer": {"state": {}, "param_groups": groups}})
    reader.check({"model": model, "optimizer": {"state": {}, "param_groups": None}})
    for wrong, message in (
        (3, "expected a state of"),
        ({"model": model}, "expected a state of"),
        ({"model": {**model, "more": torch.ones(2)}}, r"'more': expected nothing, got \(2,\)"),
        ({"model": {**model, "first.bias": torch.ones(9)}}, r"'first.bias': expected \(4,\), got \(9,\)"),
        ({"model": {k: v for k, v in model.items() if k != "last.bias"}}, r"expected \(3,\), got nothing"),
        ({"optimizer": {"state": {}, "param_groups": groups * 2}}, "other parameter groups"),
        ({"optimizer": {"state": {}, "param_groups": [{"params": [0]}]}}, "other parameter groups"),
    ):
        whole = {"model": model, "optimizer": {"state": {}, "param_groups": groups}}
        state = {**whole, **wrong} if isinstance(wrong, dict) and len(wrong) + len(whole) > 2 else wrong
        state = wrong if message == "expected a state of" else state
        with pytest.raises(TaskError, match=message):
            reader.check(state)
