"""How two training curves compare."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pbt.strategies.curves import best_difference, chance, overlap, points_needed, sign_test

CURVES = st.lists(st.integers(-5, 5).map(float), max_size=12)


@pytest.mark.parametrize(
    ("wins", "points", "expected"),
    [(6, 6, 0.015625), (7, 7, 0.0078125), (8, 8, 0.00390625), (9, 10, 0.0107422)],
)
def test_sign_test_constants(wins, points, expected):
    """The constants of the one-sided sign test."""
    assert sign_test(wins, points) == pytest.approx(expected, abs=1e-7)


@given(points=st.integers(0, 60), wins=st.integers(0, 60))
def test_sign_test_is_a_binomial_tail(points, wins):
    """P(X >= wins) as scipy has it, also where more are won than there are."""
    assert sign_test(wins, points) == pytest.approx(stats.binom.sf(wins - 1, points, 0.5), abs=1e-12)


@pytest.mark.parametrize(("p", "points"), [(0.01, 7), (0.05, 5), (0.5, 2), (0.9, 1)])
def test_points_needed(p, points):
    """Seven points are the fewest that can be surer than 0.01; as sure is not surer."""
    assert points_needed(p) == points


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4], [3, 4, 5], ([3, 4], [3, 4])),
        ([3, 4, 5], [1, 2, 3, 4], ([3, 4], [3, 4])),
        ([1, 2, 3], [1, 5], ([1, 2], [1, 5])),
        ([1, 4, 2, 9], [3, 3, 3], ([4, 2, 9], [3, 3, 3])),
        ([1, 2], [3, 4], None),
        ([], [3, 4], None),
        ([3, 4], [], None),
    ],
)
def test_overlap(one, other, expected):
    """The lower curve is wound forward to where it reaches the other's first value, then both are cut to one length."""
    assert overlap(one, other) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4], [3, 4, 5], 0.0),
        ([1, 3, 6], [2, 3, 4, 5], 3.0),
        ([2, 3, 4, 5], [1, 3, 6], -3.0),
        ([1, 2], [3, 4], 0.0),
        ([], [3], 0.0),
        # It starts above the other, which never gets there, but falls below it later.
        ([5, 1], [2, 3], 0.0),
        # All above, by 2 to 5. Let down by 2 + 0.3 i, it starts at 3 - 0.3 i, and the other is wound forward to there:
        # the largest difference is at i = 7, where 0.9, 4.9, 8.9 meets 1, 2, 3.
        ([5, 9, 13, 17], [0, 1, 2, 3], 5.9),
        # The same, both rising alike: however far it is let down, it is no better.
        ([5, 6, 7, 8], [0, 1, 2, 3], 0.0),
        # Above a flat curve there is one way to be let down, and it says nothing.
        ([5, 5], [3, 3], 0.0),
        ([5, 9], [3, 3], 0.0),
    ],
)
def test_best_difference(one, other, expected):
    """The highest points of the overlap compared; where one lies above all, the best of ten lowerings."""
    assert best_difference(one, other) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([0, 2, 4, 6], [1, 2, 3, 4], 0.125),
        ([1, 2, 3, 4], [0, 2, 4, 6], 1.0),
        ([5, 6], [1, 2], 0.0),
        ([1, 2], [5, 6], 2.0),
        # Neither all above nor all below, and no overlap: compared from their starts.
        ([5, 1], [2, 3, 4], 0.75),
        ([], [1, 2], 1.0),
    ],
)
def test_chance(one, other, expected):
    """The sign test of the overlap; 0 and 2 where one lies above all of the other, or below."""
    assert chance(one, other) == pytest.approx(expected)


@given(one=CURVES, other=CURVES)
def test_an_overlap_is_fair(one, other):
    """Windows are parts of the curves, equally long; the one that starts where its curve does is not the higher one."""
    windows = overlap(one, other)
    assert windows == (overlap(other, one) or (None, None))[::-1] if windows else overlap(other, one) is None
    if windows:
        assert len(windows[0]) == len(windows[1]) > 0
        for window, curve in zip(windows, (one, other), strict=True):
            assert any(curve[i : i + len(window)] == window for i in range(len(curve)))
        assert min(windows[0][0], windows[1][0]) == max(one[0], other[0])


@given(one=CURVES, other=CURVES, by=st.integers(-9, 9))
def test_where_zero_lies_does_not_matter(one, other, by):
    """Both curves moved by the same amount compare as before."""
    moved = [[value + by for value in curve] for curve in (one, other)]
    assert chance(*moved) == chance(one, other)
    assert best_difference(*moved) == pytest.approx(best_difference(one, other), abs=1e-9)
