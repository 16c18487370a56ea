"""The loop by hand: what is asked for, what is told, and what the log then says."""

import itertools
from dataclasses import dataclass, replace

import pytest

from pbt import Float, Plan, Proposal, binary_tournament, jitter, never, truncation
from pbt.core.ages import Ages
from pbt.core.events import FINISHED, LOST, Born, Decided, Ended, Failed, MemoryUpdated, Reported, Retired
from pbt.core.fold import fold
from pbt.core.population import StateRef, View
from pbt.core.rng import Rng
from pbt.errors import (
    CorruptError,
    OriginalError,
    PopulationLostError,
    RunError,
    SpaceError,
    TaskError,
    UsageError,
    WorkerError,
)
from pbt.executors.base import Failure, Incident, Report
from pbt.runs.driving import drive
from pbt.runs.engine import Engine, Observer, RunSpec
from pbt.space import Space
from pbt.store.memory import MemoryStore
from pbt.strategies.multi_objective import pareto
from pbt.testing.strategies import StrategyContract

SPACE = Space({"lr": Float(1e-4, 1.0, "log")})
EVOLVE = Plan(exploit=truncation(0.4), interval=5)


def course(strategy=EVOLVE, population=4, rounds=3, **fields):
    return RunSpec(space=SPACE, strategy=strategy, population=population, rounds=rounds, seed=2, **fields)


def new_store():
    return MemoryStore({"seed": 2, "space": SPACE.to_dict()})


def report(engine, task, score=None, size=3):
    """A task's outcome, with a state, and a score drawn for its member and round."""
    stored = engine.store.states.put(StateRef(task.member, task.round), {"of": [task.member, task.round], "x": size})
    score = Rng("score", task.member, task.round).random() if score is None else score
    return Report(member=task.member, round=task.round, attempt=task.attempt, scores=(score,), stored=stored)


def failure(task, cause="exception"):
    return Failure(member=task.member, round=task.round, attempt=1, cause=cause, message=f"{task.member} went wrong")


def finish(engine, fails=(), arrive=list):
    """Answer everything to the end; `fails`: (member, round) that fail; `arrive` orders each wave."""
    while not engine.finished:
        for task in arrive(engine.ask()):
            failed = (task.member, task.round) in fails
            engine.tell([failure(task) if failed else report(engine, task)])
    return engine.store.events()


def kept(store, events):
    """The states that the store still has."""
    found = set()
    for event in events:
        if isinstance(event, Reported):
            try:
                store.load_state(event.state)
            except KeyError:
                continue
            found.add(event.state)
    return found


def without_ends(events):
    return [event for event in events if not isinstance(event, Ended)]


# Synchronous waves


def test_a_wave_is_logged_whole() -> None:
    """Every member is asked for once; nothing is logged until the last one has answered, then all at once."""
    engine = Engine(course(), new_store())
    tasks = engine.ask()
    assert [(task.member, task.round, task.first_step, task.steps) for task in tasks] == [
        (m, 1, 0, 5) for m in range(4)
    ]
    assert engine.ask() == []
    born = engine.store.events()
    for task in tasks[1:]:
        assert engine.tell([report(engine, task)]) == []
        assert engine.ask() == []
    assert engine.store.events() == born
    events = engine.tell([report(engine, tasks[0])])
    assert [event.member for event in events if isinstance(event, Reported)] == [0, 1, 2, 3]
    assert engine.store.events() == born + events
    assert [(task.member, task.round, task.first_step) for task in engine.ask()] == [(m, 2, 5) for m in range(4)]


def test_arrival_order_changes_nothing() -> None:
    """In whatever order the outcomes of each wave arrive, one by one, the log is the same."""
    logs = [
        finish(Engine(course(), new_store()), arrive=lambda tasks, order=order: [tasks[i] for i in order])
        for order in itertools.permutations(range(4))
    ]
    assert any(isinstance(event, Decided) and event.decision.donor is not None for event in logs[0])
    assert all(log == logs[0] for log in logs)


def test_tasks_name_what_was_decided() -> None:
    """A task starts from the decision's state, with its digest, its step and its hyperparameters."""
    engine = Engine(course(), new_store())
    engine.tell([report(engine, task) for task in engine.ask()])
    decisions = {e.decision.member: e.decision for e in engine.store.events() if isinstance(e, Decided)}
    assert any(decision.donor is not None for decision in decisions.values())
    for task in engine.ask():
        decision = decisions[task.member]
        assert (task.start, task.first_step, dict(task.hparams)) == (decision.start, 5, dict(decision.hparams))
        assert task.digest == engine.store.stored(task.start).digest


