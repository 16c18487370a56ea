"""Conditions that stop a run before its last round, and what a stopped run becomes."""

import pytest

import pbt
from pbt.cli.app import main
from pbt.core.events import FINISHED, Ended, Reported
from pbt.errors import UsageError
from pbt.runs.catalog import opened
from pbt.runs.results import Run
from pbt.runs.stopping import seconds_of
from pbt.testing.invariants import violations

SPACE = {"lr": pbt.Float(0.1, 1.0)}
PLAN = pbt.Plan(exploit=pbt.truncation(0.4), interval=2)


def rise(hparams, state, steps, ctx):
    """Every round adds a tenth of the learning rate, up to round 5."""
    height = (state or 0.0) + (0.1 * hparams["lr"] if ctx.round <= 5 else 0.0)
    return height, height


def fall(hparams, state, steps, ctx):
    height, _ = rise(hparams, state, steps, ctx)
    return height, -height


def run(stop=None, task=rise, **fields) -> Run:
    return pbt.run(task, SPACE, plan=PLAN, **{"population": 5, "rounds": 12, "seed": 2, **fields}, stop=stop)


def reason(found: Run) -> str:
    """Why it ended; the log says it once."""
    (ended,) = (event for event in found.events if isinstance(event, Ended))
    return ended.why


@pytest.mark.parametrize(("task", "objective", "score"), [(rise, "maximize", 0.2), (fall, "minimize", -0.2)])
def test_at_a_score(task, objective, score) -> None:
    found = run(pbt.Stop(score=score), task, objective=objective)
    assert reason(found).startswith("stopped: score ")
    assert abs(found.best.score) >= 0.2
    assert 1 < found.view.round < 12
    before = [s.score for s in found.tree.states.values() if s.round < found.view.round]
    assert max(map(abs, before)) < 0.2


def test_without_improvement() -> None:
    found = run(pbt.Stop(patience=3))
    assert found.view.round == 8
    assert reason(found) == "stopped: no better score in 3 rounds"


def test_after_a_time() -> None:
    """At the first decision after it."""
    found = run(pbt.Stop(seconds=1e-9))
    assert found.view.round == 1
    assert "of training reached" in reason(found)


@pytest.mark.parametrize(("answer", "why"), [(True, "stopped: third"), ("enough", "stopped: enough")])
def test_by_a_function(answer, why) -> None:
    """Of the population so far; the reason is its text or its name. The first condition of several counts."""

    def third(view):
        return answer if view.round == 3 else ""

    found = run([pbt.Stop(score=100.0), third, lambda view: view.round == 4])
    assert (found.view.round, reason(found)) == (3, why)


def test_a_run_that_is_not_stopped() -> None:
    assert reason(run(pbt.Stop(score=100.0))) == FINISHED


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_resumed_to_the_same_end(tmp_path, mode) -> None:
    """The reports of a run that was stopped twice are those of one that was not."""
    plan = pbt.Plan(exploit=pbt.truncation(0.4), interval=2, mode=mode)
    options = {"population": 5, "rounds": 9, "seed": 2, "plan": plan}
    whole = pbt.run(rise, SPACE, **options)
    for stop in (pbt.Stop(score=0.1), pbt.Stop(score=0.2)):
        found = pbt.run(rise, SPACE, **options, run_dir=tmp_path / "run", resume=True, stop=stop)
        with opened(found.path) as (_, state):
            assert state == "stopped"
        assert violations(found.path) == []
    again = pbt.run(rise, SPACE, **options, run_dir=tmp_path / "run", resume=True, stop=pbt.Stop(score=0.2))
    assert again.num_events == found.num_events
    found = pbt.run(rise, SPACE, **options, run_dir=tmp_path / "run", resume=True)
    assert found.view.ended == FINISHED
    assert violations(found.path) == []
    if mode == "sync":  # asynchronous runs depend on the order of arrival
        reports = [[event for event in one.events if isinstance(event, Reported)] for one in (found, whole)]
        assert reports[0] == reports[1]


def test_stopped_before_the_last_round(tmp_path) -> None:
    """The one round that is left ends the run as any other: no decision follows it."""
    found = run(lambda view: view.round == 3, rounds=4, run_dir=tmp_path / "run")
    assert found.view.ended.startswith("stopped: ")
    found = run(rounds=4, run_dir=tmp_path / "run", resume=True)
    assert (found.view.round, found.view.ended) == (4, FINISHED)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pbt.Stop, "at least one of score, seconds and patience"),
        (lambda: pbt.Stop(score=float("nan")), "finite score"),
        (lambda: pbt.Stop(seconds=0), "seconds above 0"),
        (lambda: pbt.Stop(patience=0), "patience of at least 1"),
        (lambda: run(0.9), "expected pbt.Stop"),
        (lambda: run(pbt.Stop), "expected pbt.Stop"),
        (lambda: run(lambda view: 3), "expected True, False or a reason, got 3"),
        (lambda: seconds_of("--max-time", "5x"), "--max-time: expected a duration .* got '5x'"),
        (lambda: seconds_of("--max-time", "-5"), "--max-time: expected a duration"),
    ],
)
def test_refused(make, message) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_on_the_command_line(tmp_path, monkeypatch, capsys) -> None:
    """The reason is in the status, with the line that resumes; an application of its own refuses the options."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "digits", "--rounds", "4", "--max-time", "0.001", "--out", "run", "--quiet"]) == 0
    assert main(["status", "run"]) == 0
    shown = capsys.readouterr().out
    assert "run: stopped: " in shown
    assert "of training reached 1 ms, 1 of 4 rounds done" in shown
    assert "resume run digits" in shown
    assert main(["resume", "run", "digits", "--quiet"]) == 0
    assert Run.open("run").view.ended == FINISHED
    assert main(["run", "digits", "--patience", "0", "--out", "other"]) == 2
    assert "patience of at least 1" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_durations() -> None:
    assert [seconds_of("--max-time", text) for text in ("90", "90s", "1.5m", "2h", "1d")] == [90, 90, 90, 7200, 86400]
