"""One row for the members of a wave that continue: the same log, in fewer rows, for every reader."""

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import pbt
from pbt.core.events import Decided, Decision, Ended, Event, Reported
from pbt.core.population import StateRef
from pbt.errors import CorruptError
from pbt.runs.results import Run
from pbt.store import tables, waves
from pbt.store.repair import repair_run
from pbt.store.sqlite import RunStore
from pbt.store.waves import decision_in, numbered, reports_in, to_events, to_rows
from pbt.testing.invariants import violations
from tests.core.test_fold import decided, reported

SPACE = {"lr": pbt.Float(0.01, 1.0, "log"), "layers": pbt.Int(1, 9)}
VIEWS = ("history", "lineage", "members", "reports", "schedule")


def continued(member: int, **changed: Any) -> Decided:
    """A member that continues into round 3."""
    own = {"hparams": {"lr": 0.1 * member, "kind": "a"}, "why": f"rank {member} of 9", "hparams_from": member}
    fields = {"member": member, "round": 3, "start": StateRef(member, 2), "step": 20, "draws": {}, **own, **changed}
    return Decided(decision=Decision(**fields))


def packed(events: list[Event]) -> list[tuple[int, str]]:
    """The rows of a commit after event 100, as id and text."""
    return [(101 + row.place, row.values.data) for row in to_rows(events, pack=True)]


