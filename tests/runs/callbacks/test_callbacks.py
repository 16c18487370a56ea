"""Callbacks are told what happens, once, and can do a run no harm."""

import json
import logging
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import pbt
from pbt.core.events import Born, Decided, Decision, Failed, Reported, Retired
from pbt.core.fold import fold
from pbt.core.population import StateRef, View
from pbt.errors import PopulationLostError, UsageError
from pbt.runs.callbacks import (
    HOOKS,
    Callback,
    CallbackRecord,
    Callbacks,
    Copied,
    MemberFailure,
    MemberReport,
    RoundEnd,
    RunEnd,
    RunStart,
    past,
)
from pbt.runs.callbacks.records import Records
from pbt.runs.engine import Engine, Observer
from pbt.runs.results import Run
from pbt.store.reader import RunReader

SPACE = {"rate": pbt.Float(0.1, 1.0), "kind": pbt.Choice(("a", "b"))}


def climb(hparams: Any, state: Any, steps: int, ctx: Any) -> Any:
    """Climbs; member 1 falls in round 2."""
    height = (state or {"height": 0.0})["height"] + steps * hparams["rate"]
    score = math.nan if (ctx.member, ctx.round) == (1, 2) else height
    return {"height": height}, {"score": score, "height": height, "path": [ctx.round]}


def fall(hparams: Any, state: Any, steps: int, ctx: Any) -> Any:
    """Fails wherever it is in round 2."""
    if ctx.round == 2:
        raise ValueError("no ground")
    return {}, {"score": hparams["rate"]}


def experiment(**changes: Any) -> pbt.Experiment:
    plan = pbt.Plan(exploit=pbt.truncation(0.4), interval=5, mode=changes.pop("mode", "sync"))
    return pbt.Experiment(
        **{"task": climb, "space": SPACE, "plan": plan, "population": 4, "rounds": 4, "seed": 3, **changes}
    )


class Listener(Callback):
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def on_run_start(self, start: RunStart) -> None:
        self.told.append(("on_run_start", start))

    def on_member_reported(self, report: MemberReport) -> None:
        self.told.append(("on_member_reported", report))

    def on_member_failed(self, failure: MemberFailure) -> None:
        self.told.append(("on_member_failed", failure))

    def on_exploit(self, copied: Copied) -> None:
        self.told.append(("on_exploit", copied))

    def on_round_end(self, end: RoundEnd) -> None:
        self.told.append(("on_round_end", end))

    def on_run_end(self, end: RunEnd) -> None:
        self.told.append(("on_run_end", end))

    def of(self, hook: str) -> list[Any]:
        return [record for name, record in self.told if name == hook]

    @property
    def between(self) -> list[CallbackRecord]:
        return [record for name, record in self.told if name not in {"on_run_start", "on_run_end"}]


class Stop(Listener):
    """Presses Ctrl-C in a hook, the first time it is called with such a record."""

    def __init__(self, hook: str, when: Any = lambda record: True) -> None:
        super().__init__()
        self.armed = True

        def press(record: Any) -> None:
            self.told.append((hook, record))
            if self.armed and when(record):
                self.armed = False
                raise KeyboardInterrupt

        setattr(self, hook, press)


