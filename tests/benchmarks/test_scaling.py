"""The simulation behind docs/scaling.md, where the answer is known by hand."""

import pytest

from benchmarks.scaling import ROUNDS, Case, Costs, simulate, table

FREE = Costs(answer=0.0, decide=0.0, commit=0.0, durable=0.0)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_nothing_is_lost_where_nothing_costs(mode):
    """Alike machines and a driver without costs: nobody waits."""
    found = simulate(Case(members=50, seconds=10.0, spread=0.0, mode=mode), FREE)
    assert (found.driver, round(found.waiting, 12)) == (0.0, 0.0)


def test_a_barrier_by_hand():
    """Ten members of 10 s, all done at once: the driver takes 0.1 s each, 0.05 s a decision, 0.5 s a commit."""
    costs = Costs(answer=0.04, decide=0.05, commit=0.5, durable=0.06)
    found = simulate(Case(members=10, seconds=10.0, spread=0.0, size=1.0), costs)
    assert found.driver == pytest.approx(2.0 / 12.0)
    assert found.waiting == pytest.approx(2.0 / 12.0)


def test_a_full_queue_by_hand():
    """A hundred members of 1 s, and 0.1 s of the driver for each: it is always busy, and they wait nine tenths."""
    found = simulate(
        Case(members=100, seconds=1.0, spread=0.0, mode="async"), Costs(**{**vars(FREE), "answer": 0.1}), 40
    )
    assert found.driver > 0.97
    assert found.waiting == pytest.approx(0.9, abs=0.02)


def test_stragglers_cost_a_barrier_and_not_a_queue():
    """Without costs of the driver all that is lost is waiting for the slowest."""
    sync, free = (
        simulate(Case(members=300, seconds=10.0, spread=0.5, mode=m), FREE).waiting for m in ("sync", "async")
    )
    assert sync > 0.6
    assert free == pytest.approx(0.0, abs=1e-9)


def test_lost_rounds_take_longer():
    """A worker that dies half way delays everybody at a barrier."""
    whole, lost = (simulate(Case(members=300, seconds=10.0, spread=0.0, lost=p), FREE).waiting for p in (0.0, 0.1))
    assert whole == pytest.approx(0.0, abs=1e-9)
    assert lost > 0.4


def test_the_table_has_a_row_for_each_case_and_mode():
    lines = table(Costs(answer=0.001, decide=0.0001, commit=0.01, durable=1e-9), sizes=(10, 20))
    assert len(lines) == 2 + 12
    assert all(line.count("|") == 5 for line in lines)
    assert ROUNDS > 3
