"""A bound value is the base value of a setting: what is derived from it moves along, and nothing else does."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from torch.optim.swa_utils import SWALR

from pbt.errors import TaskError
from pbt.executors.base_values import MARK, rebase
from pbt.executors.context import Context


def parameters(count):
    return [nn.Parameter(torch.ones(1)) for _ in range(count)]


def sgd(*groups, **settings):
    params = parameters(max(1, len(groups)))
    given = [{"params": [one], **group} for one, group in zip(params, groups or [{}], strict=True)]
    return torch.optim.SGD(given, **{"lr": 0.1, **settings})


def held(optimizer, setting):
    return [group[setting] for group in optimizer.param_groups]


def test_groups_keep_their_ratios():
    """One factor for all groups, the base being the optimizer's default; a group at 0 stays at 0."""
    found = sgd({}, {"lr": 0.01, "weight_decay": 0.0}, weight_decay=0.5)
    rebase(found, "lr", 0.2)
    rebase(found, "weight_decay", 0.05)
    assert held(found, "lr") == [0.2, pytest.approx(0.02)]
    assert held(found, "weight_decay") == [0.05, 0.0]


def test_the_base_where_no_group_has_the_default():
    """Where each group was given a rate of its own, the first one that is not 0 is the base."""
    found = sgd({"lr": 0.0}, {"lr": 0.5}, {"lr": 0.05}, lr=7.0)
    rebase(found, "lr", 0.2)
    assert held(found, "lr") == [0.0, 0.2, pytest.approx(0.02)]


def test_a_setting_that_is_off_everywhere_is_turned_on_everywhere():
    """A weight decay of 0 in every group is no group without decay: each gets the value."""
    found = sgd({}, {})
    rebase(found, "weight_decay", 0.3)
    assert held(found, "weight_decay") == [0.3, 0.3]


def test_through_zero_and_back():
    """A value of 0 loses neither the ratios nor which group has no decay."""
    found = sgd({}, {"weight_decay": 0.0}, {"weight_decay": 0.05}, weight_decay=0.5)
    for value in (0.1, 0.0, 0.2):
        rebase(found, "weight_decay", value)
    assert held(found, "weight_decay") == [0.2, 0.0, pytest.approx(0.02)]


def test_one_group():
    """One group may be bound alone; the others stay as they are."""
    found = sgd({}, {"lr": 0.01})
    rebase(found, "lr", 0.5, groups=[1])
    assert held(found, "lr") == [0.1, 0.5]


def test_what_did_not_change_is_not_touched():
    """The value that the numbers stand for already leaves them as training has made them, whatever that is."""
    found = sgd({}, {"lr": 0.03})
    rebase(found, "lr", 0.1)
    for group in found.param_groups:
        group["lr"] *= 0.7  # a decay by hand
    before = held(found, "lr")
    rebase(found, "lr", 0.1)
    assert held(found, "lr") == before
    rebase(found, "lr", 0.2)
    assert held(found, "lr") == pytest.approx([2 * one for one in before])


def test_a_loaded_state_says_what_its_numbers_stand_for():
    """The base value travels with the optimizer's state, into an optimizer that was built with another one."""
    donor = sgd()
    rebase(donor, "lr", 0.8)
    donor.param_groups[0]["lr"] *= 0.5
    member = sgd(lr=0.3)
    member.load_state_dict(donor.state_dict())
    rebase(member, "lr", 0.4)
    assert held(member, "lr") == [pytest.approx(0.2)]


def test_a_group_that_is_added_later():
    """A group that training adds has the rate of the optimizer as if it had been built with the value."""
    found = sgd()
    rebase(found, "lr", 0.4)
    found.add_param_group({"params": parameters(1)})
    assert held(found, "lr") == [0.4, 0.4]
    assert held(found, MARK) == [{"lr": [0.4, 1]}] * 2
    rebase(found, "lr", 0.2)
    assert held(found, "lr") == [0.2, 0.2]


def test_a_rate_that_is_a_tensor_is_filled_in_place():
    """A captured graph holds the tensor: it stays the same one."""
    found = torch.optim.Adam(parameters(1), lr=torch.tensor(0.1))
    rate = found.param_groups[0]["lr"]
    written = rebase(found, "lr", 0.2)
    assert found.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.2)
    assert [number.in_effect() for number in written] == [0.2]


