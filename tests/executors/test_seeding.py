"""Thread counts and generators around a round."""

import random

import numpy as np
import torch

import pbt
from pbt.executors.seeding import preserved, seeded, use_threads


def how_many(hparams, state, steps, ctx):
    return {}, {"score": float(torch.get_num_threads()), "wanted": ctx.threads}


def test_a_plain_function_has_the_threads_it_was_promised() -> None:
    """A function that uses torch trains on `threads` CPU threads, and the caller has its own number afterwards."""
    before = torch.get_num_threads()
    for wanted in (1, 2, 3):
        run = pbt.run(
            how_many, {"lr": pbt.Float(0.0, 1.0)}, population=2, rounds=1, placement=pbt.Placement(threads=wanted)
        )
        assert run.history()["score"] == [wanted, wanted]
        assert run.history()["wanted"] == [wanted, wanted]
        assert torch.get_num_threads() == before


def test_what_is_preserved() -> None:
    """Global generators and torch's thread count are afterwards what they were before, whatever was done inside."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 (the global generator is what this is about)
    torch.manual_seed(1)
    before = torch.get_num_threads()
    with preserved():
        expected = random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002
        use_threads(before + 1)
        assert torch.get_num_threads() == before + 1
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected  # noqa: NPY002
    assert torch.get_num_threads() == before


def test_the_same_seed_the_same_draws() -> None:
    """Inside, all three generators depend on the seed alone."""
    drawn = []
    for seed in (5, 5, 6):
        with seeded(seed):
            drawn.append((random.random(), np.random.random(), torch.rand(1).item()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))
