"""Guarded exploit rules: what counts as a gap, on hand-made populations; and whole runs under them."""

import math
from statistics import fmean, pstdev

import pytest

import pbt
from pbt.core.events import Decided, Ended, Reported
from pbt.core.exploit import Copy, Mutate, Stay
from pbt.core.population import Member, StateRef, View
from pbt.core.rng import Rng
from pbt.domains import Float
from pbt.space import Space
from pbt.strategies.guarded import guarded, since_copy, trimmed_deviation
from pbt.testing.invariants import violations
from pbt.testing.problems import TOY_PLAIN
from pbt.testing.strategies import StrategyContract

SPACE = Space({"lr": Float(1e-4, 1.0, "log")})


class TestGuardedContract(StrategyContract):
    def make_strategy(self):
        return pbt.Plan(exploit=guarded(pbt.truncation(0.25)))


class TestTrimmedContract(StrategyContract):
    def make_strategy(self):
        return pbt.Plan(exploit=since_copy(trimmed_deviation(0.5), 2))


def view_of(*scores, **fields):
    """Members with these scores, all alike but for what `fields` says of them."""
    members = tuple(
        Member(id=i, hparams={"lr": 0.1}, step=100, scores=(float(score),), state=StateRef(i, 1), round=1, opened=1)
        for i, score in enumerate(scores)
    )
    return View(seed=0, space=SPACE, round=1, members=tuple(member._replace(**fields) for member in members))


def ask(rule, view, id_):
    return rule(view.member(id_), view, view.rng("test", id_))


def donor(number):
    """A rule that always copies this member."""
    return lambda member, view, rng: Copy(donor=number)


@pytest.mark.parametrize(
    ("mine", "theirs", "copies"),
    [
        (100, 110, False),
        (100, 110.1, True),
        (100, 90, False),
        (-100, -90, False),
        (-100, -89.9, True),
        (-100, -101, False),
        (-1, 1, True),
        (0, 1e-6, False),
        (0, 2e-6, True),
        (0, 0, False),
        (1e-6, 2e-6, False),
        (1e-6, 3e-6, True),
        (-1e300, 1e300, True),
    ],
)
def test_a_gap_is_relative_and_absolute(mine, theirs, copies):
    """More than a tenth of the member's score without its sign, and more than a millionth."""
    assert isinstance(ask(guarded(donor(1)), view_of(mine, theirs), 0), Copy if copies else Stay)


def test_both_gaps_may_be_chosen():
    """The larger of the two is what a donor must be better by."""
    view = view_of(10, 12)
    assert isinstance(ask(guarded(donor(1), relative=0.1, absolute=2.5), view, 0), Stay)
    assert isinstance(ask(guarded(donor(1), relative=0.3, absolute=0.1), view, 0), Stay)
    assert isinstance(ask(guarded(donor(1), relative=0.1, absolute=1.5), view, 0), Copy)
    assert isinstance(ask(guarded(donor(1), relative=0, absolute=0), view, 0), Copy)


def test_the_guard_only_ever_prevents():
    """What is no copy passes as it is; a copy passes with all it says; what may not copy may explore."""
    view = view_of(1, 2, 3)
    for choice in (Mutate(why="x"), Stay(why="y"), Copy(donor=2, why="z")):
        assert ask(guarded(lambda member, view, rng, choice=choice: choice), view, 0) == choice
    small = view_of(100, 101)
    assert isinstance(ask(guarded(donor(1), otherwise="mutate"), small, 0), Mutate)
    assert "1 is better by 1, not by more than 10" in ask(guarded(donor(1)), small, 0).why


def test_an_older_state_counts_with_its_own_score():
    """Where the rule copies an earlier state of the donor, its score then decides."""
    view = view_of(1.0, 9.0)
    then = view.member(1)._replace(scores=(1.05,), state=StateRef(1, 0))
    view = View(seed=0, space=SPACE, round=1, members=view.members, history={1: (then,)})
    rule = guarded(lambda member, view, rng: Copy(donor=1, state=StateRef(1, 0)))
    assert isinstance(ask(rule, view, 0), Stay)


def test_the_cuts():
    """Below mean - k deviations a member copies one above mean + k deviations, and only such a one."""
    scores = [0, 4, 5, 5, 5, 6, 6, 6, 9, 10]
    mean, deviation = fmean(scores), pstdev(scores)
    rule = trimmed_deviation(1.0, trim=0.0)
    view = view_of(*scores)
    leaders = {i for i, score in enumerate(scores) if score > mean + deviation}
    assert leaders == {8, 9}
    losers = {i for i, score in enumerate(scores) if score < mean - deviation}
    assert losers == {0}
    for id_ in range(10):
        assert isinstance(ask(rule, view, id_), Copy if id_ in losers else Stay)
    drawn = {rule(view.member(0), view, Rng("leaders", i)).donor for i in range(40)}
    assert drawn == leaders


def test_an_outlier_does_not_move_the_cuts():
    """One diverged member hides a bad one behind its own deviation, unless the extremes are trimmed."""
    scores = [-1e9, 1, 9, 10, 10, 10, 11, 11, 12, 19]
    view = view_of(*scores)
    assert isinstance(ask(trimmed_deviation(trim=0.0), view, 1), Stay)
    assert ask(trimmed_deviation(trim=0.1), view, 1).donor == 9
    assert ask(trimmed_deviation(trim=0.1), view, 0).donor == 9


def test_nobody_far_above():
    """Without a leader the member explores its own values, or stays if told so."""
    view = view_of(0, 9, 10, 10, 10, 10, 10, 10)
    assert isinstance(ask(trimmed_deviation(), view, 0), Mutate)
    assert isinstance(ask(trimmed_deviation(otherwise="stay"), view, 0), Stay)


