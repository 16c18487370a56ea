"""Asynchronous runs train what was asked, and favor no speed."""

import time
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest

import pbt
from pbt.core.ages import DEEPEST, Ages
from pbt.core.events import Decided, Reported
from pbt.core.fold import fold
from pbt.core.population import View
from pbt.core.rng import Rng
from pbt.errors import UsageError
from pbt.runs.engine import Observer
from pbt.testing.invariants import log_violations
from tests.helpers.virtual_clock import Clock

MEMBERS, ROUNDS, INTERVAL = 10, 10, 10
SPACE = {"x": pbt.Float(0.0, 1.0)}
RULES = {
    "copy": lambda: pbt.truncation(0.2, ties="copy"),
    "stay": lambda: pbt.truncation(0.2),
    "tournament": pbt.binary_tournament,
}


def slow_half(seed: int, members: int = MEMBERS) -> set[int]:
    return set(Rng(seed, "slow").sample(range(members), members // 2))


def neutral(seed: int, noise: float) -> Callable[..., Any]:
    """A task whose score is the steps in the state, so that at equal age all are equal but for noise."""

    def task(hparams, state, steps, ctx):
        trained = (state or {"steps": 0})["steps"] + steps
        return {"steps": trained}, trained + noise * Rng(seed, "noise", ctx.member, ctx.round).normal()

    return task


def clocked(seed: int, ratio: float, noise: float = 0.0, **asked: Any) -> tuple[pbt.Run, Clock]:
    slow = slow_half(seed)
    clock = Clock(lambda task: ratio if task.member in slow else 1.0)
    plan = pbt.Plan(**{"exploit": pbt.truncation(0.2, ties="copy"), "interval": INTERVAL, "mode": "async"} | asked)
    settings = {"plan": plan, "population": MEMBERS, "rounds": ROUNDS, "seed": seed}
    return pbt.run(neutral(seed, noise), SPACE, placement=pbt.Placement(executor=clock), **settings), clock


def share_of(run: pbt.Run, founders: set[int]) -> float:
    found = run.tree.founders([member.state for member in run.view.population])
    return sum(count for member, count in found.items() if member in founders) / found.total()


def expected_to_be_neutral(rule: str, ratio: float, noise: float, seeds: range) -> None:
    runs = [clocked(seed, ratio, noise, exploit=RULES[rule]())[0] for seed in seeds]
    assert {member.step for run in runs for member in run.view.population} == {ROUNDS * INTERVAL}
    assert max(max(run.history()["step"]) for run in runs) == ROUNDS * INTERVAL
    share = fmean(share_of(run, slow_half(seed)) for seed, run in zip(seeds, runs, strict=True))
    assert share == pytest.approx(0.5, abs=0.1)


@pytest.mark.long
@pytest.mark.parametrize("ratio", [pytest.param(1.5, marks=pytest.mark.slow), 4.0])
@pytest.mark.parametrize(
    ("rule", "noise"),
    [("copy", 0.0), pytest.param("copy", 0.1, marks=pytest.mark.slow), ("stay", 0.0), ("tournament", 0.0)],
)
def test_no_speed_is_favored(rule: str, noise: float, ratio: float) -> None:
    """Where score is the steps trained, the slow half founds half of the last population, and no state has more."""
    expected_to_be_neutral(rule, ratio, noise, range(16))


@pytest.mark.gate
@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1.5, 4.0])
@pytest.mark.parametrize("noise", [0.0, 0.1, 5.0])
@pytest.mark.parametrize("rule", list(RULES))
def test_no_speed_is_favored_over_many_seeds(rule: str, noise: float, ratio: float) -> None:
    """The same for every rule, with noise that is small and large against a round, over 64 seeds."""
    expected_to_be_neutral(rule, ratio, noise, range(100, 164))


def test_fast_and_slow_members_copy_each_other() -> None:
    """Members of either speed copy members of the other: neither is only a donor, and neither only a copier."""
    pairs = set()
    for seed in range(8):
        slow = slow_half(seed)
        run, _ = clocked(seed, 4.0)
        for member, donor in zip(run.history()["member"], run.history()["donor"], strict=True):
            if donor is not None:
                pairs.add((member in slow, donor in slow))
    assert pairs == {(False, False), (False, True), (True, False), (True, True)}


