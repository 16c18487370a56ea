"""Hyperparameters take effect where the table says, and it is noticed if they do not."""

import math

import pytest
import torch
from torch import nn

from pbt.errors import TaskError
from pbt.pytorch import (
    Live,
    Noise,
    accumulate,
    argument,
    attribute,
    batch_size,
    clip_norm,
    dropout,
    ema,
    key_dropout,
    loss,
    optimizer,
)
from pbt.pytorch.bind import bind_all, check_bound, check_disjoint


def make_live(make=torch.optim.Adam, **settings):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 2), nn.Dropout(0.25))
    model.temperature = 1.0
    key_dropout(model, Noise())
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.5}]
    return Live(parts={"model": model, "optimizer": make(groups, **{"lr": 0.1, **settings})})


def groups(live, name="optimizer"):
    return live.parts[name].param_groups


def test_optimizer_setting() -> None:
    """A value is the optimizer's base value: every parameter group keeps its ratio to it."""
    live = make_live()
    bind_all(live, {"lr": 0.03, "decay": 0.2}, {"lr": optimizer("lr"), "decay": optimizer("weight_decay")})
    assert [(group["lr"], group["weight_decay"]) for group in groups(live)] == [(0.03, 0.2), (0.15, 0.2)]


def test_one_of_several_values() -> None:
    """With an index one of the betas is set, the other stays."""
    live = make_live(betas=(0.9, 0.999))
    bind_all(live, {"beta": 0.5}, {"beta": optimizer("betas", index=0)})
    assert [group["betas"] for group in groups(live)] == [(0.5, 0.999)] * 2
    bind_all(live, {"a": 0.6, "b": 0.7}, {"a": optimizer("betas", index=0), "b": optimizer("betas", index=1)})
    assert [group["betas"] for group in groups(live)] == [(0.6, 0.7)] * 2


def test_several_values_at_once() -> None:
    """Without an index a tuple sets all betas; another hyperparameter cannot set one of them as well."""
    live = make_live(betas=(0.9, 0.999))
    bind = {"betas": optimizer("betas"), "beta": optimizer("betas", index=1)}
    bind_all(live, {"betas": (0.5, 0.6)}, bind)
    assert [group["betas"] for group in groups(live)] == [(0.5, 0.6)] * 2
    groups(live)[1]["betas"] = (0.5, 0.7)
    assert bind["betas"].read(live) == [(0.5, 0.6), (0.5, 0.7)]
    with pytest.raises(TaskError, match="'betas' and 'beta' are both bound to 'betas' of parameter group"):
        check_disjoint(bind, live, bind)


def test_rate_under_a_scheduler() -> None:
    """A learning rate also replaces what a scheduler remembers, so that its next step goes on from it."""
    live = make_live(torch.optim.SGD)
    scheduler = torch.optim.lr_scheduler.LambdaLR(live.parts["optimizer"], lambda step: 0.5**step)
    live.parts["scheduler"] = scheduler
    bind_all(live, {"lr": 0.8}, {"lr": optimizer("lr")})
    assert [(group["lr"], group["initial_lr"]) for group in groups(live)] == [(0.8, 0.8), (4.0, 4.0)]
    assert scheduler.base_lrs == [0.8, 4.0]
    live.parts["optimizer"].step()
    scheduler.step()
    assert [group["lr"] for group in groups(live)] == [0.4, 2.0]


def test_schedulers_inside_a_scheduler() -> None:
    """Schedulers that are chained inside another one remember the new rate as well."""
    live = make_live(torch.optim.SGD)
    rates = torch.optim.lr_scheduler
    inner = [rates.LambdaLR(live.parts["optimizer"], lambda step: 0.5**step) for _ in range(2)]
    live.parts["scheduler"] = rates.SequentialLR(live.parts["optimizer"], inner, milestones=[3])
    bind_all(live, {"lr": 0.8}, {"lr": optimizer("lr")})
    assert [scheduler.base_lrs for scheduler in inner] == [[0.8, 4.0]] * 2


def test_two_optimizers_with_schedulers() -> None:
    """A rate goes to the schedulers of its own optimizer and to no other's."""
    live = make_live(torch.optim.SGD)
    live.parts["other"] = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.7)
    for name in ("optimizer", "other"):
        live.parts[f"{name} schedule"] = torch.optim.lr_scheduler.StepLR(live.parts[name], 2)
    table = {"a": optimizer("lr", part="optimizer"), "b": optimizer("lr", part="other")}
    bind_all(live, {"a": 0.3, "b": 0.4}, table)
    assert live.parts["optimizer schedule"].base_lrs == pytest.approx([0.3, 1.5])
    assert live.parts["other schedule"].base_lrs == [0.4]


def test_one_of_two_optimizers() -> None:
    """With `part` only that optimizer is set."""
    live = make_live()
    live.parts["other"] = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.7)
    bind_all(live, {"lr": 0.02}, {"lr": optimizer("lr", part="other")})
    assert groups(live, "other")[0]["lr"] == 0.02
    assert groups(live)[0]["lr"] == 0.1
    bind_all(live, {"lr": 0.03}, {"lr": optimizer("lr")})
    assert groups(live, "other")[0]["lr"] == groups(live)[0]["lr"] == 0.03


@pytest.mark.parametrize(("keep", "expected"), [(False, 0.2), (True, 0.8)])
def test_dropout(keep, expected) -> None:
    """Every dropout layer gets the probability, of dropping or of keeping."""
    live = make_live()
    bind_all(live, {"p": 0.2}, {"p": dropout(keep=keep)})
    assert [live.parts["model"][i].p for i in (1, 3)] == pytest.approx([expected] * 2)


