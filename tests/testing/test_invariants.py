"""`pbt.testing.invariants` is silent about a whole run and speaks about every law that is broken."""

import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pbt
from pbt.core.events import Born, Decided, Ended, Event, Failed, Reported, Retired
from pbt.core.population import StateRef
from pbt.testing.invariants import log_violations, violations

POPULATION = 4


def climb(hparams: Mapping[str, Any], state: Any, steps: int, ctx: pbt.Context) -> tuple[Any, Any]:
    if (ctx.member, ctx.round) == (1, 2):
        raise ValueError("no luck")
    theta = (state or {"theta": 0.0})["theta"] + steps * hparams["lr"]
    return {"theta": theta}, theta


def experiment(**changes: Any) -> pbt.Experiment:
    space = {"lr": pbt.Float(1e-3, 1e-1, "log")}
    return pbt.Experiment(task=climb, space=space, **{"population": POPULATION, "rounds": 4, **changes})


@pytest.fixture(scope="module")
def run() -> pbt.Run:
    return experiment().run()


Change = Callable[[list[Event]], Sequence[Event]]


def first(events: Sequence[Event], kind: type[Event], number: int = 0) -> int:
    return [i for i, event in enumerate(events) if isinstance(event, kind)][number]


def exploit(events: Sequence[Event]) -> int:
    return next(i for i, e in enumerate(events) if isinstance(e, Decided) and e.decision.kind == "exploit")


def put(events: list[Event], place: int, event: Event) -> list[Event]:
    return [*events[:place], event, *events[place + 1 :]]


def decision(events: list[Event], place: int, **changes: Any) -> list[Event]:
    event = events[place]
    assert isinstance(event, Decided)
    return put(events, place, Decided(decision=event.decision._replace(**changes)))


def report(events: list[Event], **changes: Any) -> list[Event]:
    place = first(events, Reported, 5)
    return put(events, place, replace(events[place], **changes))


CHANGES: Mapping[str, tuple[Change, str]] = {
    "born twice": (lambda e: [e[0], *e], "born twice"),
    "one too many": (lambda e: [*e[:4], Born(member=9, hparams={"lr": 0.01}), *e[4:]], "4 members at a time"),
    "born with steps of no state": (lambda e: [replace(e[0], step=7), *e[1:]], "got 7"),
    "a report is missing": (lambda e: e[:4] + e[5:], "was closed"),
    "told twice": (lambda e: [*e[:5], e[4], *e[5:]], "twice"),
    "a decision is missing": (lambda e: e[: exploit(e)] + e[exploit(e) + 1 :], "without being open"),
    "decided twice": (lambda e: [*e[: exploit(e)], e[exploit(e)], *e[exploit(e) :]], "was closed"),
    "failed out of turn": (lambda e: [*e, Failed(member=0, round=9, cause="score", message="")], "without being open"),
    "a state that nobody has": (lambda e: decision(e, exploit(e), start=StateRef(3, 77)), "was not reported before"),
    "a state of the future": (lambda e: decision(e, exploit(e), start=StateRef(3, 4)), "was not reported before"),
    "other steps": (lambda e: decision(e, exploit(e), step=999), "got 999"),
    "other scores": (lambda e: decision(e, exploit(e), scores=(42.0,)), "expected scores"),
    "out of bounds": (lambda e: decision(e, exploit(e), hparams={"lr": 0.5}), "lr"),
    "a name too many": (lambda e: decision(e, exploit(e), hparams={"lr": 0.05, "x": 1}), "x"),
    "a donor that is not there": (lambda e: decision(e, exploit(e), donor=17), "member 17"),
    "nobody's copy": (lambda e: decision(e, exploit(e), donor=None), "without a donor"),
    "no score": (lambda e: report(e, scores=(math.nan,)), "scores"),
    "another's state": (lambda e: report(e, state=StateRef(0, 1)), "reported the state"),
    "no step further": (lambda e: report(e, step=0), "trained from step"),
    "after the end": (lambda e: [*e, Ended(round=4, why="again")], "had ended"),
    "retired twice": (lambda e: [*e, Retired(member=0, round=4, why="")] * 2, "retired twice"),
}


def test_a_whole_run_breaks_no_law(run: pbt.Run) -> None:
    """Nothing is said about a run with a failure, a replacement and copies; nor about one that was extended."""
    assert exploit(run.events)
    assert first(run.events, Failed)
    assert log_violations(run.events, run.space, POPULATION) == []
    for count in range(POPULATION, len(run.events)):
        assert log_violations(run.events[:count], run.space, POPULATION) == []


@pytest.mark.parametrize("name", CHANGES)
def test_a_broken_law_is_told(run: pbt.Run, name: str) -> None:
    """Each change of the log that could not have happened is found."""
    change, said = CHANGES[name]
    found = log_violations(change(list(run.events)), run.space, POPULATION)
    assert any(said in text for text in found), found


def test_an_extended_run(tmp_path: Path) -> None:
    """A run that ended and was given more rounds breaks no law either."""
    experiment(rounds=2).run(tmp_path / "run")
    experiment(rounds=3).run(tmp_path / "run", resume=True)
    assert violations(tmp_path / "run") == []


def test_without_hand_overs(tmp_path: Path) -> None:
    """Where nobody copies, a failed member retires, and the others are as many as there are."""
    experiment(plan=pbt.Plan(exploit=pbt.never(), explore=pbt.keep())).run(tmp_path / "run")
    assert violations(tmp_path / "run") == []


def test_asynchronous(tmp_path: Path) -> None:
    """The laws hold where members are decided on one by one."""
    experiment(plan=pbt.Plan(mode="async")).run(tmp_path / "run")
    assert violations(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM states", "is needed but not kept"),
        ("UPDATE states SET digest = (SELECT digest FROM states WHERE member = 3) WHERE member = 0", "content"),
        ("UPDATE states SET blob = (SELECT blob FROM states WHERE member = 3) WHERE member = 0", "content"),
    ],
)
def test_states_are_looked_at(tmp_path: Path, statement: str, said: str) -> None:
    """A state that is gone, or another than the report said, is found."""
    experiment().run(tmp_path / "run")
    connection = sqlite3.connect(tmp_path / "run" / "run.db")
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert any(said in text for text in violations(tmp_path / "run"))