def test_unawaited_outcomes_are_dropped() -> None:
    """An answer to nothing that was asked, or a second answer, changes no event; the journal keeps it."""
    expected = finish(Engine(course(), new_store()))
    engine = Engine(course(), new_store())
    while not engine.finished:
        tasks = engine.ask()
        for task in tasks:
            answer = report(engine, task)
            engine.tell([replace(answer, round=task.round + 1, scores=(99.0,)), replace(answer, member=77)])
            engine.tell([answer])
            if task is not tasks[-1]:
                engine.tell([replace(answer, scores=(99.0,)), failure(task, "refused")])
    assert engine.store.events() == expected
    dropped = [entry.details for entry in engine.store.journal() if entry.kind == "dropped"]
    assert {"member": 77, "round": 1, "attempt": 1} in dropped
    assert len(dropped) == 3 * (4 * 2 + 3 * 2)


@pytest.mark.parametrize(("cause", "error"), [("refused", TaskError), ("corrupt", CorruptError)])
def test_fatal_failures(cause, error) -> None:
    """What is no member's fault stops the run with its message; the log stays, and the run can go on later."""
    expected = finish(Engine(course(), new_store()))
    engine = Engine(course(), new_store())
    engine.tell([report(engine, task) for task in engine.ask()])
    before = engine.store.events()
    tasks = engine.ask()
    with pytest.raises(error, match="1 went wrong"):
        engine.tell([report(engine, tasks[0]), failure(tasks[1], cause)])
    assert engine.store.events() == before
    assert finish(Engine(course(), engine.store)) == expected


# Failures


def scored(engine, task, count):
    return replace(report(engine, task), scores=(0.5,) * count)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_another_number_of_scores_is_its_members_failure(mode) -> None:
    """A member that returns more or fewer scores than the run has failed; the others' round is kept."""
    plan = Plan(exploit=truncation(0.4), interval=5, mode=mode)
    engine = Engine(course(plan), new_store())
    counts = {(1, 1): 1, (2, 2): 3}
    while not engine.finished:
        engine.tell([scored(engine, task, counts.get((task.member, task.round), 2)) for task in engine.ask()])
    failed = {(e.member, e.round): e for e in engine.store.events() if isinstance(e, Failed)}
    assert {(e.cause, e.message.split(";")[0]) for e in failed.values()} == {
        ("score", "the task returned 1 score, the other reports of this run have 2"),
        ("score", "the task returned 3 scores, the other reports of this run have 2"),
    }
    assert set(failed) == set(counts)
    assert {len(e.scores) for e in engine.store.events() if isinstance(e, Reported)} == {2}
    assert engine.store.verify() == []


def test_the_first_to_report_does_not_make_the_others_fail() -> None:
    """In asynchronous mode with several objectives, the first report waits for a second one that agrees with it."""
    plan = Plan(exploit=truncation(0.4), interval=5, mode="async", rank=pareto())
    engine = Engine(course(plan), new_store())
    for task in engine.ask():
        engine.tell([scored(engine, task, 1 if task.member == 0 else 2)])
    events = engine.store.events()
    assert [e.member for e in events if isinstance(e, Failed)] == [0]
    assert [e.member for e in events if isinstance(e, Reported)] == [1, 2, 3]


def test_the_number_of_scores_is_that_of_the_log() -> None:
    """After a resume the log says how many scores there are, also where most members return another number."""
    engine = Engine(course(), new_store())
    engine.tell([scored(engine, task, 2) for task in engine.ask()])
    again = Engine(course(), engine.store)
    tasks = again.ask()
    again.tell([scored(again, task, 1 + (task.member == 0)) for task in tasks])
    failed = [e.member for e in engine.store.events() if isinstance(e, Failed)]
    assert failed == [task.member for task in tasks if task.member != 0]


def test_the_cause_of_a_lost_run_is_the_first_traceback() -> None:
    """The error that ends the run has the traceback of the first failure as its cause, again after a resume."""
    engine = Engine(course(), new_store())
    told = [replace(failure(task), traceback=f"Traceback: line {task.member}") for task in engine.ask()]
    with pytest.raises(PopulationLostError) as caught:
        engine.tell(told)
    with pytest.raises(PopulationLostError) as again:
        Engine(course(), engine.store)
    for error in (caught.value, again.value):
        assert isinstance(error.__cause__, OriginalError)
        assert "Traceback: line 0" in str(error.__cause__)
        assert "\n" not in str(error)


