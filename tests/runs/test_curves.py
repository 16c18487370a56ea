"""Numbers reported during the rounds: kept once per round, the same on every executor, and seen while a round runs."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pbt
from pbt.core.events import Reported
from pbt.runs.log_entries import points_of
from pbt.runs.results import Run
from pbt.store.base import JournalEntry
from pbt.store.layout import LIVE
from pbt.store.verify import verify_run
from tests.runs import reporting


def train(task: Any, path: Path | None = None, *, workers: int = 0, rounds: int = 3, **how: Any) -> Run:
    """A run of three members; without workers inline."""
    where = pbt.Placement(executor="processes", workers=workers) if workers else pbt.Placement(executor="inline")
    plan = pbt.Plan(exploit=pbt.truncation(0.4), interval=4)
    experiment = pbt.Experiment(
        task=task,
        space={"lr": pbt.Float(0.01, 0.5)},
        plan=plan,
        population=3,
        rounds=rounds,
        seed=2,
        placement=where,
    )
    return experiment.run(path, **how)


def rows(run: Run) -> list[tuple[Any, ...]]:
    """The curves, one tuple per point, without NaN, which is unequal to itself."""
    return [tuple(str(cell) for cell in row) for row in zip(*run.curves().values(), strict=True)]


def test_every_round_has_its_points(tmp_path: Path) -> None:
    """Member, round, step, name and value, of every report, in the order of the rounds."""
    run = train(reporting.descend, tmp_path / "run")
    curves = run.curves()
    assert list(curves) == ["member", "round", "step", "name", "value"]
    points = list(zip(*curves.values(), strict=True))
    for report in (event for event in run.events if isinstance(event, Reported)):
        own = [(step, name, value) for m, r, step, name, value in points if (m, r) == (report.member, report.round)]
        assert [step for step, name, _ in own if name == "loss"] == [report.step - 3 + i for i in range(4)]
        assert [value for _, name, value in own if name == "loss"][-1] == -report.scores[0]
        assert all(math.isnan(value) for _, name, value in own if name == "even/loss")
    assert len(points) == 9 * 6
    assert len(curves.to_frame()) == len(points)
    assert verify_run(tmp_path / "run") == []


def test_nothing_reported() -> None:
    """The columns are there, and empty."""
    run = train(lambda hparams, state, steps, ctx: (state, hparams["lr"]))
    assert list(run.curves()) == ["member", "round", "step", "name", "value"]
    assert rows(run) == []
    assert {entry.kind for entry in run.journal()} == {"round", "unread"}


@pytest.mark.slow
def test_the_same_on_every_executor(tmp_path: Path) -> None:
    """Inline in memory, inline and in processes in a directory: the same points and the same log."""
    memory = train(reporting.descend)
    inline = train(reporting.descend, tmp_path / "inline")
    processes = train(reporting.descend, tmp_path / "processes", workers=2)
    assert rows(memory) == rows(inline) == rows(processes) != []
    assert memory.events == inline.events == processes.events


def test_no_decision_reads_them(tmp_path: Path) -> None:
    """The log is that of the same task without reports."""

    def silent(hparams: Any, state: Any, steps: int, ctx: pbt.Context) -> Any:
        return reporting.descend(hparams, state, steps, pbt.Context(seed=0, member=0, round=1, first_step=0))

    silenced, told = train(silent), train(reporting.descend, tmp_path / "run")
    assert silenced.events == told.events
    assert rows(silenced) == []


@pytest.mark.long
def test_of_a_killed_worker_only_the_last_attempt_counts(tmp_path: Path) -> None:
    """The round is run again; what its first attempt reported is nowhere."""
    (tmp_path / "marks").mkdir()
    run = train(reporting.Killed(str(tmp_path / "marks")), tmp_path / "run", workers=2)
    plain = train(reporting.descend)
    assert any(entry.kind == "worker lost" for entry in run.journal())
    assert rows(run) == rows(plain)
    assert run.events == plain.events


def test_a_failed_round_keeps_its_points(tmp_path: Path) -> None:
    """They show how the member diverged."""
    run = train(reporting.fail_at_times, tmp_path / "run")
    assert [(failed.member, failed.round) for failed in run.failures()] == [(1, 2)]
    assert len([row for row in rows(run) if row[:2] == ("1", "2")]) == 6


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_seen_while_the_round_runs(workers: int, tmp_path: Path) -> None:
    """A reader of the directory sees the points of this round and of no earlier one; nothing is left afterwards."""
    path = tmp_path / "run"
    run = train(reporting.Watched(str(path)), path, workers=workers)
    for report in (event for event in run.events if isinstance(event, Reported)):
        steps = [report.step - 3 + i for i in range(4)]
        assert report.reported["seen"] == {"before": [], "round": report.round, "steps": steps}
        assert (report.reported["step"], report.reported["done"]) == (report.step, 1.0)
    assert not (path / LIVE).exists()


def test_a_resumed_run_has_the_same_log(tmp_path: Path) -> None:
    """Points before and after the interruption are kept, once each."""

    class Stop(pbt.Callback):
        def on_round_end(self, end: Any) -> None:
            if end.round == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(reporting.descend, tmp_path / "run", callbacks=[Stop()])
    resumed, whole = train(reporting.descend, tmp_path / "run", resume=True), train(reporting.descend)
    assert resumed.events == whole.events
    assert sorted(rows(resumed)) == sorted(rows(whole))


def entry(details: Any) -> JournalEntry:
    return JournalEntry(id=1, kind="curve", details=details, clock=0.0)


@pytest.mark.parametrize(
    "details",
    [[], None, {}, {"member": [], "round": 1}, {"member": "0", "round": 1, "points": {}}, {"member": 0, "round": None}],
)
def test_a_strangers_journal_may_hold_anything(details: Any) -> None:
    """What is no note of this kind is ignored."""
    assert points_of([entry(details)]) == {}
    assert points_of([entry({"member": 0, "round": 1, "points": 5})]) == {(0, 1): {}}


def test_a_long_round_has_a_bounded_curve(tmp_path: Path) -> None:
    """However often a task reports, the journal of a round stays small, and the first and last point are in it."""

    def chatty(hparams: Any, state: Any, steps: int, ctx: pbt.Context) -> Any:
        for i in range(20_000):
            ctx.report(i, loss=1 / (i + 1))
        return 1, 1.0

    curves: Callable[[], Any] = train(chatty, tmp_path / "run", rounds=1).curves
    first = [step for member, step in zip(curves()["member"], curves()["step"], strict=True) if member == 0]
    assert (first[0], first[-1]) == (0, 19_999)
    assert 30 < len(first) <= 100
