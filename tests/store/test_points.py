"""Points of a round: bounded, in order, and read from strangers' journals without surprises."""

import itertools
import math

import pytest

from pbt.store.points import HELD, KEPT, NAMES, PointBuffer, from_plain, to_plain


@pytest.mark.parametrize("count", [1, 2, KEPT, KEPT + 1, HELD, HELD + 1, 12_345])
def test_many_points_are_thinned(count: int) -> None:
    """At most KEPT of them stay, evenly spaced, the first and the last among them; few are all kept."""
    buffer = PointBuffer()
    for step in range(count):
        buffer.add(step, step / 2)
    points = buffer.points()
    assert points[0] == (0, 0.0)
    assert points[-1] == (count - 1, (count - 1) / 2)
    assert len(points) == count if count <= KEPT else KEPT // 3 < len(points) <= KEPT
    gaps = {after - before for (before, _), (after, _) in itertools.pairwise(points[:-1])}
    assert len(gaps) <= 1


def test_points_are_in_ascending_steps() -> None:
    """Points of several threads may arrive in any order; equal steps keep theirs."""
    buffer = PointBuffer()
    for step, value in [(3, 0.3), (1, 0.1), (3, 0.4), (2, 0.2)]:
        buffer.add(step, value)
    assert buffer.points() == ((1, 0.1), (2, 0.2), (3, 0.3), (3, 0.4))


def test_points_become_plain_values_and_back() -> None:
    """NaN and infinities included."""
    points = {"loss": ((1, 0.5), (2, math.inf)), "eval/acc": ((2, math.nan),)}
    plain = to_plain(points)
    assert plain["loss"] == {"step": [1, 2], "value": [0.5, math.inf]}
    back = from_plain(plain)
    assert back["loss"] == points["loss"]
    assert math.isnan(back["eval/acc"][0][1])


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        {"loss": None},
        {"loss": {"step": [1]}},
        {"loss": {"step": 1, "value": 2}},
        {"loss": {"step": [True, -1, 2**63, "1", 1.0, None], "value": [1.0] * 6}},
        {"loss": {"step": [1, 2, 3], "value": ["x", None, True]}},
        {"\x1b[31m": {"step": [1], "value": [1.0]}},
        {"a" * 65: {"step": [1], "value": [1.0]}},
    ],
)
def test_what_is_no_point_is_left_out(plain: object) -> None:
    """The journal of a stranger's run may hold anything."""
    assert from_plain(plain) == {}


def test_too_much_of_a_stranger_is_left_out() -> None:
    """Names and points beyond the bounds are dropped; a huge whole number counts as infinite."""
    plain = {f"n{i}": {"step": list(range(500)), "value": [10**400] * 500} for i in range(500)}
    found = from_plain(plain)
    assert len(found) == NAMES
    assert found["n0"] == tuple((step, math.inf) for step in range(KEPT))