def test_failed_members_are_replaced() -> None:
    """A failed member is replaced at the next ready point, beyond the plan's own number, by one that is healthy."""
    engine = Engine(course(Plan(exploit=truncation(0.0)), population=5), new_store())
    events = finish(engine, fails={(1, 1), (3, 1)})
    replaced = [e.decision for e in events if isinstance(e, Decided) and e.decision.kind == "replace"]
    assert [(d.member, d.round) for d in replaced] == [(1, 2), (3, 2)]
    assert all(d.donor in (0, 2, 4) and d.start == StateRef(d.donor, 1) for d in replaced)
    assert not any(isinstance(event, Retired) for event in events)


def test_everybody_failed() -> None:
    """If all fail the run ends with an error that names the first failure, again each time it is opened."""
    engine = Engine(course(), new_store())
    tasks = engine.ask()
    with pytest.raises(PopulationLostError, match="member 0 in round 1: 0 went wrong"):
        engine.tell([failure(task) for task in tasks])
    events = engine.store.events()
    assert events[-1] == Ended(round=1, why=LOST)
    assert engine.finished
    for rounds in (3, 9):
        with pytest.raises(PopulationLostError, match="0 went wrong"):
            Engine(course(rounds=rounds), engine.store)
    assert engine.store.events() == events


def test_never_retires_who_failed() -> None:
    """Where nobody is copied a failed member leaves for good, and the others train to the end."""
    engine = Engine(course(Plan(exploit=never())), new_store())
    events = finish(engine, fails={(2, 1)})
    assert [(e.member, e.round) for e in events if isinstance(e, Retired)] == [(2, 1)]
    trained = [(e.member, e.round) for e in events if isinstance(e, Reported)]
    assert trained == [(0, 1), (1, 1), (3, 1), (0, 2), (1, 2), (3, 2), (0, 3), (1, 3), (3, 3)]
    assert events[-1] == Ended(round=3, why=FINISHED)
    assert StateRef(2, 1) not in kept(engine.store, events)


# The end, resuming and extending


def test_no_decision_at_the_end() -> None:
    """The last round is followed by no decision; opening the finished run again adds nothing."""
    store = new_store()
    events = finish(Engine(course(), store))
    assert max(event.decision.round for event in events if isinstance(event, Decided)) == 3
    assert events[-1] == Ended(round=3, why=FINISHED)
    again = Engine(course(), store)
    assert again.finished
    assert again.ask() == []
    assert store.events() == events


@pytest.mark.parametrize("fails", [(), {(0, 2), (3, 3)}])
def test_extension_is_a_longer_run(fails) -> None:
    """A run that ended, given more rounds, logs what the longer run logs, but for where it ended in between."""
    expected = finish(Engine(course(rounds=6), new_store()), fails)
    store = new_store()
    for rounds in (1, 3, 6):
        events = finish(Engine(course(rounds=rounds), store), fails)
    assert without_ends(events) == without_ends(expected)
    assert len(events) == len(expected) + 2


@pytest.mark.parametrize("told", range(13))
def test_resume_after_any_outcome(told) -> None:
    """A run whose engine is lost after any number of outcomes comes to the same log."""
    expected = finish(Engine(course(), new_store()))
    store = new_store()
    engine, out = Engine(course(), store), []
    for _ in range(told):
        out += engine.ask()
        engine.tell([report(engine, out.pop(0))])
    assert finish(Engine(course(), store)) == expected


# Asynchronous mode

ASYNC = replace(EVOLVE, mode="async")


def finish_shuffled(engine, seed, fails=()):
    """Answer one task at a time, drawn from those that are out."""
    out, draws = engine.ask(), Rng(seed)
    while out:
        task = out.pop(draws.below(len(out)))
        engine.tell([failure(task) if (task.member, task.round) in fails else report(engine, task)])
        out += engine.ask()
    return engine.store.events()


@pytest.mark.parametrize("seed", range(4))
def test_async_decisions_follow_from_the_log(seed) -> None:
    """Each decision comes out of the log before it and nothing else, whoever was first."""
    events = finish_shuffled(Engine(course(ASYNC, rounds=4), new_store()), seed, fails={(1, 2), (3, 1)})
    empty = View(seed=2, space=SPACE, ages=Ages())
    decisions = [(i, event.decision) for i, event in enumerate(events) if isinstance(event, Decided)]
    assert all(member.step == 20 for member in fold(events, empty).population)
    assert len(decisions) >= 4 * 3
    assert len({decision.round for _, decision in decisions[:6]}) > 1
    for i, decision in decisions:
        view = fold(events[:i], empty)
        assert ASYNC.decide(view, [view.member(decision.member)]).decisions == [decision]