def test_loss_attribute_argument() -> None:
    """A loss keyword, an attribute by its path, and what the task reads itself."""
    live = make_live()
    table = {"smoothing": loss("label_smoothing"), "t": attribute("model.temperature"), "mine": argument()}
    bind_all(live, {"smoothing": 0.1, "t": 3.0, "mine": "x"}, table)
    assert live.loss == {"label_smoothing": 0.1}
    assert live.parts["model"].temperature == 3.0


def test_deep_attribute() -> None:
    """A path goes through modules of modules."""
    live = make_live()
    bind_all(live, {"p": 0.125}, {"p": attribute("model.1.p")})
    assert live.parts["model"][1].p == 0.125


@pytest.mark.parametrize(
    ("binding", "value", "message"),
    [
        (optimizer("learning_rate"), 0.1, "no such optimizer setting"),
        (optimizer("momentom"), 0.1, "no such optimizer setting"),
        (optimizer("weight_decy"), 0.1, "did you mean 'weight_decay'"),
        (optimizer("lr", part="optimiser"), 0.1, "did you mean 'optimizer'"),
        (optimizer("lr", part="model"), 0.1, "no such optimizer"),
        (optimizer("betas", index=2), 0.1, "index 2 is out of range"),
        (dropout(), 1.5, "expected a probability"),
        (dropout(), "high", "expected a probability"),
        (attribute("model.heat"), 1.0, "no such attribute"),
        (attribute("network.temperature"), 1.0, "no such attribute"),
        (attribute("model.nowhere.temperature"), 1.0, "no such attribute"),
        (attribute("temperature"), 1.0, "no such attribute"),
    ],
)
def test_nothing_to_act_on(binding, value, message) -> None:
    """A value that has nothing to act on is refused, with what is there."""
    with pytest.raises(TaskError, match=message):
        bind_all(make_live(), {"x": value}, {"x": binding})


def test_no_dropout_layer() -> None:
    """A dropout hyperparameter for a network without dropout is refused."""
    model = nn.Linear(2, 2)
    live = Live(parts={"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)})
    with pytest.raises(TaskError, match="no dropout layer"):
        bind_all(live, {"p": 0.1}, {"p": dropout()})


def test_read_back() -> None:
    """Two names bound to one place cannot both be in effect: the difference is an error."""
    with pytest.raises(TaskError, match=r"'a' should be 0\.1 after it was set, but is 0\.2"):
        bind_all(make_live(), {"a": 0.1, "b": 0.2}, {"a": optimizer("lr"), "b": optimizer("lr")})


class Stubborn(nn.Module):
    """A module that does not take what it is given."""

    @property
    def heat(self):
        return 1.0

    @heat.setter
    def heat(self, value):
        pass


def test_a_place_that_does_not_take_it() -> None:
    """A place that silently keeps its own value is found when it is read back."""
    with pytest.raises(TaskError, match=r"'heat' should be 2\.0 after it was set, but is 1\.0"):
        bind_all(Live(parts={"model": Stubborn()}), {"heat": 2.0}, {"heat": attribute("model.heat")})


def test_unbound() -> None:
    """A hyperparameter without a binding would have no effect: refused, with the nearest name."""
    check_bound(["lr"], {"lr": optimizer("lr"), "more": argument()})
    with pytest.raises(TaskError, match=r"'lrr' has no effect: it is not bound; did you mean 'lr'"):
        check_bound(["lrr"], {"lr": optimizer("lr")})


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0])
def test_dropout_at_its_bounds(keep, value) -> None:
    """0 and 1 are probabilities, whole numbers as well."""
    live = make_live()
    bind_all(live, {"p": value}, {"p": dropout(keep=keep)})
    assert live.parts["model"][1].p == (1 - value if keep else value)


@pytest.mark.parametrize("value", [math.nextafter(0, -1), math.nextafter(1, 2), math.nan])
def test_dropout_beyond_its_bounds(value) -> None:
    """The numbers next to 0 and 1 are no probabilities."""
    with pytest.raises(TaskError, match="expected a probability"):
        bind_all(make_live(), {"p": value}, {"p": dropout()})


@pytest.mark.parametrize(
    ("binding", "value"),
    [(clip_norm(), 1e-300), (batch_size(), 1), (accumulate(), 1), (ema(), 0), (ema(), math.nextafter(1, 0))],
)
def test_settings_at_their_bounds(binding, value) -> None:
    """The smallest and the largest value of a setting takes effect."""
    live = make_live()
    bind_all(live, {"x": value}, {"x": binding})
    assert live.settings[binding.name] == value


@pytest.mark.parametrize(
    ("binding", "value"),
    [
        (clip_norm(), 0),
        (clip_norm(), math.nan),
        (clip_norm(), "1"),
        (batch_size(), 0),
        (batch_size(), 1.5),
        (batch_size(), True),
        (accumulate(), 0),
        (accumulate(), 2.0),
        (ema(), 1),
        (ema(), math.nextafter(0, -1)),
    ],
)
def test_settings_beyond_their_bounds(binding, value) -> None:
    """Values that a setting cannot have are refused, with what it can be."""
    with pytest.raises(TaskError, match=rf"{binding.name}\(\): expected .* got"):
        bind_all(make_live(), {"x": value}, {"x": binding})
