"""The settings that a SupervisedTask takes beside network and optimizer, on the inline and the vectorized executor."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR

from pbt.errors import TaskError
from pbt.executors.inline import InlineExecutor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import Split, accumulate, attribute, augment, batch_size, ema, optimizer
from pbt.pytorch.vectorized import VectorizedExecutor
from pbt.store.files import StateFiles
from pbt.testing.states import state_of
from tests.helpers.tasks import PLAIN
from tests.helpers.trajectories import Trajectory, check_same_course


def shifted(inputs, generator, strength=0.0):
    return inputs + strength * torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype)


def train(executor, task, run):
    with executor(WorkerSpec(task=task, states=StateFiles(None))) as made:
        return run(Trajectory(made))


def both(task, run):
    """The course of the inline executor, which the vectorized one agrees with."""
    inline = train(InlineExecutor, task, run)
    check_same_course(train(VectorizedExecutor, task, run), inline)
    return inline


BASE = replace(PLAIN, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9), bind={"lr": optimizer("lr")})
SCHEDULERS = [
    partial(StepLR, step_size=4, gamma=0.5),
    partial(ExponentialLR, gamma=0.9),
    partial(CosineAnnealingLR, T_max=20, eta_min=0.01),
    partial(OneCycleLR, max_lr=0.1, total_steps=40),
    partial(ReduceLROnPlateau, patience=0, factor=0.5, threshold=10.0),
]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda made: made.func.__name__)
@pytest.mark.parametrize("make", [partial(torch.optim.SGD, lr=0.1, momentum=0.9), partial(torch.optim.NAdam, lr=0.1)])
def test_a_scheduler_keeps_its_phase(scheduler, make):
    """Rates go on over rounds and copies from the phase that was reached, scaled where the value changed."""
    task = replace(BASE, optimizer=make, scheduler=scheduler)
    first = {m: {"lr": rate} for m, rate in enumerate((0.1, 0.05, 0.2))}
    found = both(task, lambda c: c.train(5, first).train(6, {**first, 1: {"lr": 0.4}}, {1: 0, 2: 2}).train(3, first))
    rates = {m: state_of(found.stored[m])["optimizer"]["param_groups"][0]["lr"] for m in first}
    assert rates[1] == pytest.approx(rates[0] / 2)
    assert rates[2] == pytest.approx(rates[0] * 2)
    if scheduler.func is StepLR:
        assert rates[0] == pytest.approx(0.1 * 0.5 ** (14 // 4))


def test_a_rate_that_is_a_tensor_follows_the_scheduler():
    """A scheduler fills such a rate in place; every member's optimizer has it from the next step on."""
    make = partial(torch.optim.SGD, lr=torch.tensor(0.1, dtype=torch.float64))
    task = replace(BASE, optimizer=make, scheduler=partial(ExponentialLR, gamma=0.5))
    values = {m: {"lr": rate} for m, rate in enumerate((0.1, 0.4))}
    found = both(task, lambda c: c.train(3, values).train(2, values, {0: 1}))
    rate = state_of(found.stored[1])["optimizer"]["param_groups"][0]["lr"]
    assert float(rate) == pytest.approx(0.4 * 0.5**5)