# What is told


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_all_of_the_log_is_told_once_and_in_order(mode: str) -> None:
    """Every report, failure and copy of the log has its hook called once, with what the log says."""
    listener = Listener()
    run = experiment(mode=mode).run(callbacks=[listener])
    assert listener.told[0][0] == "on_run_start"
    assert listener.told[-1][0] == "on_run_end"
    found = [record for record in listener.between if not isinstance(record, RoundEnd)]
    said = []
    for event in run.events:
        match event:
            case Reported():
                said.append((MemberReport, event.member, event.round))
            case Failed():
                said.append((MemberFailure, event.member, event.round))
            case Decided(decision=decision) if decision.donor is not None:
                said.append((Copied, decision.member, decision.round))
    assert [(type(record), record.member, record.round) for record in found] == said
    assert {kind for kind, _, _ in said} == {MemberReport, MemberFailure, Copied}
    assert list(past(run)) == listener.between


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_records_say_what_the_log_says(mode: str) -> None:
    """A report has the values and steps of its round; a failure its cause; a copy both sides."""
    listener = Listener()
    run = experiment(mode=mode).run(callbacks=[listener])
    for report in listener.of("on_member_reported"):
        event = run.tree.reports[StateRef(report.member, report.round)]
        start = run.tree.start(report.member, report.round)
        assert report.first_step == (0 if start is None else run.tree.reports[start].step)
        assert (report.step, report.scores, report.score) == (event.step, event.scores, event.scores[0])
        assert report.hparams == run.tree.hparams(report.member, report.round)
        assert report.reported == event.reported
    (failure,) = listener.of("on_member_failed")
    assert (failure.member, failure.round, failure.cause) == (1, 2, "score")
    assert failure.message == run.tree.failures[1, 2].message
    assert failure.hparams == run.tree.hparams(1, 2)
    for copied in listener.of("on_exploit"):
        decision = run.tree.decisions[copied.member, copied.round]
        assert (copied.donor, copied.hparams, copied.draws, copied.why) == (
            decision.donor,
            decision.hparams,
            decision.draws,
            decision.why,
        )
        assert copied.kind == ("replace" if (copied.member, copied.round) == (1, 3) else "exploit")
        assert copied.hparams_before == run.tree.hparams(copied.member, copied.round - 1)
        start = run.tree.reports[decision.start]
        assert (copied.first_step, copied.donor_score) == (start.step, start.scores[0])
        own = run.tree.reports.get(StateRef(copied.member, copied.round - 1))
        assert copied.score == (None if own is None else own.scores[0])
    assert {copied.kind for copied in listener.of("on_exploit")} == {"exploit", "replace"}


def test_a_copy_of_values_alone_has_no_score_of_a_state() -> None:
    """A member that keeps its state goes on from its own steps, and no copied state has a score."""
    listener = Listener()
    plan = pbt.Plan(exploit=pbt.truncation(0.4), interval=5, inherit="hparams")
    run = experiment(plan=plan, rounds=2).run(callbacks=[listener])
    copies = listener.of("on_exploit")
    assert copies
    for copied in copies:
        assert copied.donor_score is None
        assert copied.first_step == 5
        assert copied.score == run.tree.reports[StateRef(copied.member, 1)].scores[0]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_round_ends_when_everybody_is_through(mode: str) -> None:
    """Each round ends once, in order, with the results of all members and the best score until then; last of all that
    was told of it."""
    listener = Listener()
    experiment(mode=mode).run(callbacks=[listener])
    ends = listener.of("on_round_end")
    assert [end.round for end in ends] == [1, 2, 3, 4]
    for end in ends:
        assert sorted(x.member for x in (*end.reports, *end.failures)) == [0, 1, 2, 3]
        assert {x.round for x in (*end.reports, *end.failures)} == {end.round}
        assert [x.member for x in end.reports] == sorted(x.member for x in end.reports)
    assert [failure.member for failure in ends[1].failures] == [1]
    best, seen = None, []
    for record in listener.between:
        if isinstance(record, MemberReport) and (best is None or record.score > best.score):
            best = record
        if isinstance(record, RoundEnd):
            assert record.best == best
            assert all(
                record.round + 1 in {c.round for c in seen if c.member == copied.member}
                for copied in listener.of("on_exploit")
                if copied.round == record.round + 1
            )
        if isinstance(record, Copied):
            seen.append(record)


def test_retired_members_hold_no_round_up() -> None:
    """Under `never` a failed member retires, and the rounds of the others go on ending."""
    listener = Listener()
    experiment(plan=pbt.Plan(exploit=pbt.never(), interval=5)).run(callbacks=[listener])
    ends = listener.of("on_round_end")
    assert [end.round for end in ends] == [1, 2, 3, 4]
    assert [len(end.reports) for end in ends] == [4, 3, 3, 3]
    assert [len(end.failures) for end in ends] == [0, 1, 0, 0]


def reported(member: int, round_: int, score: float = 0.0) -> Reported:
    state = StateRef(member, round_)
    return Reported(member=member, round=round_, step=round_, scores=(score,), state=state, digest="")