def test_async_waits_for_nobody() -> None:
    """One member may train all its rounds while the others have not finished their first."""
    engine = Engine(course(ASYNC), new_store())
    tasks = engine.ask()
    for round_ in (1, 2, 3):
        task = tasks[2] if round_ == 1 else engine.ask()[0]
        assert (task.member, task.round) == (2, round_)
        assert engine.tell([report(engine, task)])
    assert engine.ask() == []
    assert not engine.finished


def test_async_first_failure_waits_for_a_donor() -> None:
    """Who fails before anybody has a score is replaced as soon as somebody has one; it does not leave."""
    engine = Engine(course(ASYNC), new_store())
    tasks = engine.ask()
    engine.tell([failure(tasks[0])])
    assert engine.ask() == []
    events = engine.tell([report(engine, tasks[3])])
    (replaced,) = (e.decision for e in events if isinstance(e, Decided) and e.decision.member == 0)
    assert (replaced.kind, replaced.donor) == ("replace", 3)
    assert sorted(task.member for task in engine.ask()) == [0, 3]


def test_async_everybody_failed() -> None:
    """In asynchronous mode too the run ends with an error once the last one has failed."""
    engine = Engine(course(ASYNC), new_store())
    *others, last = engine.ask()
    engine.tell([failure(task) for task in others])
    with pytest.raises(PopulationLostError):
        engine.tell([failure(last)])


@pytest.mark.parametrize("told", [1, 4, 7, 11])
def test_async_resume(told) -> None:
    """A resumed asynchronous run trains what was out again, and every decision still follows from its log."""
    store = new_store()
    engine = Engine(course(ASYNC, rounds=4), store)
    out = []
    for count in range(told):
        out += engine.ask()
        engine.tell([report(engine, out.pop(Rng(told, count).below(len(out))))])
    before = store.events()
    again = Engine(course(ASYNC, rounds=4), store)
    assert sorted((t.member, t.round) for t in again.ask()) == sorted((t.member, t.round) for t in out + engine.ask())
    events = finish_shuffled(Engine(course(ASYNC, rounds=4), store), told)
    assert events[: len(before)] == before
    reports = [(e.member, e.round) for e in events if isinstance(e, Reported)]
    assert len(set(reports)) == len(reports)
    assert {e.step for e in events if isinstance(e, Reported)} == {5, 10, 15, 20}
    assert all(member.step == 20 for member in fold(events, View(seed=2, space=SPACE)).population)


# What is kept


def test_states_are_swept() -> None:
    """At most 2 x population + 1 states are kept; among them all that the next round, or the best, needs."""
    engine = Engine(course(rounds=8), new_store())
    most = 0
    while not engine.finished:
        tasks = engine.ask()
        for task in tasks:
            if task.start is not None:
                engine.store.load_state(task.start)
        engine.tell([report(engine, task, score=10 - task.round + 0.1 * task.member) for task in tasks])
        there = kept(engine.store, engine.store.events())
        most = max(most, len(there))
        assert engine.view.best.state in there
        assert {StateRef(t.member, r) for t in tasks for r in (t.round, t.round - 1) if r} <= there
    assert engine.view.best.state.round == 1
    assert most == 2 * 4 + 1


@dataclass(frozen=True, kw_only=True)
class Hoarder(Plan):
    """Keeps the first state of member 0."""

    def retain(self, view):
        return {StateRef(0, 1)} if view.round else set()


def test_retained_states_are_kept() -> None:
    """What the strategy retains is kept although nothing else names it."""
    plain, hoarding = (Engine(course(strategy, rounds=6), new_store()) for strategy in (EVOLVE, Hoarder(interval=5)))
    for engine in (plain, hoarding):
        finish(engine)
    assert StateRef(0, 1) in kept(hoarding.store, hoarding.store.events())
    best = plain.view.best.state
    assert kept(plain.store, plain.store.events()) == {StateRef(m, r) for m in range(4) for r in (5, 6)} | {best}