@pytest.mark.parametrize("score", [0.0, 0.1, -1e300, 1e-300])
@pytest.mark.parametrize("number", [1, 2, 7, 10])
def test_equal_scores(score, number):
    """All alike, or alone: nobody moves."""
    view = view_of(*[score] * number)
    assert all(isinstance(ask(trimmed_deviation(0.0), view, i), Stay) for i in range(number))


def test_an_absolute_distance():
    """Near the mean nobody moves, however small the deviation is."""
    view = view_of(0.50, 0.51, 0.51, 0.52, 0.60)
    assert isinstance(ask(trimmed_deviation(0.1, trim=0.0), view, 0), Copy)
    assert isinstance(ask(trimmed_deviation(0.1, absolute=0.05, trim=0.0), view, 0), Stay)


def test_shifted_and_scaled():
    """Other units, other zero: the same choices."""
    for seed in range(20):
        scores = [Rng("scaled", seed, i).normal() for i in range(12)]
        rule = trimmed_deviation(0.7)
        views = [
            view_of(*[factor * score + shift for score in scores]) for factor, shift in ((1, 0), (1e6, 0), (3, -50))
        ]
        kinds = [[type(ask(rule, view, i)) for i in range(12)] for view in views]
        assert kinds[0] == kinds[1] == kinds[2]


@pytest.mark.parametrize(
    ("copied_at", "choice"), [(None, Copy), (100, Stay), (51, Stay), (50, Copy), (0, Copy), (90, Stay)]
)
def test_since_copy(copied_at, choice):
    """A member that copied less than so many steps ago stays, whatever the rule says."""
    assert isinstance(ask(since_copy(donor(1), 50), view_of(1, 2, copied_at=copied_at), 0), choice)


@pytest.mark.parametrize(
    "make",
    [
        lambda: guarded(relative=-0.1),
        lambda: guarded(absolute=-1),
        lambda: guarded(relative=math.nan),
        lambda: guarded(otherwise="copy"),
        lambda: trimmed_deviation(-1),
        lambda: trimmed_deviation(absolute=-1),
        lambda: trimmed_deviation(trim=0.5),
        lambda: trimmed_deviation(otherwise=""),
        lambda: since_copy(pbt.truncation(0.2), 0),
    ],
)
def test_settings_are_checked(make):
    """What makes no sense is refused, with what was expected."""
    with pytest.raises(pbt.PBTError, match=r"expected .*, got"):
        make()


def climb(hparams, state, steps, ctx):
    """A climb under a noisy score; it fails now and then."""
    if Rng("fails", ctx.member, ctx.round).random() < 0.05:
        raise ValueError("no luck")
    height = (state or {"height": 0.0})["height"] + steps * hparams["lr"]
    return {"height": height}, height + Rng("noise", ctx.member, ctx.round).random()


@pytest.mark.parametrize(
    "rule", [guarded(pbt.truncation(0.25)), trimmed_deviation(0.5), since_copy(trimmed_deviation(), 4)]
)
def test_runs_under_them(rule, tmp_path):
    """Whole runs keep every law; a run that is extended tells what a long one tells."""
    options = {
        "task": climb,
        "space": {"lr": Float(1e-3, 1.0, "log")},
        "plan": pbt.Plan(exploit=rule, interval=2),
        "population": 10,
    }
    long = pbt.run(**options, rounds=8)
    pbt.run(**options, rounds=3, run_dir=tmp_path / "run")
    extended = pbt.run(**options, rounds=8, run_dir=tmp_path / "run", resume=True)
    assert violations(tmp_path / "run") == []
    logs = [[event for event in run.events if not isinstance(event, Ended)] for run in (long, extended)]
    assert logs[0] == logs[1]
    assert "exploit" in {event.decision.kind for event in long.events if isinstance(event, Decided)}


def noise(hparams, state, steps, ctx):
    """Nothing but luck around a score of 10."""
    return {"x": 0.0}, 10 + 0.3 * Rng("luck", ctx.member, ctx.round).normal()


def copies(run):
    return [e.decision for e in run.events if isinstance(e, Decided) and e.decision.kind == "exploit"]


def test_noise_is_not_copied():
    """Of scores that are luck alone truncation makes copies in every round; the guard makes less than half as many."""
    options = {"task": noise, "space": {"lr": Float(1e-3, 1.0, "log")}, "population": 20, "rounds": 20}
    plain, kept = (
        pbt.run(**options, plan=pbt.Plan(exploit=rule)) for rule in (pbt.truncation(0.2), guarded(pbt.truncation(0.2)))
    )
    assert len(copies(plain)) == 19 * 4
    assert len(copies(kept)) < len(copies(plain)) / 2
    scores = {event.state: event.scores[0] for event in kept.events if isinstance(event, Reported)}
    for decision in copies(kept):
        mine = scores[StateRef(decision.member, decision.round - 1)]
        assert decision.scores[0] - mine > 0.1 * abs(mine)


def test_what_is_no_noise_is_copied():
    """The guard leaves the algorithm alone where gaps are real: with none set, it is truncation to the last bit."""
    plan = TOY_PLAIN["plan"]
    options = TOY_PLAIN | {"rounds": 10}
    unguarded = pbt.run(**options)
    free = pbt.Plan(exploit=guarded(plan.exploit, 0.0, 0.0), explore=plan.explore, interval=plan.interval)
    kinds = [
        [(e.decision.member, e.decision.start, e.decision.hparams) for e in run.events if isinstance(e, Decided)]
        for run in (unguarded, pbt.run(**options | {"plan": free}))
    ]
    assert kinds[0] == kinds[1]
