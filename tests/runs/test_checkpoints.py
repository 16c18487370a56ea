"""Checkpoints of a run: where they are written, and that a reader or a resume from one sees what the log says."""

import json
import shutil
import sqlite3
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbt import Float, Plan, Run, perturb, truncation
from pbt.cli.app import main
from pbt.core.fold import empty_view, fold
from pbt.errors import RunError
from pbt.runs import folding
from pbt.runs.catalog import list_runs
from pbt.runs.engine import Observer
from pbt.runs.experiment import Experiment
from pbt.store.reader import RunReader
from pbt.store.sqlite import RunStore
from pbt.store.verify import verify_run
from pbt.terminal.plain import as_json

ROWS = "SELECT id, round, member, kind, data FROM events ORDER BY id"


def walk(hparams, state, steps, ctx):
    """A random walk; one member fails in its second round."""
    if (ctx.member, ctx.round) == (1, 2):
        raise ValueError("no luck")
    value = (0.0 if state is None else state["x"]) + steps * hparams["rate"]
    return {"x": value}, {"score": value, "test_accuracy": value / 100}


def experiment(**fields):
    values = {"population": 6, "rounds": 5, "seed": 3, "plan": Plan(exploit=truncation(0.3), explore=perturb((0.5, 2)))}
    return Experiment(task=walk, space={"rate": Float(0.1, 10.0, "log")}, **(values | fields))


def rows(path):
    connection = sqlite3.connect(path / "run.db")
    found = connection.execute(ROWS).fetchall()
    connection.close()
    return found


def rounds_of(path):
    """The log without its ids and ends: an extended run had ended before."""
    return [row[1:] for row in rows(path) if row[3] != "ended"]


def without_checkpoint(path, to):
    """A copy of a run, without its checkpoint."""
    shutil.copytree(path, to)
    with sqlite3.connect(to / "run.db") as connection:
        connection.execute("DELETE FROM checkpoints")
        connection.execute("DELETE FROM seals WHERE what = 'checkpoint'")
    connection.close()
    return to


class Stop(Observer):
    """Ends the run after a round, as a kill would."""

    def __init__(self, after):
        self.after = after

    def on_commit(self, engine, events):
        if engine.view.round == self.after:
            raise RunError("stopped")


def check_same(path, other):
    """Everything that is read of a run is the same from its checkpoint and from the beginning of its log."""
    run, whole = Run.open(path), Run.open(other)
    tree = whole.tree
    assert run.view == whole.view == fold(whole.events, empty_view(whole.meta))
    assert run.best == whole.best
    assert run.failures() == whole.failures()
    assert [(failed.member, failed.round) for failed in run.failures()] == list(tree.failures)
    assert run.best.reported == tree.states[run.best.state].reported
    assert run.best_schedule == tree.schedule(run.best.state)
    for member in run.view.members:
        newest = tree.newest[member.id]
        assert run.lineage(member.id) == whole.lineage(member.id) == tree.ancestry(newest.state)
        assert run.schedule(member.id) == tree.schedule(newest.state)
        assert run.standings.openings[member.id] == tree.opening(member.id, member.opened)
        if member.state is not None:
            assert run.standings.founder(member.id, member.state) == tree.founder(member.state)
    plain, expected = as_json(run, "finished"), as_json(whole, "finished")
    assert {**plain, "run": ""} == {**expected, "run": ""}
    assert "events" not in run.__dict__
    assert run.history()["score"] == whole.history()["score"]


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("objective", ["maximize", "minimize"])
def test_a_finished_run_is_read_from_its_checkpoint(tmp_path, mode, objective) -> None:
    """Its view, results and tables are those of the whole log, of which nothing is folded."""
    plan = Plan(exploit=truncation(0.3), mode=mode, lookback=2)
    run = experiment(plan=plan, objective=objective).run(tmp_path / "run")
    with RunReader(tmp_path / "run") as reader:
        assert reader.checkpoint().last == reader.last() == run.num_events
    check_same(tmp_path / "run", without_checkpoint(tmp_path / "run", tmp_path / "other"))
    assert verify_run(tmp_path / "run") == []