def test_members_that_come_late_and_others_that_are_none() -> None:
    """A round waits for members that were born later, goes on when they retire, and an evaluator has no best score."""
    records = Records(1)
    births = [Born(member=0, hparams={}), Born(member=1, hparams={}, role="evaluator")]
    found = list(records.take([*births, reported(0, 1, 1.0), reported(1, 1, 9.0)]))
    assert [type(record) for record in found] == [MemberReport, MemberReport, RoundEnd]
    assert found[-1].best == found[0]
    assert records.rounds_done == 1
    late = [Born(member=2, hparams={}), *(reported(0, i, math.nan) for i in (2, 3)), reported(1, 2), reported(1, 3)]
    assert [type(record) for record in records.take(late)] == [MemberReport] * 4
    (end, *more) = [r for r in records.take([reported(2, 1), reported(2, 2, 2.0)]) if isinstance(r, RoundEnd)]
    assert (end.round, more) == (2, [])
    assert [report.member for report in end.reports] == [0, 1, 2]
    (end,) = records.take([Retired(member=2, round=2, why="")])
    assert (end.round, end.best.member, end.best.round) == (3, 2, 2)
    assert list(records.take([Retired(member=i, round=3, why="") for i in (0, 1)])) == []


@pytest.mark.parametrize(("sign", "chosen"), [(1, (1, 3.0)), (-1, (0, 1.0))])
def test_the_best_is_that_of_the_population(sign: int, chosen: tuple[int, float]) -> None:
    """The highest score, or the lowest where it is minimized; of equal ones the earlier, and only finite ones."""
    scores = [1.0, 3.0, math.inf, 3.0, math.nan, 2.0]
    events = [Born(member=i, hparams={}) for i in range(6)] + [reported(i, 1, s) for i, s in enumerate(scores)]
    *_, end = Records(sign).take(events)
    best = fold(events, View(seed=0, space=pbt.Space({}), sign=sign)).best
    assert (end.best.member, end.best.score) == (best.state.member, sign * best.score) == chosen


def test_a_copied_state_of_an_earlier_round_says_its_steps() -> None:
    """The steps of a copy are those of the state that was copied."""
    decision = Decision(member=1, round=2, start=StateRef(0, 1), step=7, hparams={"rate": 1}, donor=0, kind="exploit")
    events = [
        *(Born(member=i, hparams={"rate": 0}) for i in (0, 1)),
        Reported(member=1, round=1, step=20, scores=(0.0,), state=StateRef(1, 1), digest=""),
        Decided(decision=decision),
        Reported(member=1, round=2, step=12, scores=(0.0,), state=StateRef(1, 2), digest=""),
    ]
    first, copied, second = Records(1).take(events)
    assert (first.first_step, copied.first_step, second.first_step) == (0, 7, 7)
    assert (copied.hparams_before, second.hparams) == ({"rate": 0}, {"rate": 1})


def test_what_is_told_is_durable(tmp_path: Path) -> None:
    """At every hook a reader of the run directory finds what is told, and its state."""
    path = tmp_path / "run"

    class Look(Callback):
        looked = 0

        def on_member_reported(self, report: MemberReport) -> None:
            run = Run.open(path)
            assert run.tree.reports[StateRef(report.member, report.round)].scores == report.scores
            assert run.load_state(StateRef(report.member, report.round))["height"] == report.reported["height"]
            Look.looked += 1

    experiment().run(path, callbacks=[Look()])
    assert Look.looked == 15
    assert [note.kind for note in RunReader(path).journal() if note.kind == "callback"] == []


@pytest.mark.parametrize("kept", [True, False])
def test_start_and_end_have_the_run(tmp_path: Path, kept: bool) -> None:
    """Both give the run as it is then, on disk or in memory; the last one can be read when all is over."""
    listener = Listener()
    run = experiment().run(tmp_path / "run" if kept else None, callbacks=[listener])
    (start,), (end,) = listener.of("on_run_start"), listener.of("on_run_end")
    assert (start.run.path, end.run.path) == (run.path, run.path)
    assert (start.rounds, start.rounds_done, start.resumed) == (4, 0, False)
    assert start.run.events == [event for event in run.events if isinstance(event, Born)]
    assert end.run.events == run.events
    assert (end.outcome, end.error) == ("finished", None)
    assert end.run.load_state() == run.load_state()


def test_callbacks_of_the_experiment_and_of_the_call(tmp_path: Path) -> None:
    """Those of the experiment come first, then those of `run`; `pbt.run` takes them too."""
    order: list[int] = []

    class Numbered(Callback):
        def __init__(self, number: int) -> None:
            self.number = number

        def on_round_end(self, end: RoundEnd) -> None:
            order.append(self.number)

    experiment(rounds=2, callbacks=[Numbered(1), Numbered(2)]).run(callbacks=[Numbered(3)])
    assert order == [1, 2, 3, 1, 2, 3]
    order.clear()
    pbt.run(climb, SPACE, population=2, rounds=1, callbacks=[Numbered(7)])
    assert order == [7]