def test_one_of_several_values():
    """With an index one of the betas moves; out of range is refused."""
    found = torch.optim.Adam(parameters(1), betas=(0.9, 0.99))
    rebase(found, "betas", 0.5, index=1)
    assert held(found, "betas") == [(0.9, 0.5)]
    with pytest.raises(TaskError, match="index 2 is out of range: 'betas' is"):
        rebase(found, "betas", 0.5, index=2)


def test_what_is_no_number():
    """A flag is set; a number cannot be replaced by something else."""
    found = sgd(momentum=0.9)
    rebase(found, "nesterov", value=True)
    assert held(found, "nesterov") == [True]
    with pytest.raises(TaskError, match="expected a number, got 'high'"):
        rebase(found, "lr", "high")


BOUNDS = [
    (lambda o: CosineAnnealingLR(o, 20, eta_min=0.01), lambda s: [s.eta_min, *s.base_lrs], [0.02, 0.2]),
    (lambda o: ReduceLROnPlateau(o, min_lr=0.01), lambda s: s.min_lrs, [0.02]),
    (lambda o: ExponentialLR(o, 0.5), lambda s: [*s.base_lrs, *s.get_last_lr()], [0.2, 0.2]),
    (
        lambda o: CyclicLR(o, 0.01, 0.1, cycle_momentum=False),
        lambda s: [*s.base_lrs, *s.max_lrs, s.optimizer.param_groups[0]["lr"]],
        [0.02, 0.2, 0.02],
    ),
    (
        lambda o: OneCycleLR(o, 0.1, 10, cycle_momentum=False),
        lambda s: [s.optimizer.param_groups[0][key] for key in ("initial_lr", "max_lr", "min_lr", "lr")],
        [0.008, 0.2, 8e-7, 0.008],
    ),
    (lambda o: SWALR(o, 0.05), lambda s: [s.optimizer.param_groups[0]["swa_lr"]], [0.1]),
    (
        lambda o: SequentialLR(o, [ExponentialLR(o, 0.5), CosineAnnealingLR(o, 9, eta_min=0.01)], [4]),
        lambda s: [s._schedulers[0].base_lrs[0], s._schedulers[1].eta_min],
        [0.2, 0.02],
    ),
    (lambda o: ChainedScheduler([ExponentialLR(o, 0.5)]), lambda s: s._schedulers[0].base_lrs, [0.2]),
]


@pytest.mark.parametrize(("make", "read", "expected"), BOUNDS)
def test_bounds_of_schedulers_move(make, read, expected):
    """What a scheduler keeps in the unit of the rate moves by new/old, inside of other schedulers too."""
    found = sgd()
    scheduler = make(found)
    rebase(found, "lr", 0.2, schedulers=[scheduler])
    assert read(scheduler) == pytest.approx(expected)


@pytest.mark.parametrize("make", [OneCycleLR, CyclicLR])
@pytest.mark.parametrize("adam", [False, True])
def test_a_momentum_that_is_cycled(make, adam):
    """A momentum, or first beta, that a scheduler cycles has its bounds moved; the rate stays."""
    found = torch.optim.Adam(parameters(1), lr=0.1, betas=(0.8, 0.99)) if adam else sgd(momentum=0.8)
    more = {"base_momentum": 0.4, "max_momentum": 0.6}
    scheduler = make(found, 0.1, total_steps=10, **more) if make is OneCycleLR else make(found, 0.01, 0.1, **more)
    rates = held(found, "lr")
    if adam:
        rebase(found, "betas", 0.4, index=0, schedulers=[scheduler])
    else:
        rebase(found, "momentum", 0.4, schedulers=[scheduler])
    assert held(found, "lr") == rates
    assert (held(found, "betas")[0][0] if adam else held(found, "momentum")[0]) == pytest.approx(0.3)
    found.step()
    scheduler.step()
    assert 0.2 <= (held(found, "betas")[0][0] if adam else held(found, "momentum")[0]) <= 0.3