def test_status_reads_no_event_before_the_checkpoint(tmp_path, monkeypatch, capsys) -> None:
    """`status`, `ls` and `lineage MEMBER` decode no part of the log but the rounds that they show."""
    experiment().run(tmp_path / "runs" / "run")
    found = []
    for command in (["status"], ["status", "--json"], ["status", "--errors"], ["lineage"], ["schedule"], ["ls"]):
        where = tmp_path / "runs" if command == ["ls"] else tmp_path / "runs" / "run"
        member = ["2"] if command == ["lineage"] else []
        found.append((command, where, member))
        assert main([*command, str(where), *member]) == 0
    before = capsys.readouterr().out
    monkeypatch.setattr(RunReader, "rows", lambda *_: pytest.fail("the log was read"))
    monkeypatch.setattr(RunReader, "events", lambda _, after, until: [] if after == until else pytest.fail("read"))
    for command, where, member in found:
        assert main([*command, str(where), *member]) == 0
    assert capsys.readouterr().out == before


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("lookback", [0, 2])
def test_a_resume_from_a_checkpoint_takes_the_same_decisions(tmp_path, monkeypatch, mode, lookback) -> None:
    """A run that was stopped after a checkpoint, or has more rounds than before, has the log of an undisturbed one."""
    monkeypatch.setattr(folding, "FEWEST", 1)
    monkeypatch.setattr(folding, "SHARE", 1e9)
    plan = Plan(exploit=truncation(0.3), mode=mode, lookback=lookback)
    experiment(plan=plan, rounds=7).run(tmp_path / "whole")
    with pytest.raises(RunError, match="stopped"):
        experiment(plan=plan).run(tmp_path / "run", observers=[Stop(3)])
    with RunReader(tmp_path / "run") as reader:
        assert 0 < reader.checkpoint().last <= reader.last()
    other = without_checkpoint(tmp_path / "run", tmp_path / "other")
    for path in (tmp_path / "run", other):
        for rounds in (5, 7):
            experiment(plan=plan, rounds=rounds).run(path, resume=True)
            assert verify_run(path) == []
    assert rows(tmp_path / "run") == rows(other)
    if mode == "sync":  # else the log depends on the interruption
        assert rounds_of(other) == rounds_of(tmp_path / "whole")
    check_same(tmp_path / "run", other)


def test_a_resume_does_not_read_the_log_before_the_checkpoint(tmp_path, monkeypatch) -> None:
    """Only what was logged later is decoded."""
    experiment().run(tmp_path / "run")
    read = []
    events = RunStore.events
    monkeypatch.setattr(
        RunStore, "events", lambda self, after=0, until=None: read.append(after) or events(self, after, until)
    )
    experiment(rounds=6).run(tmp_path / "run", resume=True)
    with RunReader(tmp_path / "run") as reader:
        assert 0 not in read
        assert reader.checkpoint().last == reader.last()


def test_a_plan_that_looks_further_back_folds_the_log(tmp_path) -> None:
    """The checkpoint of the plan before lacks the history; the decisions are those of the log."""
    short, long = Plan(), Plan(lookback=3)
    for name in ("one", "two"):
        experiment(plan=short).run(tmp_path / name)
    without_checkpoint(tmp_path / "two", tmp_path / "other")
    for name in ("one", "other"):
        experiment(plan=long, rounds=7).run(tmp_path / name, resume=True, changed_plan=True)
    assert rows(tmp_path / "one") == rows(tmp_path / "other")
    assert verify_run(tmp_path / "one") == []


def test_a_run_is_one_moment(tmp_path) -> None:
    """What is read of it later stays what it was when it was opened, although the log has grown and been saved."""
    experiment().run(tmp_path / "run")
    before = Run.open(tmp_path / "run")
    view = Run.open(tmp_path / "run").view
    experiment(rounds=6).run(tmp_path / "run", resume=True)
    assert before.view == view
    assert max(state.round for state in before.tree.states.values()) == 5
    assert len(before.events) == before.num_events


def test_a_damaged_checkpoint_is_not_noticed_in_the_results(tmp_path) -> None:
    """Readers and resumes fold the log; `pbt verify` names the checkpoint, `--repair` drops it."""
    experiment().run(tmp_path / "run")
    other = without_checkpoint(tmp_path / "run", tmp_path / "other")
    with sqlite3.connect(tmp_path / "run" / "run.db") as connection:
        (text,) = connection.execute("SELECT data FROM checkpoints").fetchone()
        assert json.loads(text)["round"] == 5
        connection.execute("UPDATE checkpoints SET data = ?", (text.replace('"round":5', '"round":4'),))
    connection.close()
    check = Run.open(tmp_path / "run")
    assert check.view == Run.open(other).view
    assert [entry.rounds_done for entry in list_runs(tmp_path)] == [5, 5]
    assert main(["verify", str(tmp_path / "run")]) == 1
    experiment(rounds=6).run(tmp_path / "run", resume=True)
    experiment(rounds=6).run(other, resume=True)
    assert rows(tmp_path / "run") == rows(other)
    assert verify_run(tmp_path / "run") == []


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    population=st.integers(2, 5),
    rounds=st.integers(1, 4),
    seed=st.integers(0, 99),
    lookback=st.integers(0, 2),
    mode=st.sampled_from(("sync", "async")),
)
def test_random_runs_say_the_same_from_checkpoint_and_log(tmp_path_factory, population, rounds, seed, lookback, mode):
    """Whatever the run: its checkpoint says what its log says."""
    path = tmp_path_factory.mktemp("runs")
    plan = replace(Plan(exploit=truncation(0.5)), lookback=lookback, mode=mode)
    experiment(population=population, rounds=rounds, seed=seed, plan=plan).run(path / "run")
    check_same(path / "run", without_checkpoint(path / "run", path / "other"))
    assert verify_run(path / "run") == []