@pytest.fixture(autouse=True)
def small_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two members already share a row."""
    monkeypatch.setattr(waves, "FEWEST", 2)


def test_a_wave_is_one_row_and_reads_as_its_decisions() -> None:
    """In the same order and with the same ids, whatever stands between them."""
    copies = [decided(member, 3, StateRef(9, 2)) for member in (4, 7)]
    events = [reported(1, 2, 0.5), continued(3), copies[0], continued(5), continued(6), copies[1], continued(8)]
    rows = packed(events)
    assert [id_ for id_, _ in rows] == [101, 103, 106, 107]
    assert numbered(rows, 100) == list(enumerate(events, 101))
    assert to_events(rows, 104) == events[4:]
    assert [repr(event) for event in to_events(rows, 100)] == [repr(event) for event in events]
    id_, text = rows[-1]
    assert decision_in(id_, text, StateRef(6, 3)) == events[4].decision
    assert decision_in(id_, text, StateRef(4, 3)) is None
    assert decision_in(id_, text, StateRef(6, 2)) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "explore"},
        {"start": StateRef(1, 1)},
        {"start": None},
        {"donor": 2},
        {"compared": 10},
        {"scores": (1.0,)},
        {"draws": {"lr": 0.8}},
        {"hparams_from": 7},
        {"hparams": {"lr": math.nan, "kind": "a"}},
        {"hparams": {"lr": {"float": "nan"}, "kind": "a"}},
        {"hparams": {"lr": (1, 2), "kind": "a"}},
    ],
    ids=str,
)
def test_every_other_decision_has_its_own_row(changed: dict[str, Any]) -> None:
    """It says more than that the member continues, or has values that the short form does not hold."""
    events: list[Event] = [continued(1, **changed), continued(2, **changed)]
    rows = packed(events)
    assert [text.startswith('{"kind":"decided"') for _, text in rows] == [True, True]


def test_waves_of_several_steps_have_a_row_each() -> None:
    """What a row says once is the same for all of its members; a long wave has several rows."""
    events: list[Event] = [continued(i, step=20 + i % 2) for i in range(6)]
    assert len(packed(events)) == 2
    assert to_events(packed(events), 100) == events
    assert len(packed(events[:3])) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waves, "MOST", 2)
        assert len(packed(events)) == 4
        assert to_events(packed(events), 100) == events


def trained_to(member: int, **changed: Any) -> Reported:
    """A member that finished round 3."""
    state = StateRef(member, 3)
    own = {"step": 30, "scores": (0.5, member), "state": state, "digest": f"d{member}"}
    return Reported(**{"member": member, "round": 3, **own, **changed})


def test_reports_of_a_wave_are_one_row() -> None:
    """With other steps, curves, values for people and any number of scores; in the same order and with the same ids."""
    events: list[Event] = [
        trained_to(1),
        continued(3),
        trained_to(2, step=31, series=(0.25, 1.0)),
        trained_to(4, reported={"test_accuracy": 0.5, "name": "a", "none": None, "works": True}),
        continued(5),
        trained_to(6, scores=(1.5,)),
    ]
    rows = [(101 + row.place, row.values.data) for row in to_rows(events, pack=True, reports=True)]
    assert [id_ for id_, _ in rows] == [105, 106]
    assert numbered(rows, 100) == list(enumerate(events, 101))
    assert [repr(event) for event in to_events(rows, 100)] == [repr(event) for event in events]
    assert reports_in(*rows[1], [StateRef(4, 3), StateRef(5, 3), StateRef(1, 2)]) == [events[3]]
    assert [row.values.kind for row in to_rows(events, pack=True)].count("reported") == 4
    assert [row.values.kind for row in to_rows(events, pack=False, reports=True)] == ["decided", "decided", "trained"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waves, "MOST_TEXT", 10)
        assert len(to_rows(events, pack=True, reports=True)) == len(events)


@pytest.mark.parametrize(
    "changed",
    [
        {"scores": (math.nan,)},
        {"scores": [0.5]},
        {"series": (math.inf,)},
        {"state": StateRef(9, 3)},
        {"reported": {"loss": math.nan}},
        {"reported": {"float": "nan"}},
        {"reported": {"curve": [1, 2]}},
        {"reported": {7: 1}},
        {"digest": None},
    ],
    ids=str,
)
def test_every_other_report_has_its_own_row(changed: dict[str, Any]) -> None:
    """It has values that the short form does not hold."""
    rows = to_rows([trained_to(1, **changed), trained_to(2, **changed)], pack=True, reports=True)
    assert [row.values.kind for row in rows] == ["reported", "reported"]


@pytest.mark.parametrize("entries", ['[0,1,""],[0,2,""]', '[7,1,""],[0,2,""]', '[0.5,1,""],[0,2,""]'])
def test_events_that_are_missing_or_there_twice_are_named(entries: str) -> None:
    """A row whose members do not fill the places before it."""
    text = f'{{"kind":"continued","round":3,"step":1,"names":[],"events":[{entries}]}}'
    with pytest.raises(CorruptError, match="expected the events in a row"):
        to_events([(9, text)], 7)


@pytest.mark.parametrize(
    "text",
    [
        '{"kind":"continued"',
        '{"kind":"continued","round":3,"step":1,"names":["lr"],"events":[[0,1]]}',
        '{"kind":"continued","round":3,"step":1,"names":["lr"],"events":[["a",1,"",0.5]]}',
        '{"kind":"continued","round":"3","step":1,"names":[],"events":[[0,1,""]]}',
        '{"kind":"continued","round":3,"step":-1,"names":[],"events":[[0,1,""]]}',
        '{"kind":"continued","events":7}',
        '{"kind":"continued","round":3,"step":1,"names":["lr"],"events":[[0,1,"",0.5,0.5]]}',
    ],
)
def test_a_damaged_row_is_named(text: str) -> None:
    """As every other row of the log."""
    with pytest.raises(CorruptError, match="event 9: expected the decisions of a wave"):
        to_events([(9, text)])


@pytest.mark.parametrize(
    "text",
    [
        '{"kind":"trained"',
        '{"kind":"trained","round":3,"events":[[0,1,30,"d"]]}',
        '{"kind":"trained","round":3,"events":[[0,1,30,"d",null,null]]}',
        '{"kind":"trained","round":3,"events":[[0,1,30,"d",7,null,0.5]]}',
        '{"kind":"trained","round":3,"events":[[0,1,30,"d",null,7,0.5]]}',
        '{"kind":"trained","round":3,"events":[[0,1,30,5,null,null,0.5]]}',
        '{"kind":"trained","round":"3","events":[[0,1,30,"d",null,null,0.5]]}',
        '{"kind":"trained","events":7}',
    ],
)
def test_a_damaged_row_of_reports_is_named(text: str) -> None:
    """As that of decisions."""
    with pytest.raises(CorruptError, match="event 9: expected the reports of a wave"):
        to_events([(9, text)])


def climb(hparams: Any, state: Any, steps: int, ctx: pbt.Context) -> Any:
    """Goes up with the learning rate."""
    place = 0.0 if state is None else state["place"]
    if ctx.member == 3 and ctx.round == 2:
        raise RuntimeError("member 3 fails once")
    metrics = {"score": place + float(hparams["lr"]), "test_accuracy": place}
    return {"place": metrics["score"]}, metrics


def trained(path: Path, *, rounds: int = 4) -> Run:
    """A run of 8 members, some of which copy."""
    plan = pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.8, 1.25)))
    return pbt.run(climb, SPACE, plan=plan, population=8, rounds=rounds, seed=3, run_dir=path, resume=path.exists())


def asked(path: Path, query: str) -> list[Any]:
    """The rows of an SQL query."""
    connection = sqlite3.connect(path / "run.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_all_readers_see_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with rows for waves and one without: equal events, results, ancestries and SQL views; both are intact."""
    one = trained(tmp_path / "one")
    monkeypatch.setattr(waves, "FEWEST", 1000)
    two = trained(tmp_path / "two")
    for kind, rows in {"continued": 3, "trained": 4}.items():
        count = f"SELECT count(*) FROM events WHERE kind = '{kind}'"
        assert (asked(tmp_path / "one", count), asked(tmp_path / "two", count)) == ([(rows,)], [(0,)])
    assert one.events == two.events
    assert len(one.events) == one.num_events == two.num_events
    for view in VIEWS:
        query = f"SELECT * FROM {view}"
        assert asked(tmp_path / "one", query) == asked(tmp_path / "two", query) != []
    for path in (tmp_path / "one", tmp_path / "two"):
        again = Run.open(path)
        assert repr([again.lineage(member) for member in range(8)]) == repr([two.lineage(m) for m in range(8)])
        assert again.best == two.best
        assert again.best.reported["test_accuracy"] >= 0
        states = [member.state for member in again.view.members if member.state is not None]
        assert again.reports(states) == {
            event.state: event for event in two.events if isinstance(event, Reported) and event.state in states
        }
        assert violations(path) == []
        with RunStore.open(path) as store:
            assert store.verify() == []