def test_what_an_exploit_may_still_see_is_kept() -> None:
    """With a lookback of four rounds the states of the last four rounds are there to be copied."""
    engine = Engine(course(replace(EVOLVE, lookback=4), rounds=6), new_store())
    finish(engine)
    expected = {StateRef(m, r) for m in range(4) for r in (3, 4, 5, 6)} | {engine.view.best.state}
    assert kept(engine.store, engine.store.events()) == expected


@dataclass(frozen=True, kw_only=True)
class Turnover(Plan):
    """Each round the worst member leaves and a new one enters; counts how many did."""

    def begin(self, view, population, initial):
        return replace(super().begin(view, population, initial), memory={"entered": 0})

    def decide(self, view, ready):
        proposal = super().decide(view, ready)
        worst, new = view.ranking[-1], len(view.members)
        return Proposal(
            decisions=[d for d in proposal.decisions if d.member != worst.id],
            retirements=[Retired(member=worst.id, round=worst.round, why="worst")],
            starts=[Born(member=new, round=worst.round + 1, hparams=view.space.sample(view.rng("new", new)))],
            memory={"entered": view.memory["entered"] + 1},
        )


def test_who_enters_and_who_leaves() -> None:
    """A strategy's members enter and leave, its memory is there from the start, and nothing of the gone is kept."""
    engine = Engine(course(Turnover(interval=5), rounds=8), new_store())
    assert engine.view.memory == {"entered": 0}
    most = 0
    while not engine.finished:
        tasks = engine.ask()
        assert len(tasks) == 4
        assert not {t.member for t in tasks} & {m.id for m in engine.view.members if m.status == "retired"}
        for task in tasks:
            engine.tell([report(engine, task)])
        most = max(most, len(kept(engine.store, engine.store.events())))
    events = engine.store.events()
    assert engine.view.memory == {"entered": 7}
    assert len([event for event in events if isinstance(event, MemoryUpdated)]) == 8
    assert sum(isinstance(event, Retired) for event in events) == 7
    assert most <= 2 * 4 + 1
    assert Engine(course(Turnover(interval=5), rounds=8), engine.store).view == engine.view


@dataclass(frozen=True, kw_only=True)
class Quitter(Plan):
    """After the first round everybody leaves."""

    def decide(self, view, ready):
        return Proposal(retirements=[Retired(member=m.id, round=m.round, why="enough") for m in ready])


def test_everybody_left() -> None:
    """A population that its strategy dismissed has finished, not failed, however often it is opened."""
    store = new_store()
    events = finish(Engine(course(Quitter()), store))
    assert events[-1] == Ended(round=1, why=FINISHED)
    for _ in range(2):
        assert Engine(course(Quitter()), store).finished
    assert store.events() == events


# Strategies that answer wrongly


def _silent(proposal):
    return replace(proposal, decisions=proposal.decisions[1:])


def _twice(proposal):
    return replace(proposal, decisions=[*proposal.decisions, proposal.decisions[0]])


def _wrong_round(proposal):
    return replace(proposal, decisions=[d._replace(round=d.round + 1) for d in proposal.decisions])


def _out_of_bounds(proposal):
    return replace(proposal, decisions=[d._replace(hparams={"lr": 5.0}) for d in proposal.decisions])


def _no_such_state(proposal):
    return replace(proposal, decisions=[d._replace(start=StateRef(0, 9)) for d in proposal.decisions])


def _born_twice(proposal):
    return replace(proposal, starts=[Born(member=0, round=2, hparams={"lr": 0.1})])


def _born_outside(proposal):
    return replace(proposal, starts=[Born(member=9, round=2, hparams={"lr": 5.0})])


@dataclass(frozen=True, kw_only=True)
class Distorted(Plan):
    distort: object = None

    def decide(self, view, ready):
        return self.distort(super().decide(view, ready))


@pytest.mark.parametrize(
    ("distort", "error", "message"),
    [
        (_silent, UsageError, r"members \[0, 1, 2, 3\], got \[1, 2, 3\]"),
        (_twice, UsageError, "decide once on each of members"),
        (_wrong_round, UsageError, "open round 2 of member 0, got 3"),
        (_out_of_bounds, SpaceError, "decided for member 0: 'lr' must be"),
        (_no_such_state, RunError, "member 0, round 9"),
        (_born_twice, UsageError, "got member 0, which exists already"),
        (_born_outside, SpaceError, "new member 9: 'lr' must be"),
    ],
)
def test_wrong_answers_are_refused(distort, error, message) -> None:
    """A strategy that answers wrongly ends the run with an error that says how; nothing of the wave is logged."""
    engine = Engine(course(Distorted(distort=distort)), new_store())
    before = engine.store.events()
    with pytest.raises(error, match=message):
        engine.tell([report(engine, task) for task in engine.ask()])
    assert engine.store.events() == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"population": 0}, "at least 1 member"),
        ({"rounds": 0}, "at least 1 round"),
        ({"population": 1, "initial": [{"lr": 0.1}] * 2}, "at most 1 initial points, one per member, got 2"),
        ({"rounds": 2.5}, "rounds to be a whole number"),
        ({"population": True}, "population to be a whole number"),
    ],
)
def test_courses_that_cannot_be(fields, message) -> None:
    """A run without members or rounds, or with more first values than members, is refused."""
    with pytest.raises(UsageError, match=message):
        course(**fields)