# No harm


def test_records_are_frozen() -> None:
    """No field of a record can be set."""
    listener = Listener()
    experiment().run(callbacks=[listener])
    kinds = {type(record) for _, record in listener.told}
    assert kinds == {RunStart, MemberReport, MemberFailure, Copied, RoundEnd, RunEnd}
    for _, record in listener.told:
        assert is_dataclass(record)
        with pytest.raises(FrozenInstanceError):
            setattr(record, fields(record)[0].name, 1)


def test_what_is_inside_a_record_is_the_callbacks_own(tmp_path: Path) -> None:
    """A callback that writes into the mappings it is given changes neither the run nor what the next one is told."""

    class Vandal(Callback):
        def on_member_reported(self, report: MemberReport) -> None:
            report.hparams.clear()
            report.reported["path"].append("graffiti")

        def on_exploit(self, copied: Copied) -> None:
            copied.hparams["rate"] = copied.hparams_before["rate"] = 0.1
            copied.draws.clear()

        def on_round_end(self, end: RoundEnd) -> None:
            for report in (*end.reports, end.best):
                report.hparams.clear()
                report.reported.clear()

    before, after = Listener(), Listener()
    plain = experiment().run()
    run = experiment().run(tmp_path / "run", callbacks=[before, Vandal(), after])
    assert run.events == plain.events
    assert before.between == after.between == list(past(plain))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_callbacks_do_not_change_a_run(mode: str, tmp_path: Path) -> None:
    """A run that is watched has the log of one that is not, also where all hooks raise."""

    class Broken(Callback):
        pass

    def broken(record: Any) -> None:
        raise RuntimeError("no")

    callback = Broken()
    for hook in HOOKS:
        setattr(callback, hook, broken)
    plain = experiment(mode=mode).run()
    assert experiment(mode=mode).run(tmp_path / "run", callbacks=[Listener(), callback]).events == plain.events


