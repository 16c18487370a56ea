"""What a run can be asked when it is over, or while it runs."""

import importlib.util
import itertools
import sys
import tomllib

import numpy as np
import pytest

import pbt
from pbt import Choice, Float, Plan, Run, truncation
from pbt.core.events import Decided, Reported
from pbt.core.population import Member, StateRef
from pbt.errors import MissingExtraError, RunError, RunFormatError, UsageError
from pbt.store.memory import MemoryStore
from pbt.store.sqlite import RunStore
from tests.helpers.paths import ROOT

# "score" and "step" are columns of the history itself.
SPACE = {
    "lr": Float(0.01, 1.0, "log"),
    "rule": Choice(("a", "b")),
    "extra": Float(0, 1, when=("rule", "a")),
    "step": Float(0, 1),
}


def train(hparams, state, steps, ctx):
    """Moves towards zero by lr; the best comes in the middle of the run, since every fifth step is a bad one."""
    place = np.ones(3) if state is None else state["place"]
    place = place * (1 - 0.3 * hparams["lr"])
    score = -float(place.sum()) - (ctx.round == 4)
    return {"place": place}, {
        "score": score,
        "test": 0.5 * score,
        "kind": "reported kind",
        "curve": [1, 2],
        **({"rare": 1} if ctx.member == 0 else {}),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "run"
    plan = Plan(exploit=truncation(0.4), interval=2)
    return pbt.run(train, SPACE, plan=plan, population=5, rounds=4, seed=6, run_dir=path)


def trip(hparams, state, steps, ctx):
    """Member 1 returns no score in round 2, and member 2 raises in round 3."""
    if (ctx.member, ctx.round) == (1, 2):
        return {"place": np.ones(3)}, {"loss": 1.0}
    if (ctx.member, ctx.round) == (2, 3):
        raise ValueError("no luck")
    return train(hparams, state, steps, ctx)


@pytest.mark.parametrize("in_memory", [True, False])
def test_failures(tmp_path, in_memory) -> None:
    """A failed round is a record with member, round, cause, one line, the traceback and the line of the task."""
    plan = Plan(exploit=truncation(0.4), interval=2)
    run = pbt.run(trip, SPACE, plan=plan, population=5, rounds=4, seed=6, run_dir=None if in_memory else tmp_path / "r")
    unscored, raised = run.failures()
    first = trip.__code__.co_firstlineno
    assert (unscored.member, unscored.round, unscored.attempt, unscored.cause) == (1, 2, 1, "score")
    assert (unscored.file, unscored.line, unscored.traceback) == (__file__, first, "")
    assert "['loss']" in unscored.message
    assert (raised.member, raised.round, raised.cause) == (2, 3, "exception")
    assert raised.message == f"ValueError: no luck (test_results.py:{first + 5} in trip)"
    assert (raised.file, raised.line) == (__file__, first + 5)
    assert raised.traceback.endswith("ValueError: no luck\n")
    assert {event.round for event in reported(run) if event.member == 1} == {1, 3, 4}
    assert len(reported(run)) == 5 * 4 - 2


def test_no_failures(run) -> None:
    """A run without failed rounds has none to show."""
    assert run.failures() == []


def reported(run):
    return [event for event in run.events if isinstance(event, Reported)]


def test_best(run) -> None:
    """The best is the state with the highest validation score ever, with its own step, values and test numbers."""
    top = max(reported(run), key=lambda event: event.scores[0])
    best = run.best
    assert (best.member, best.round, best.step, best.score) == (top.member, top.round, top.step, top.scores[0])
    assert best.round < 4
    assert best.state == top.state
    assert best.reported["test"] == 0.5 * best.score
    assert best.hparams == run.tree.hparams(best.member, best.round)


def test_best_state(run) -> None:
    """The best state was kept, although later rounds were worse; each load gives a copy of its own."""
    state = run.load_state()
    assert -float(state["place"].sum()) == run.best.score
    state["place"][:] = 99
    assert -float(run.load_state()["place"].sum()) == run.best.score


def test_best_schedule_makes_the_best_state(run) -> None:
    """Training one member along the best schedule gives the best state's weights to the bit."""
    schedule = run.best_schedule
    assert schedule.segments[0].start == 0
    assert schedule.segments[-1].stop == run.best.step
    place = np.ones(3)
    for first in range(0, run.best.step, 2):
        place = place * (1 - 0.3 * schedule.at(first)["lr"])
    assert np.array_equal(place, run.load_state()["place"])


def test_lineage(run) -> None:
    """A lineage goes from a birth to the state that was asked for, each round from the state before it."""
    assert run.lineage()[-1].member == run.best.member
    for member in range(5):
        links = run.lineage(member)
        assert links[0].start is None
        assert [link.first_step for link in links] == [0, 2, 4, 6]
        assert (links[-1].member, links[-1].round) == (member, 4)
        for before, after in itertools.pairwise(links):
            assert after.start == StateRef(before.member, before.round)
    assert any(
        link.member != links[-1].member for member in range(5) for links in [run.lineage(member)] for link in links
    )


def test_lineage_of_nobody(run) -> None:
    """Asking for a member that is not there says which ones are."""
    with pytest.raises(UsageError, match=r"member 9 does not exist.*0 \.\. 4"):
        run.lineage(9)


def test_history(run) -> None:
    """One row per member and round, with everything that was trained and reported; taken names get longer titles."""
    history = run.history()
    rows = reported(run)
    assert list(history) == [
        *("member", "round", "step", "score", "kind", "donor"),
        *("lr", "rule", "extra", "hparams.step"),
        *("test", "reported.kind", "rare"),
    ]
    assert {len(column) for column in history.values()} == {len(rows)} == {20}
    decisions = {(e.decision.member, e.decision.round): e.decision for e in run.events if isinstance(e, Decided)}
    for i, event in enumerate(rows):
        decision = decisions.get((event.member, event.round))
        assert (history["member"][i], history["round"][i], history["step"][i]) == (
            event.member,
            event.round,
            event.step,
        )
        assert history["score"][i] == event.scores[0]
        assert history["kind"][i] == (decision.kind if decision else "born")
        assert history["donor"][i] == (decision.donor if decision else None)
        hparams = run.tree.hparams(event.member, event.round)
        assert history["lr"][i] == hparams["lr"]
        assert history["hparams.step"][i] == hparams["step"]
        assert history["extra"][i] == hparams.get("extra")
        assert history["test"][i] == event.reported["test"]
        assert history["rare"][i] == (1 if event.member == 0 else None)
    assert any(history["donor"])


def test_frames_take_a_history_as_it_is(run) -> None:
    """pandas and polars make a table of it, with a column each."""
    history = run.history()
    for name in ("pandas", "polars"):
        frame = pytest.importorskip(name).DataFrame(history)
        assert (list(frame.columns), len(frame)) == (list(history), 20)


def test_to_frame(run) -> None:
    """With polars or pandas a history becomes a frame with its columns and rows."""
    if not any(importlib.util.find_spec(name) for name in ("polars", "pandas")):
        pytest.skip("neither polars nor pandas is installed")
    history = run.history()
    frame = history.to_frame()
    assert list(frame.columns) == list(history)
    assert list(frame["score"]) == history["score"]


def test_to_frame_without_a_library(run, monkeypatch) -> None:
    """Without either, the error names the extra to install."""
    for name in ("polars", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"the extra 'frames'"):
        run.history().to_frame()


def test_the_extra_is_there() -> None:
    """The extra that a missing frame library is answered with can be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "frames" in project["optional-dependencies"]


def test_load_state(run) -> None:
    """The states of the last two rounds can be loaded; one that was swept is a KeyError."""
    for member in range(5):
        for round_ in (3, 4):
            assert run.load_state(StateRef(member, round_))["place"].shape == (3,)
    swept = next(ref for ref in (StateRef(m, 1) for m in range(5)) if ref != run.best.state)
    with pytest.raises(KeyError):
        run.load_state(swept)


@pytest.mark.parametrize("in_memory", [True, False])
def test_load_state_of_a_record(tmp_path, in_memory) -> None:
    """A record that names a state is loaded as that state: the best one, an item of a lineage, a member, an event."""
    path = None if in_memory else tmp_path / "run"
    run = pbt.run(train, SPACE, plan=Plan(interval=2), population=2, rounds=2, seed=6, run_dir=path)
    records = [run.best, run.lineage(1)[-1], run.view.members[0], reported(run)[-1]]
    for record in records:
        assert np.array_equal(run.load_state(record)["place"], run.load_state(record.state)["place"])
    assert len({record.state for record in records}) > 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (3, "int 3"),
        ("runs/latest", "str 'runs/latest'"),
        ((0, 4), r"tuple \(0, 4\)"),
        (Reported, "type "),
        (Member(id=1, hparams={}), "Member without a state"),
    ],
)
def test_load_state_of_something_else(run, wrong, named) -> None:
    """Anything that names no state is refused in one line that gives what is accepted and what was passed."""
    with pytest.raises(UsageError, match=rf"expected a StateRef, run\.best, .*got {named}") as refused:
        run.load_state(wrong)
    assert "\n" not in str(refused.value)


def test_opened_again(run) -> None:
    """A run that is opened from its directory says what the run said when it ended."""
    again = Run.open(str(run.path))
    assert again.events == run.events
    assert again.best == run.best
    assert again.view == run.view
    assert again.space == pbt.Space(SPACE)
    assert dict(again.history()) == dict(run.history())


def test_nothing_scored_yet(tmp_path) -> None:
    """A run that has only begun has no best member yet, and says so."""
    meta = {"seed": 1, "space": {}}
    with RunStore.create(tmp_path / "run", meta), pytest.raises(RunError, match="no member has finished a round yet"):
        Run.open(tmp_path / "run").best  # noqa: B018 (the property raises)
    assert dict(Run(MemoryStore(meta)).history())["score"] == []


def test_no_run_directory(tmp_path) -> None:
    """A directory that is no run is refused."""
    with pytest.raises(RunFormatError):
        Run.open(tmp_path)