def test_another_writer_is_noticed():
    """A number that something else wrote since is read back as the base value it stands for now."""
    found = sgd({}, {"lr": 0.01})
    written = rebase(found, "lr", 0.2)
    assert [number.in_effect() for number in written] == [0.2, 0.2]
    found.param_groups[1]["lr"] = 0.04
    assert [number.in_effect() for number in written] == [0.2, pytest.approx(0.4)]


# The function form


def context(**hparams):
    return Context(seed=0, member=0, round=1, first_step=0, hparams=hparams)


def test_apply_reads_back_what_it_sets():
    """`ctx.apply` sets after a load, by the same rules, and records the hyperparameters that are in effect."""
    ctx = context(lr=0.4, decay=0.3, other=1)
    donor = sgd()
    first = ExponentialLR(donor, 0.5)
    context(lr=0.2).apply(donor, schedulers=first, lr=0.2)
    donor.step()
    first.step()
    found = sgd()
    scheduler = ExponentialLR(found, 0.5)
    found.load_state_dict(donor.state_dict())
    scheduler.load_state_dict(first.state_dict())
    ctx.apply(found, schedulers=scheduler, lr=0.4, weight_decay=0.3)
    assert held(found, "lr") == [pytest.approx(0.2)]
    assert scheduler.base_lrs == [pytest.approx(0.4)]
    assert ctx.checked == {"lr", "decay"}


def test_apply_to_one_group():
    """A group is named by its number or its name; another is refused with what there is."""
    found = sgd({"name": "body"}, {"name": "head"})
    context(lr=0.5).apply(found, group="head", lr=0.5)
    context(lr=0.7).apply(found, group=0, lr=0.7)
    assert held(found, "lr") == [0.7, 0.5]
    with pytest.raises(TaskError, match=r"group='tail'; it has groups 0 .. 1, named body, head"):
        context(lr=0.5).apply(found, group="tail", lr=0.5)


def test_apply_several_values():
    """A setting of several values is given whole."""
    found = torch.optim.Adam(parameters(1))
    context().apply(found, betas=(0.5, 0.6))
    assert held(found, "betas") == [(0.5, 0.6)]


def test_apply_refuses_what_would_be_undone():
    """A scheduler that was left out, another value than the hyperparameter's, and an unknown setting are errors."""
    found = sgd()
    ExponentialLR(found, 0.5)
    with pytest.raises(TaskError, match="has a learning-rate scheduler, which would undo the value"):
        context(lr=0.4).apply(found, lr=0.4)
    with pytest.raises(TaskError, match=r"'lr' should be 0.4 after a hand-over, but ctx.apply sets it to 0.3"):
        context(lr=0.4).apply(sgd(), lr=0.3)
    with pytest.raises(TaskError, match="did you mean 'momentum'"):
        context().apply(sgd(), momentom=0.3)


def test_in_effect_compares():
    """A value that is stated is compared; a tensor is read; another value or name is an error."""
    ctx = context(**{"lr": 0.1, "model.act": "relu"})
    ctx.in_effect({"model.act": "relu"}, lr=torch.tensor(0.1, dtype=torch.float64))
    assert ctx.checked == {"lr", "model.act"}
    with pytest.raises(TaskError, match=r"'lr' should be 0.1 after a hand-over, but it is 0.2"):
        ctx.in_effect(lr=0.2)
    with pytest.raises(TaskError, match="expected hyperparameters, got 'rate'"):
        ctx.in_effect(rate=0.2)


def test_any_object_with_groups_and_defaults():
    """Nothing here needs torch: an optimizer is what has `param_groups` and `defaults`."""
    found = SimpleNamespace(param_groups=[{"params": [], "lr": 0.5}], defaults={"lr": 0.5})
    rebase(found, "lr", 0.25)
    assert found.param_groups[0]["lr"] == found.defaults["lr"] == 0.25
    assert found.param_groups[0][MARK] == found.defaults[MARK] == {"lr": [0.25, 1]}


def test_a_setting_at_zero_in_every_group_takes_effect() -> None:
    """Built with 0 everywhere, beside a default of another value: the bound value is set, not multiplied by 0."""
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    adamw = torch.optim.AdamW([{"params": [w], "weight_decay": 0.0} for w in weights])
    assert adamw.defaults["weight_decay"] != 0
    context(weight_decay=0.3).apply(adamw, weight_decay=0.3)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.3, 0.3]