# Driving


class Desk:
    """An executor whose outcomes are made here, newest task first."""

    slots = 2

    def __init__(self, engine, lose=False):
        self.engine, self.lose = engine, lose
        self.queue, self.told, self.entered = [], [], 0

    def submit(self, tasks):
        self.queue += tasks

    def wait(self):
        if self.lose or not self.queue:
            return []
        return [report(self.engine, self.queue.pop())]

    def incidents(self):
        told, self.told = self.told, [Incident(kind="oops", message="it shook", member=1, round=2, attempt=3)]
        return [] if told else self.told

    def close(self):
        self.entered -= 1

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, *_):
        self.close()


class Diary(Observer):
    def __init__(self):
        self.pages = []

    def on_start(self, engine):
        self.pages.append("start")

    def on_outcome(self, engine, outcome):
        self.pages.append(outcome.member)

    def on_commit(self, engine, events):
        assert engine.store.events()[-len(events) :] == events
        self.pages.append("commit")

    def on_end(self, engine):
        self.pages.append("end")


def test_drive() -> None:
    """An executor is opened, fed, and closed; observers see the start, each outcome, each commit and the end."""
    engine = Engine(course(rounds=2), new_store())
    desk, diary = Desk(engine), Diary()
    drive(engine, desk, [diary])
    assert diary.pages == ["start", 3, 2, 1, 0, "commit", 3, 2, 1, 0, "commit", "end"]
    assert desk.entered == 0
    assert engine.store.events() == finish(Engine(course(rounds=2), new_store()))
    noted = [entry.details for entry in engine.store.journal() if entry.kind == "oops"]
    assert noted[0] == {"message": "it shook", "member": 1, "round": 2, "attempt": 3}
    drive(engine, None, [diary])
    assert diary.pages[-2:] == ["start", "end"]


def test_every_observer_is_closed() -> None:
    """What one of them raises while it closes keeps no other one open."""

    class Clumsy(Diary):
        def close(self):
            self.pages.append("closed")
            raise OSError("stumbled")

    diaries = [Clumsy(), Clumsy()]
    engine = Engine(course(rounds=1), new_store())
    with pytest.raises(OSError, match="stumbled"):
        drive(engine, Desk(engine), diaries)
    assert [diary.pages[-1] for diary in diaries] == ["closed", "closed"]


def test_an_executor_that_loses_tasks() -> None:
    """An executor that has nothing left although tasks are out is an error, not an endless wait; it is closed."""
    engine = Engine(course(), new_store())
    desk = Desk(engine, lose=True)
    with pytest.raises(WorkerError, match="lost tasks"):
        drive(engine, desk)
    assert desk.entered == 0


# The default strategy keeps the contract of all strategies


class TestPlan(StrategyContract):
    def make_strategy(self):
        return Plan(exploit=truncation(0.25), interval=10)


class TestPlanWithoutExploit(StrategyContract):
    def make_strategy(self):
        return Plan(exploit=never(), interval=lambda step: step * 2 + 1)


class TestAsyncTournament(StrategyContract):
    def make_strategy(self):
        return Plan(exploit=binary_tournament(), explore=jitter(0.2), mode="async", inherit="hparams", burn_in=2)


def test_failure_events_name_the_cause() -> None:
    """A failure is logged with its cause and message, and what it cost stays in the journal."""
    engine = Engine(course(rounds=1), new_store())
    events = finish(engine, fails={(2, 1)})
    assert Failed(member=2, round=1, cause="exception", message="2 went wrong") in events
    kinds = [(entry.kind, entry.details["member"]) for entry in engine.store.journal()]
    assert kinds == [("round", 0), ("round", 1), ("failure", 2), ("round", 3)]
