"""Small populations, built from a list of scores."""

import pytest

from pbt.core.population import Member, StateRef, View
from pbt.domains import Float
from pbt.space import Space

SPACE = Space({"lr": Float(1e-4, 1.0, "log"), "decay": Float(0.0, 1.0)})
STEPS = 10


def _member_of(id_, score, **fields):
    """A member at the end of its first round; a score of None means that it failed."""
    outcome = {"status": "failed"} if score is None else {"scores": (score,), "state": StateRef(id_, 1)}
    hparams = {"lr": 0.01 * (id_ + 1), "decay": 0.5}
    return Member(**({"id": id_, "hparams": hparams, "step": STEPS, "round": 1, **outcome} | fields))


def _view_of(scores, **fields):
    """A view of members 0, 1, 2 ... with these scores, or of these members."""
    members = tuple(score if isinstance(score, Member) else _member_of(i, score) for i, score in enumerate(scores))
    return View(**({"seed": 0, "space": SPACE, "round": 1, "members": members} | fields))


@pytest.fixture(scope="session")
def member_of():
    return _member_of


@pytest.fixture(scope="session")
def view_of():
    return _view_of
