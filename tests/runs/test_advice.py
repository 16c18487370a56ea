"""What is said before a run and while it trains, and that it is said when it is true and else not."""

import logging
from typing import Any

import pytest

import pbt
from pbt.core.history import RunHistory
from pbt.runs.advice import cautions
from pbt.runs.engine import Engine, Observer, RunSpec
from pbt.testing.problems import NQM


def course(**changes: Any) -> RunSpec:
    plan = pbt.Plan(explore=pbt.perturb((0.8, 1.25)))
    space = pbt.Space({"lr": pbt.Float(1e-4, 1.0, "log")})
    return RunSpec(**{"space": space, "strategy": plan, "population": 20, "rounds": 50, "seed": 0} | changes)


def drifting(rounds: int) -> RunSpec:
    return course(strategy=pbt.Plan(explore=pbt.perturb((0.8, 1.2))), rounds=rounds)


def narrow(high: float, factors: tuple[float, ...]) -> RunSpec:
    space = pbt.Space({"lr": pbt.Float(1e-4, high, "log", prior=(1e-4, 1e-3))})
    return course(space=space, strategy=pbt.Plan(explore=pbt.perturb(factors)), rounds=11)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (course(), []),
        (course(population=9), ["9 members"]),
        (course(population=1), []),
        (course(population=9, strategy=pbt.Plan(exploit=pbt.never(), explore=pbt.keep())), []),
        (drifting(50), ["drift"]),
        (drifting(20), []),
        # Ten moves by 1.25 make 9.3.
        (narrow(0.1, (0.8, 1.25)), ["do not reach"]),
        (narrow(0.009, (0.8, 1.25)), []),
        (narrow(0.1, (0.5, 2.0)), []),
    ],
)
def test_before_a_run(asked: RunSpec, said: list[str]) -> None:
    """Small populations, drifting factors, and bounds out of reach."""
    found = cautions(asked)
    assert len(found) == len(said)
    assert all(word in text for word, text in zip(said, found, strict=True))


def test_the_drift_is_the_one_worked_out() -> None:
    """0.8 and 1.2 lose 0.0204 in the logarithm each time: after 50, 0.36 of the value is left."""
    (text,) = cautions(drifting(51))
    assert "0.36 times" in text


class FounderCheck(Observer):
    """Compares the engine's founders with those of the whole log, at the start and after every wave."""

    def __init__(self) -> None:
        self.left: list[int] = []

    def on_start(self, engine: Engine) -> None:
        self.on_commit(engine, ())

    def on_commit(self, engine: Engine, events: Any) -> None:
        tree = RunHistory(engine.store.events())
        expected = {m.id: m.id if m.state is None else tree.founder(m.state) for m in engine.view.population}
        assert {member.id: engine.founder(member) for member in engine.view.population} == expected
        self.left.append(len(set(expected.values())))


def test_founders_are_those_of_the_lineage(tmp_path: Any) -> None:
    """In each of twelve waves, and when the run resumes."""
    check = FounderCheck()
    pbt.run(**NQM | {"rounds": 6, "seed": 3}, run_dir=tmp_path / "run", observers=[check])
    pbt.run(**NQM | {"rounds": 12, "seed": 3}, run_dir=tmp_path / "run", resume=True, observers=[check])
    assert len(check.left) == 14
    assert check.left == sorted(check.left, reverse=True)
    assert (check.left[0], check.left[-1] < 20) == (20, True)


def test_said_once_while_it_trains(caplog: pytest.LogCaptureFixture) -> None:
    """When next to nobody's descendants are left, and not again, not even after a resume."""
    with caplog.at_level(logging.WARNING, "pbt"):
        pbt.run(**NQM | {"seed": 1})
    (said,) = [record.message for record in caplog.records if "descend from" in record.message]
    assert "initial member" in said
    assert said.startswith("round ")


def test_said_when_it_begins(caplog: pytest.LogCaptureFixture, tmp_path: Any) -> None:
    """With the first start, and not with a resume."""
    with caplog.at_level(logging.INFO, "pbt"):
        pbt.run(**NQM | {"population": 4, "rounds": 2}, run_dir=tmp_path / "run")
        pbt.run(**NQM | {"population": 4, "rounds": 3}, run_dir=tmp_path / "run", resume=True)
    assert [record.message for record in caplog.records if "note: 4 members" in record.message]
    assert sum("4 members" in record.message for record in caplog.records) == 1