def costly(seed: int) -> pbt.Run:
    """Half of the members gain twice as much a step, at four times the cost; copying hands that on."""

    def task(hparams, state, steps, ctx):
        gained = (state or {"gained": 0.0})["gained"] + steps * (2.0 if hparams["kind"] == "dear" else 1.0)
        return {"gained": gained}, gained

    clock = Clock(lambda task: 4.0 if task.hparams["kind"] == "dear" else 1.0)
    kinds = ["dear"] * (MEMBERS // 2) + ["cheap"] * (MEMBERS // 2)
    plan = pbt.Plan(exploit=pbt.truncation(0.2), explore=pbt.keep(), interval=INTERVAL, mode="async")
    settings = {"population": MEMBERS, "rounds": ROUNDS, "seed": seed, "initial": [{"kind": kind} for kind in kinds]}
    return pbt.run(
        task, {"kind": pbt.Choice(("dear", "cheap"))}, plan=plan, placement=pbt.Placement(executor=clock), **settings
    )


def test_what_is_better_at_equal_age_does_not_die_out() -> None:
    """A hyperparameter with twice the gain a step at four times the cost wins, and holds most of the population."""
    runs = [costly(seed) for seed in range(8)]
    assert all(run.best.hparams["kind"] == "dear" for run in runs)
    dear = fmean(fmean(m.hparams["kind"] == "dear" for m in run.view.population) for run in runs)
    assert dear > 0.6


def slowly(hparams, state, steps, ctx):
    time.sleep(0.04 if ctx.member % 2 else 0.01)
    trained = (state or {"steps": 0})["steps"] + steps
    return {"steps": trained}, float(trained)


@pytest.mark.slow
def test_real_processes_train_what_was_asked() -> None:
    """On worker processes too every member ends at the steps that were asked for, and none beyond."""
    plan = pbt.Plan(exploit=pbt.truncation(0.25, ties="copy"), interval=10, mode="async")
    placement = pbt.Placement(executor="processes", workers=4, threads=1)
    run = pbt.run(slowly, SPACE, plan=plan, population=4, rounds=5, placement=placement)
    assert {member.step for member in run.view.population} == {50}
    assert max(run.history()["step"]) == 50


@pytest.mark.parametrize("interval", [10, lambda step: step + 5 if step < 20 else step + 20])
@pytest.mark.parametrize("age_gap", [0, 30])
def test_no_state_exceeds_the_budget(interval: Any, age_gap: int) -> None:
    """With equal age or without, and for intervals of other lengths, the last step is that of `rounds` applications."""
    step = 0
    for _ in range(ROUNDS):
        step = step + interval if isinstance(interval, int) else interval(step)
    for seed in range(4):
        run, _ = clocked(seed, 4.0, interval=interval, age_gap=age_gap)
        assert max(run.history()["step"]) == step
        assert {member.step for member in run.view.population} == {step}
        assert log_violations(run.events, run.space, MEMBERS) == []


def test_an_age_gap_compares_the_scores_of_the_moment() -> None:
    """With an age gap as long as the run the older members win, as in asynchronous training without equal age."""
    share = fmean(share_of(clocked(seed, 4.0, age_gap=ROUNDS * INTERVAL)[0], slow_half(seed)) for seed in range(8))
    assert share < 0.2


def test_members_are_compared_and_copied_at_equal_age() -> None:
    """A decision that copies names the step of the comparison; what it starts from is no older than the member."""
    run, _ = clocked(3, 4.0, noise=0.1)
    steps: dict[int, int] = {}
    copies = 0
    for event in run.events:
        if isinstance(event, Reported):
            steps[event.member] = event.step
        elif isinstance(event, Decided) and event.decision.donor is not None:
            copies += 1
            assert event.decision.compared is not None
            assert event.decision.compared <= event.decision.step <= steps[event.decision.member]
    assert copies > 3


def test_what_is_kept_for_comparisons_is_bounded() -> None:
    """However far members are apart, a run keeps a bounded number of earlier states of each, else only a few."""
    for ratio, most in ((1.0, 3), (30.0, DEEPEST)):
        held = []

        class Watch(Observer):
            def on_commit(self, engine, events, held=held):
                held.append(max(map(len, engine.view.ages.lines.values())))

        slow = slow_half(0)
        clock = Clock(lambda task, slow=slow, ratio=ratio: ratio if task.member in slow else 1.0)
        plan = pbt.Plan(exploit=pbt.truncation(0.2), mode="async")
        settings = {"plan": plan, "population": MEMBERS, "rounds": 40, "observers": [Watch()]}
        pbt.run(neutral(0, 0.0), SPACE, placement=pbt.Placement(executor=clock), **settings)
        assert max(held) <= most


def test_decisions_follow_from_the_log() -> None:
    """Each decision comes out of the log before it, folded at once as well as event by event."""
    run, _ = clocked(5, 1.5, noise=0.1)
    plan = pbt.Plan(exploit=pbt.truncation(0.2, ties="copy"), interval=INTERVAL, mode="async")
    empty = View(seed=5, space=run.space, ages=Ages())
    for i, event in enumerate(run.events):
        if isinstance(event, Decided):
            view = fold(run.events[:i], empty)
            assert plan.decide(view, [view.member(event.decision.member)]).decisions == [event.decision]


def test_a_finished_run_is_extended(tmp_path) -> None:
    """More rounds open the members again, up to the new number of steps, with decisions at equal age."""
    plan = pbt.Plan(exploit=pbt.truncation(0.2, ties="copy"), interval=INTERVAL, mode="async")
    settings: dict[str, Any] = {"plan": plan, "population": MEMBERS, "run_dir": tmp_path / "run"}
    done = pbt.run(
        neutral(0, 0.0), SPACE, rounds=3, placement=pbt.Placement(executor=Clock(lambda task: 1.0)), **settings
    )
    more = pbt.run(
        neutral(0, 0.0),
        SPACE,
        rounds=5,
        placement=pbt.Placement(executor=Clock(lambda task: 1.0)),
        resume=True,
        **settings,
    )
    assert more.events[: len(done.events)] == done.events
    assert {member.step for member in more.view.population} == {50}
    after = [e.decision for e in more.events[len(done.events) :] if isinstance(e, Decided)][:MEMBERS]
    assert any(decision.compared == 30 for decision in after)


def test_a_failed_member_is_renewed_at_its_age() -> None:
    """Who fails starts again from a state that is no older than its own would be, where there is one."""
    slow = slow_half(1)

    def task(hparams, state, steps, ctx):
        trained = (state or {"steps": 0})["steps"] + steps
        if ctx.member in slow and ctx.round == 3:
            raise RuntimeError
        return {"steps": trained}, float(trained)

    clock = Clock(lambda task: 4.0 if task.member in slow else 1.0)
    plan = pbt.Plan(interval=INTERVAL, mode="async")
    run = pbt.run(
        task, SPACE, plan=plan, population=MEMBERS, rounds=ROUNDS, seed=1, placement=pbt.Placement(executor=clock)
    )
    renewed = [e.decision for e in run.events if isinstance(e, Decided) and e.decision.kind == "replace"]
    assert len(renewed) == len(slow)
    assert all(decision.step <= 3 * INTERVAL for decision in renewed)
    assert {member.step for member in run.view.population} == {ROUNDS * INTERVAL}


@pytest.mark.parametrize("asked", [{"age_gap": -1, "mode": "async"}, {"age_gap": 5}, {"age_gap": 0.5, "mode": "async"}])
def test_an_age_gap_is_for_asynchronous_plans(asked: dict[str, Any]) -> None:
    """An age gap is a whole number of steps, and says nothing in synchronous mode."""
    with pytest.raises(UsageError, match="age_gap"):
        pbt.Plan(**asked)
