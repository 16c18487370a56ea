"""The pole is gymnasium's, the agent is REINFORCE, and every draw has its key."""

import math

import gymnasium
import numpy as np
import pytest

import pbt
from pbt.problems.cartpole import CAP, EPISODES, KEPT, Episodes, advance, play, reinforce, slope, starts


def context(**changes):
    return pbt.Context(**{"seed": 0, "member": 0, "round": 1, "first_step": 0, **changes})


def levels(n, seed=0):
    return np.random.default_rng(seed).logistic(size=(CAP, n))


@pytest.mark.parametrize("weights", [(0, 0, 0, 0), (0, 0, 5, 1), (0.3, 1, 9, 8), (5, 0, -5, 0)])
def test_episodes_are_those_of_gymnasium(weights):
    """From the same seeds, under the same actions: the same states, and the same end after as many steps."""
    seeds = list(range(6))
    played = play(np.array(weights, float), starts(seeds), levels(6))
    env = gymnasium.make("CartPole-v1")
    for i, seed in enumerate(seeds):
        env.reset(seed=seed)
        for step in range(played.lengths[i]):
            # A step of one, and of all at once, may differ in the last bit.
            assert np.allclose(env.unwrapped.state, played.states[step, :, i], rtol=0, atol=1e-9)
            _, _, fallen, late, _ = env.step(int(played.right[step, i]))
            assert (fallen or late) == (step == played.lengths[i] - 1)
    env.close()


def test_a_good_policy_is_stopped_at_the_cap():
    """Some policy balances the pole for all of 500 steps; that is the highest return."""
    played = play(np.array([0.3, 1, 9, 8.0]), starts(range(10)), levels(10))
    assert played.lengths.max() == CAP == 500


def test_the_cart_is_pushed_with_the_probability_of_the_policy():
    """A push to the right has probability sigmoid(w . s), within five standard errors of 100,000 draws."""
    state = np.array([[0.01], [0.02], [0.03], [0.04]])
    many = np.repeat(state, 100_000, axis=1)
    weights = np.array([5.0, 5.0, 10.0, 10.0])
    expected = 1 / (1 + math.exp(-float(weights @ state[:, 0])))
    first = play(weights, many, np.random.default_rng(1).logistic(size=(1, 100_000))).right[0]
    assert first.mean() == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 100_000))


def test_the_slope_is_the_policy_gradient_step_by_step():
    """Return still to come, standardized over all steps of the iteration, times (action - p) s, in the mean."""
    weights = np.array([0.1, -0.2, 0.3, 0.4])
    played = play(weights, starts(range(5)), levels(5))
    terms, to_come = [], []
    for i, length in enumerate(played.lengths):
        for step in range(length):
            s = played.states[step, :, i]
            terms.append((played.right[step, i] - 1 / (1 + math.exp(-weights @ s))) * s)
            to_come.append(float(length - step))
    spread = math.sqrt(sum((r - np.mean(to_come)) ** 2 for r in to_come) / len(to_come))
    advantage = [(r - np.mean(to_come)) / (spread + 1e-6) for r in to_come]
    wanted = sum(a * term for a, term in zip(advantage, terms, strict=True)) / len(terms)
    assert slope(weights, played) == pytest.approx(wanted, rel=1e-9)


def test_returns_to_come_have_mean_zero_and_deviation_one():
    """With a state of one and weights of zero, the slope is half the mean of signed, standardized returns."""
    right = np.array([[True, False], [True, False], [True, False]])
    played = Episodes(states=np.ones((3, 4, 2)), right=right, lengths=np.array([3, 1]))
    # To come: 3, 2, 1 after pushes to the right, 1 after one to the left; mean 7/4, population deviation 0.829156.
    signed = (3 + 2 + 1 - 3 * 1.75) - (1 - 1.75)
    assert slope(np.zeros(4), played) == pytest.approx(np.full(4, 0.5 * signed / 0.8291572 / 4), rel=1e-5)


def test_the_score_is_the_mean_of_the_last_ten_returns():
    """They stand in the state, so that a copy inherits them; steps of the environment are counted."""
    state, metrics = reinforce({"lr": 0.1}, None, 1, context())
    assert len(metrics["series"]) == EPISODES
    assert metrics["env_steps"] == sum(metrics["series"])
    later, after = reinforce({"lr": 0.1}, state, 2, context(first_step=1))
    assert len(after["series"]) == KEPT
    assert after["score"] == pytest.approx(np.mean(after["series"]))
    assert after["env_steps"] == metrics["env_steps"] + sum(after["series"])
    assert list(later["returns"]) == after["series"]
    assert len(state["returns"]) == EPISODES


def test_a_first_step_starts_from_zero_weights():
    """With a rate of next to nothing the weights stay at zero, where both actions are equally likely."""
    state, _ = reinforce({"lr": 1e-12}, None, 1, context())
    assert np.abs(state["weights"]).max() < 1e-10


def test_the_test_is_the_same_for_everybody_and_trains_nobody():
    """Equal weights have equal tests, whoever holds them and whenever; their training episodes differ."""
    tests, trained = set(), set()
    for member, step in ((0, 0), (0, 7), (3, 0)):
        metrics = reinforce({"lr": 1e-12}, None, 1, context(member=member, first_step=step))[1]
        tests.add(metrics["test"])
        trained.add(tuple(metrics["series"]))
    assert len(tests) == 1
    assert len(trained) == 3


def test_a_push_from_rest():
    """One push to the right from rest: the cart speeds up by 0.195 to the right, the pole by 0.293 to the left."""
    states = advance(np.zeros((4, 1)), np.array([True]))[:, 0]
    assert states == pytest.approx([0, 0.195122, 0, -0.292683], abs=1e-6)