def test_a_setting_of_the_scheduler():
    """A setting of the scheduler is bound as its attribute, and wins over the one in the state."""
    task = replace(BASE, scheduler=partial(ExponentialLR, gamma=0.9), bind={"gamma": attribute("scheduler.gamma")})
    found = both(
        task, lambda c: c.train(2, {0: {"gamma": 0.5}, 1: {"gamma": 0.8}}).train(1, {0: {"gamma": 0.1}}, {0: 1})
    )
    assert state_of(found.stored[0])["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.1 * 0.8**2 * 0.1)


def test_averaged_weights():
    """The average follows the weights by the decay of its member, is part of the state, and is what is evaluated."""
    task = replace(BASE, ema=0.9, bind={"lr": optimizer("lr"), "decay": ema()}, score="loss")
    values = {0: {"lr": 0.1, "decay": 0.5}, 1: {"lr": 0.1, "decay": 0.9}}
    found = both(task, lambda c: c.train(6, values).train(5, values, {0: 1, 1: 1}))
    plain = train(InlineExecutor, replace(task, ema=None, bind=BASE.bind), lambda c: c.train(6, {0: {"lr": 0.1}}))
    first = train(InlineExecutor, task, lambda c: c.train(6, values))
    assert first.reports[0].scores != plain.reports[0].scores
    state = state_of(found.stored[0])
    assert set(state["ema"]) == set(state["model"])
    assert not torch.equal(state["ema"]["0.weight"], state["model"]["0.weight"])


def test_the_average_of_a_decay_of_zero_is_the_network():
    """A decay of 0 averages nothing: the scores are those of the weights."""
    task = replace(BASE, ema=0.0, score="loss")
    values = {0: {"lr": 0.1}}
    plain = train(InlineExecutor, replace(BASE, score="loss"), lambda c: c.train(6, values))
    assert both(task, lambda c: c.train(6, values)).reports[0].scores == pytest.approx(plain.reports[0].scores)


def test_accumulated_gradients_are_those_of_one_batch():
    """Three batches of 4 have the gradient of one of 12, also in the short last step of an epoch."""
    values = {0: {"lr": 0.1}, 1: {"lr": 0.02}}
    small = both(replace(BASE, batch_size=4, accumulate=3), lambda c: c.train(7, values).train(4, values, {1: 0}))
    whole = both(replace(BASE, batch_size=12), lambda c: c.train(7, values).train(4, values, {1: 0}))
    check_same_course(small, whole)


def test_bound_sizes_of_batches():
    """Members of different batch sizes and accumulations each train as if alone; a copy goes on with its own size."""
    bind = {"lr": optimizer("lr"), "size": batch_size(), "times": accumulate()}
    values = {m: {"lr": 0.1, "size": size, "times": times} for m, (size, times) in enumerate([(4, 1), (8, 2), (4, 1)])}
    found = both(replace(BASE, bind=bind), lambda c: c.train(5, values).train(3, values, {0: 1}))
    same = train(
        InlineExecutor, replace(BASE, batch_size=4), lambda c: c.train(5, {2: {"lr": 0.1}}).train(3, {2: {"lr": 0.1}})
    )
    assert found.digests[2] == same.digests[2]


def first_36():
    """Of the 40 examples, those that fill batches of 12, 18, 9 and 4."""
    data = PLAIN.data()
    return replace(data, train=Split(*(x[:36] for x in (data.train.inputs, data.train.targets))))


def test_drop_last():
    """An epoch of 40 examples in batches of 12 has three steps: those of the 36 examples that fill them."""
    values = {0: {"lr": 0.1}, 1: {"lr": 0.02}}
    stored = replace(BASE, order="stored", batch_size=12)
    dropped = both(replace(stored, drop_last=True), lambda c: c.train(7, values).train(4, values, {1: 0}))
    cut = both(replace(stored, data=first_36), lambda c: c.train(7, values).train(4, values, {1: 0}))
    assert dropped.digests == cut.digests
    assert both(stored, lambda c: c.train(7, values).train(4, values, {1: 0})).digests != dropped.digests


def test_drop_last_leaves_whole_batches_of_every_order():
    """In each epoch of a shared order the last examples of that epoch's own order are left out."""
    task = replace(BASE, batch_size=12, drop_last=True)
    batches, whole = task.batches(task.data(), "cpu"), replace(task, drop_last=False).batches(task.data(), "cpu")
    assert (batches.per_epoch(), whole.per_epoch()) == (3, 4)
    for epoch in range(2):
        for place in range(3):
            (x,), y = batches.at(3 * epoch + place, 5, 0, 0)
            (same,), _ = whole.at(4 * epoch + place, 5, 0, 0)
            assert len(y) == 12
            assert torch.equal(x, same)


def test_drop_last_drops_what_does_not_fill_a_step():
    """With accumulation a step is `accumulate` batches, and what does not fill one is left out."""
    values = {0: {"lr": 0.1}, 1: {"lr": 0.02}}
    task = replace(BASE, order="stored", batch_size=6, accumulate=3)
    dropped = both(replace(task, drop_last=True), lambda c: c.train(5, values).train(2, values))
    assert dropped.digests == both(replace(task, data=first_36), lambda c: c.train(5, values).train(2, values)).digests


def test_drop_last_with_bound_sizes():
    """Each member's own size says which examples its epochs leave out."""
    bind = {"lr": optimizer("lr"), "size": batch_size()}
    values = {m: {"lr": 0.1, "size": size} for m, size in enumerate((12, 18, 9))}
    task = replace(BASE, order="stored", bind=bind)
    found = both(replace(task, drop_last=True), lambda c: c.train(5, values).train(4, values))
    assert found.digests == both(replace(task, data=first_36), lambda c: c.train(5, values).train(4, values)).digests


def test_the_strength_of_the_augmentation():
    """Each member's strength is passed to its augmentation; at 0 it is training without one."""
    task = replace(BASE, augment=shifted, bind={"lr": optimizer("lr"), "strength": augment("strength")})
    values = {0: {"lr": 0.1, "strength": 0.0}, 1: {"lr": 0.1, "strength": 0.5}}
    found = both(task, lambda c: c.train(5, values))
    plain = train(InlineExecutor, BASE, lambda c: c.train(5, {0: {"lr": 0.1}}))
    assert found.digests[0] == plain.digests[0]
    without = train(InlineExecutor, task, lambda c: c.train(5, {1: values[1] | {"strength": 0.0}}))
    assert found.digests[1] != without.digests[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bind": {"x": ema()}}, "'x' has no effect: ema"),
        ({"bind": {"x": augment("strength")}}, "'x' has no effect: augment"),
        ({"bind": {"x": batch_size()}}, r"batch_size\(\): expected a whole number of at least 1, got 0.5"),
        ({"bind": {"x": accumulate()}}, r"accumulate\(\): expected a whole number"),
        (
            {"bind": {"x": optimizer("lr"), "y": optimizer("lr", group=0)}},
            "'x' and 'y' are both bound to 'lr' of",
        ),
        ({"bind": {"x": optimizer("lr", group=1)}}, r"expected a parameter group.*group=1; it has groups 0 .. 0"),
    ],
)
def test_a_value_without_effect_is_refused(changes, message):
    """A value that nothing uses, that a setting cannot have, or that another value sets too, is found by the check."""
    with pytest.raises(TaskError, match=message):
        replace(BASE, **changes).check(dict.fromkeys(changes["bind"], 0.5))


@pytest.mark.parametrize(("field", "value"), [("ema", 1.0), ("ema", -0.1), ("accumulate", 0), ("batch_size", 0)])
def test_settings_outside_their_range(field, value):
    """A decay of 1, no batches to accumulate and empty batches are refused when the task is made."""
    with pytest.raises(TaskError, match=r"ema|accumulate|batch sizes"):
        replace(BASE, **{field: value})