@pytest.mark.parametrize(("version", "kinds"), [(1, set()), (2, {"continued"})])
def test_a_run_of_an_earlier_version_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, kinds: set[str]
) -> None:
    """Its SQL views do not know the others; it is resumed and read all the same."""
    monkeypatch.setattr(tables, "USER_VERSION", version)
    trained(tmp_path / "old", rounds=1)
    monkeypatch.undo()
    monkeypatch.setattr(waves, "FEWEST", 2)
    one, two = trained(tmp_path / "old"), trained(tmp_path / "new")
    assert [event for event in one.events if not isinstance(event, Ended)] == two.events[:-1]
    (found,) = asked(tmp_path / "old", "SELECT group_concat(DISTINCT kind) FROM events")[0]
    assert set(found.split(",")) - {"born", "reported", "failed", "decided", "ended"} == kinds
    for view in set(VIEWS) - {"reports"}:  # which has the ids of events
        assert asked(tmp_path / "old", f"SELECT * FROM {view}") == asked(tmp_path / "new", f"SELECT * FROM {view}")
    assert violations(tmp_path / "old") == []


def test_a_damaged_run_is_repaired_to_its_newest_intact_round(tmp_path: Path) -> None:
    """The rows of a wave before the damage are kept: only the damaged round is trained again, to the same log."""
    run = trained(tmp_path / "run")
    connection = sqlite3.connect(tmp_path / "run" / "run.db")
    with connection:
        connection.execute("UPDATE events SET data = data || ' ' WHERE round = 4 AND kind = 'trained'")
    connection.close()
    repaired = repair_run(tmp_path / "run")
    assert repaired is not None
    assert repaired.round == 3
    assert trained(tmp_path / "run").events == run.events
