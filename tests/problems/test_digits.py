"""The digits problem is what its definition says: splits, first weights, batches, gradient, momentum."""

import math

import numpy as np
import pytest
import torch

import pbt
from pbt.problems.digits import BATCH, DigitsMlp, descend, gradients, initial
from pbt.problems.images import images, splits


def context(**changes):
    return pbt.Context(**{"seed": 0, "member": 0, "round": 1, "first_step": 0, **changes})


def test_the_splits_are_those_of_the_definition():
    """1,000 to train on, 397 and 400 held out; disjoint, another order for each seed, pixels from 0 to 1."""
    all_x, all_y = images()
    assert all_x.shape == (1797, 64)
    assert (all_x.min(), all_x.max()) == (0.0, 1.0)
    found = splits(5, 1000)
    assert [len(y) for _, y in found] == [1000, 397, 400]
    rows = np.concatenate([np.column_stack(split) for split in found])
    assert np.array_equal(np.unique(rows, axis=0), np.unique(np.column_stack((all_x, all_y)), axis=0))
    assert not np.array_equal(splits(6, 1000).test[1], found.test[1])


def test_fewer_examples_leave_what_is_held_out():
    """With 200 examples training has the first 200 of the same order, and the rest is the same."""
    few, many = splits(5, 200), splits(5, 1000)
    assert np.array_equal(few.train[0], many.train[0][:200])
    assert np.array_equal(few.validation[0], many.validation[0])
    assert np.array_equal(few.test[0], many.test[0])


def test_first_weights_are_he_normal():
    """Standard deviations sqrt(2 / 64) and sqrt(2 / 32), over 50 members; biases and momentum zero."""
    drawn = [initial(key) for key in range(50)]
    for name, inputs in (("w0", 64), ("w1", 32)):
        values = np.concatenate([weights[name].ravel() for weights in drawn])
        # The error of a deviation over n draws is its 1 / sqrt(2 n)th part.
        assert values.std() == pytest.approx(math.sqrt(2 / inputs), rel=5 / math.sqrt(2 * values.size))
        assert values.mean() == pytest.approx(0, abs=5 * values.std() / math.sqrt(values.size))
    rest = [values for name, values in drawn[0].items() if name not in ("w0", "w1")]
    assert len(rest) == 6
    assert not any(values.any() for values in rest)


def test_momentum_is_summed_before_the_step():
    """With a slope of 1 and rate 0.1 the weight moves by 0.1, 0.19 and 0.271."""
    weights = {"w": np.zeros(1), "momentum_w": np.zeros(1)}
    places = []
    for _ in range(3):
        descend(weights, {"w": np.ones(1)}, 0.1)
        places.append(-weights["w"][0])
    assert np.diff([0, *places]) == pytest.approx([0.1, 0.19, 0.271])


def test_the_gradient_and_the_steps_are_those_of_torch():
    """Thirty steps of the same batches under torch's autograd and SGD give the same weights."""
    x, y = splits(1, 1000).train
    weights = initial(3)
    names = ("w0", "b0", "w1", "b1")
    twin = {name: torch.tensor(weights[name], requires_grad=True) for name in names}
    sgd = torch.optim.SGD(twin.values(), lr=0.05, momentum=0.9)
    for start in range(0, 900, 30):
        batch = slice(start, start + 30)
        descend(weights, gradients(weights, x[batch], y[batch]), 0.05)
        hidden = torch.relu(torch.from_numpy(x[batch]) @ twin["w0"] + twin["b0"])
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(hidden @ twin["w1"] + twin["b1"], torch.from_numpy(y[batch])).backward()
        sgd.step()
    for name in names:
        assert np.allclose(weights[name], twin[name].detach().numpy(), rtol=0, atol=1e-12)


def test_batches_are_drawn_with_replacement_for_each_member():
    """Fifty images a step; an epoch of 1,000 draws leaves out about a share of 1 / e; members draw differently."""
    task = DigitsMlp()
    first = [task._batch(step, context()) for step in range(20)]
    assert {len(batch) for batch in first} == {BATCH}
    assert 550 < len(set(np.concatenate(first).tolist())) < 710
    assert not np.array_equal(first[0], task._batch(0, context(member=1)))
    assert not np.array_equal(first[0], task._batch(20, context()))


def test_a_member_that_diverged_has_no_score():
    """Weights that are no numbers give NaN, which ranks last, and no lucky accuracy; and no warning."""
    state = initial(0)
    state["w0"][0, 0] = np.inf
    _, metrics = DigitsMlp()({"lr": 0.1}, state, 1, context())
    assert math.isnan(metrics["score"])


def test_a_state_is_not_changed_in_place():
    """What a donor stands on is as it was after another member trained from it."""
    state = initial(0)
    before = {name: values.copy() for name, values in state.items()}
    DigitsMlp()({"lr": 0.1}, state, 5, context())
    assert all(np.array_equal(values, before[name]) for name, values in state.items())
