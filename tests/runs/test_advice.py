"""What is said before a run and while it trains, and that it is said when it is true and else not."""

import logging
from typing import Any

import pytest

import pbt
from pbt.runs.advice import FounderAdvice, cautions
from pbt.runs.engine import RunSpec
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


def test_founders_are_those_of_the_lineage() -> None:
    """Twelve waves, learned at once from the log."""
    run = pbt.run(**NQM | {"rounds": 12, "seed": 3})
    whole = FounderAdvice()
    whole._learn(run.events)
    last = {member.id: run.tree.founder(member.state) for member in run.view.population if member.state is not None}
    assert whole._founder == last
    assert len(set(last.values())) < 20


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