class Weak(Callback):
    """Raises in two of its hooks."""

    def __init__(self) -> None:
        self.called: Counter[str] = Counter()

    def on_round_end(self, end: RoundEnd) -> None:
        self.called["round"] += 1
        raise ValueError(f"round {end.round} is odd")

    def on_exploit(self, copied: Copied) -> None:
        self.called["exploit"] += 1
        raise OSError("disk of the callback is full")


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_callback_raises_is_reported_once_per_hook(
    kept: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning and one note with callback, hook and error; all hooks go on being called, those of others too."""
    notes: list[Any] = []

    class Journal(Observer):
        def on_end(self, engine: Engine) -> None:
            notes.extend(engine.store.journal())

    weak, twin, other = Weak(), Weak(), Listener()
    path = tmp_path / "run" if kept else None
    with caplog.at_level(logging.WARNING, "pbt"):
        run = experiment().run(path, callbacks=[weak, twin, other], observers=[Journal()])
    assert other.between == list(past(run))
    assert weak.called == twin.called == {"round": 4, "exploit": len(other.of("on_exploit"))}
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 4  # two of a kind, two hooks
    assert len([text for text in told if "Weak raised in on_round_end: ValueError: round 1 is odd" in text]) == 2
    assert (
        len([text for text in told if "Weak raised in on_exploit: OSError: disk of the callback is full" in text]) == 2
    )
    if kept:
        notes = RunReader(tmp_path / "run").journal()
    found = [note.details for note in notes if note.kind == "callback"]
    assert [(note["callback"], note["hook"]) for note in found] == [
        *[("Weak", "on_exploit")] * 2,
        *[("Weak", "on_round_end")] * 2,
    ]
    assert "ValueError: round 1 is odd" in found[2]["message"]
    assert "in on_round_end" in found[2]["traceback"]


def test_an_error_that_cannot_be_told() -> None:
    """An exception whose own text raises is no harm either."""

    class Rude(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    class Silent(Callback):
        def on_run_start(self, start: RunStart) -> None:
            raise Rude

    assert experiment().run(callbacks=[Silent()]).best


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_error_of_a_callback(tmp_path: Path, kind: type[BaseException]) -> None:
    """Ctrl-C and exit inside a hook end the run, and it can be resumed."""

    class Leave(Callback):
        def on_round_end(self, end: RoundEnd) -> None:
            if end.round == 2:
                raise kind

    with pytest.raises(kind):
        experiment().run(tmp_path / "run", callbacks=[Leave()])
    assert experiment().run(tmp_path / "run", resume=True).events == experiment().run().events


# How a run ends


def test_an_interrupted_run_tells_all_that_was_logged_and_then_its_end(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a hook: the rest of what was logged is still told, each once, then that it stops."""
    stop, after = Stop("on_member_reported", lambda report: report.round == 2), Listener()
    with pytest.raises(KeyboardInterrupt):
        experiment().run(tmp_path / "run", callbacks=[stop, after])
    logged = list(past(Run.open(tmp_path / "run")))
    for listener in (stop, after):
        assert Counter(map(repr, listener.between)) == Counter(map(repr, logged))
        assert listener.told[-1][0] == "on_run_end"
        (end,) = listener.of("on_run_end")
        assert end.outcome == "interrupted"
        assert isinstance(end.error, KeyboardInterrupt)


def test_another_observer_ends_the_run(tmp_path: Path) -> None:
    """What an observer raises is a failed run to callbacks; and where the engine logged something that no observer was
    told of any more, callbacks are."""

    class Interfering(Observer):
        def on_commit(self, engine: Engine, events: Any) -> None:
            raise RuntimeError("interfering")

    listener = Listener()
    with pytest.raises(RuntimeError, match="interfering"):
        experiment().run(tmp_path / "run", observers=[Interfering()], callbacks=[listener])
    assert listener.between == list(past(Run.open(tmp_path / "run")))
    assert len(listener.of("on_member_reported")) == 4
    (end,) = listener.of("on_run_end")
    assert (end.outcome, str(end.error)) == ("failed", "interfering")


def test_who_was_not_told_of_the_start_is_not_told_of_the_end() -> None:
    """Where another observer fails at the start, or Ctrl-C comes in the start of the first callback."""

    class Unable(Observer):
        def on_start(self, engine: Engine) -> None:
            raise RuntimeError("unable")

    listener = Listener()
    with pytest.raises(RuntimeError):
        experiment().run(observers=[Unable()], callbacks=[listener])
    assert listener.told == []
    stop = Stop("on_run_start")
    with pytest.raises(KeyboardInterrupt):
        experiment().run(callbacks=[stop, listener])
    assert listener.told == []
    assert [name for name, _ in stop.told] == ["on_run_start", "on_run_end"]


def test_who_was_not_told_of_the_start_is_told_nothing(tmp_path: Path) -> None:
    """Not of the decisions of an extended run either, which come after the start."""
    experiment(rounds=2).run(tmp_path / "run")
    stop, listener = Stop("on_run_start"), Listener()
    with pytest.raises(KeyboardInterrupt):
        experiment(rounds=3).run(tmp_path / "run", resume=True, callbacks=[stop, listener])
    assert listener.told == []
    assert len(stop.of("on_exploit")) > 0


def test_the_end_is_told_once() -> None:
    """Ctrl-C in the end of one callback: the others are told, and it not again."""
    stop, after = Stop("on_run_end"), Listener()
    with pytest.raises(KeyboardInterrupt):
        experiment().run(callbacks=[stop, after])
    assert len(stop.of("on_run_end")) == len(after.of("on_run_end")) == 1


def test_a_population_that_is_lost(tmp_path: Path) -> None:
    """Where every member fails, all failures and the round are told before the end, which says so."""
    listener = Listener()
    with pytest.raises(PopulationLostError):
        experiment(task=fall).run(tmp_path / "run", callbacks=[listener])
    assert [failure.member for failure in listener.of("on_member_failed")] == [0, 1, 2, 3]
    assert [len(end.failures) for end in listener.of("on_round_end")] == [0, 4]
    (end,) = listener.of("on_run_end")
    assert end.outcome == "failed"
    assert isinstance(end.error, PopulationLostError)


# Resuming


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_resumed_run_tells_only_what_is_new(mode: str, tmp_path: Path) -> None:
    """Two processes together tell what one would have, each thing once; the second says where it begins."""
    path = tmp_path / "run"
    stop = Stop("on_round_end", lambda end: end.round == 2)
    with pytest.raises(KeyboardInterrupt):
        experiment(mode=mode).run(path, callbacks=[stop])
    listener = Listener()
    run = experiment(mode=mode).run(path, resume=True, callbacks=[listener])
    assert stop.between + listener.between == list(past(run))
    (start,) = listener.of("on_run_start")
    assert (start.rounds, start.rounds_done, start.resumed) == (4, 2, True)
    assert list(past(start.run)) == stop.between


def test_a_run_that_was_interrupted_before_its_first_round_is_resumed(tmp_path: Path) -> None:
    """Resumed is true although no round is done."""
    with pytest.raises(KeyboardInterrupt):
        experiment().run(tmp_path / "run", callbacks=[Stop("on_run_start")])
    listener = Listener()
    experiment().run(tmp_path / "run", resume=True, callbacks=[listener])
    (start,) = listener.of("on_run_start")
    assert (start.rounds_done, start.resumed) == (0, True)
    assert len(listener.of("on_member_reported")) == 15


def test_a_finished_run_that_is_resumed_tells_its_start_and_its_end(tmp_path: Path) -> None:
    """Nothing is left to do, and nothing is told twice."""
    experiment().run(tmp_path / "run")
    listener = Listener()
    experiment().run(tmp_path / "run", resume=True, callbacks=[listener])
    assert [name for name, _ in listener.told] == ["on_run_start", "on_run_end"]
    assert listener.of("on_run_start")[0].rounds_done == 4


def test_an_extended_run_tells_the_decisions_that_were_withheld(tmp_path: Path) -> None:
    """The exploits between the old end and the new rounds are told, although they are made in taking the run up."""
    first, second, whole = Listener(), Listener(), Listener()
    experiment(rounds=2).run(tmp_path / "run", callbacks=[first])
    experiment(rounds=4).run(tmp_path / "run", resume=True, callbacks=[second])
    experiment(rounds=4).run(callbacks=[whole])
    assert second.of("on_run_start")[0].rounds == 4
    assert [c for c in second.between if isinstance(c, Copied) and c.round == 3]
    together = Counter(map(repr, first.between + second.between))
    assert together == Counter(map(repr, whole.between))


def test_an_observer_by_itself(tmp_path: Path) -> None:
    """`Callbacks` where no count of known events is given tells what comes after its start."""
    path = tmp_path / "run"
    listener = Listener()
    experiment(rounds=2).run(path, observers=[Callbacks([listener])])
    assert listener.of("on_run_start")[0].resumed is False
    again = Listener()
    run = experiment(rounds=3).run(path, resume=True, observers=[Callbacks([again])])
    assert again.of("on_run_start")[0].resumed is True
    assert [r.round for r in again.of("on_member_reported")] == [3] * 4
    assert len(list(past(run))) > len(again.between)


# How it is asked for


@pytest.mark.parametrize("wrong", [Listener, Observer(), print])
def test_what_is_no_callback_is_refused_before_anything_is_written(wrong: Any, tmp_path: Path) -> None:
    """A class instead of its instance, an observer, a function: the error says what was expected."""
    with pytest.raises(UsageError, match=re.escape("callbacks: expected instances of pbt.Callback subclasses")):
        experiment().run(tmp_path / "run", callbacks=[wrong])
    assert not (tmp_path / "run").exists()


def test_a_hook_of_a_wrong_name_is_refused() -> None:
    """A misspelt hook, which would never be called, is an error that names the nearest one."""
    with pytest.raises(UsageError, match=r"Wrong\.on_round_ends: .*did you mean 'on_round_end'\?"):
        type("Wrong", (Callback,), {"on_round_ends": print})
    type("Right", (Callback,), {"once": print, "on_round_end": print})


def test_the_hooks() -> None:
    """The hooks are these, each explained, and a callback without any is fine."""
    assert HOOKS == (
        "on_run_start",
        "on_member_reported",
        "on_member_failed",
        "on_exploit",
        "on_round_end",
        "on_run_end",
    )
    assert all(getattr(Callback, hook).__doc__ for hook in HOOKS)
    assert pbt.Callback is Callback
    experiment(rounds=1).run(callbacks=[Callback()])


def test_callbacks_cost_nothing_heavy() -> None:
    """Importing callbacks and all integrations loads no tracker and no torch."""
    names = ["mlflow", "tensorboardX", "torch", "wandb"]
    modules = "pbt.runs.callbacks, pbt.runs.callbacks.mlflow, pbt.runs.callbacks.tensorboard, pbt.runs.callbacks.wandb"
    code = f"import json, sys, {modules}; print(json.dumps([name for name in {names} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []
