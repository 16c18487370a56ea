"""Laws that hold for every plan and every seed, proved through whole runs on the toy problems."""

import copy
import math
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import pbt
from pbt.core.ages import Ages
from pbt.core.events import Decided, Failed, Reported
from pbt.core.fold import fold
from pbt.core.population import StateRef, View
from pbt.store.codec import digest
from pbt.testing.problems import FIG2, NQM, TOY_DECEPTIVE, TOY_PLAIN, noisy_quadratic

pytestmark = pytest.mark.gate

few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**31)
SPACE = {
    "lr": pbt.Float(1e-4, 1.0, scale="log"),
    "momentum": pbt.Float(0.0, 0.999, scale="one_minus_log"),
    "noise": pbt.Float(0.0, 1.0, prior=(0.0, 0.0)),
    "width": pbt.Int(-2, 3),
    "depth": pbt.Int(1, 100, scale="log"),
    "activation": pbt.Choice(("relu", "tanh", None)),
    "batch": pbt.Choice((16, 32, 64), ordered=True),
    "slope": pbt.Float(0.0, 0.5, when=("activation", "relu")),
}
EXPLORES = {
    "perturb": pbt.perturb((0.5, 2.0)),
    "resample": pbt.resample(0.5),
    "perturb_or_resample": pbt.perturb_or_resample((0.5, 2.0), 0.5),
    "jitter": pbt.jitter(0.5),
    "random_subset": pbt.random_subset(pbt.jitter(0.5)),
}
EXPLOITS = {
    "truncation": pbt.truncation(0.5),
    "truncation, ties copy": pbt.truncation(0.5, ties="copy"),
    "tournament": pbt.binary_tournament(),
}


def lottery(hparams, state, steps, ctx):
    """A task whose score is drawn, and often a tie."""
    return {"rounds": ctx.round}, float(ctx.rng("score", ctx.member, ctx.round).below(4))


def loss_of_lottery(hparams, state, steps, ctx):
    """The same, to be minimized."""
    state, score = lottery(hparams, state, steps, ctx)
    return state, -score


def trap(hparams, state, steps, ctx):
    """A task that fails every third time, in one of four ways; the first member never does."""
    draw = ctx.rng("trap", ctx.member, ctx.round).below(12)
    if ctx.member > 0 and draw == 0:
        raise ValueError("the trap")
    return None, {1: math.nan, 2: math.inf, 3: -math.inf}.get(draw, float(draw)) if ctx.member > 0 else 5.0


def decisions(run):
    """Every decision of a run, in the order of the log."""
    return [event.decision for event in run.events if isinstance(event, Decided)]


def uninterrupted(hparams, steps):
    """The bytes that ordinary training, in one go and without this package, ends with."""
    return noisy_quadratic(hparams, None, steps, None)[0]["moments"].tobytes()


@few
@given(
    lr=st.floats(1e-4, 1.9),
    rounds=st.integers(1, 12),
    interval=st.integers(1, 30),
    exploit=st.sampled_from(["truncation", "truncation, ties copy"]),
)
def test_one_member_is_ordinary_training(lr, rounds, interval, exploit):
    """Property 1: a population of one, under a plan that allows it, is, to the bit, ordinary training."""
    plan = pbt.Plan(exploit=EXPLOITS[exploit], interval=interval)
    run = pbt.run(**NQM | {"plan": plan, "population": 1, "rounds": rounds, "initial": [{"lr": lr}]})
    assert run.load_state(StateRef(0, rounds))["moments"].tobytes() == uninterrupted({"lr": lr}, rounds * interval)


@few
@given(seed=seeds, population=st.integers(2, 6))
def test_nobody_replaced_is_ordinary_training(seed, population):
    """Property 1: where the replaced fraction is zero, every member is, to the bit, ordinary training."""
    plan = pbt.Plan(exploit=pbt.truncation(0.0), interval=7)
    run = pbt.run(**NQM | {"plan": plan, "population": population, "rounds": 5, "seed": seed})
    for member in run.view.members:
        assert run.load_state(member.state)["moments"].tobytes() == uninterrupted(member.hparams, 35)


@few
@given(seed=seeds, interval=st.sampled_from([7, 20, 40, 100, 299]))
def test_rounds_do_not_change_training(seed, interval):
    """Where training is cut into rounds changes no bit of it, on any toy."""
    plan = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=lambda step: min(step + interval, 300))
    whole = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=300)
    for problem in (FIG2, NQM, TOY_PLAIN, TOY_DECEPTIVE):
        few_members = problem | {"population": 2, "seed": seed}
        cut = pbt.run(**few_members | {"plan": plan, "rounds": math.ceil(300 / interval)})
        once = pbt.run(**few_members | {"plan": whole, "rounds": 1})
        for one, other in zip(cut.view.members, once.view.members, strict=True):
            assert digest(cut.load_state(one.state)) == digest(once.load_state(other.state))


@few
@given(seed=seeds, exploit=st.sampled_from(list(EXPLOITS)), population=st.integers(2, 7))
def test_the_best_is_never_overwritten(seed, exploit, population):
    """Property 4: whoever ranks first goes on from its own state with its own values, ties or not."""
    plan = pbt.Plan(exploit=EXPLOITS[exploit])
    run = pbt.run(lottery, SPACE, plan=plan, population=population, rounds=6, seed=seed)
    reports = run.tree.reports
    for round_ in range(1, 6):
        first = max(range(population), key=lambda m, r=round_: (reports[StateRef(m, r)].scores[0], -m))
        decision = run.tree.decisions[first, round_ + 1]
        assert (decision.kind, decision.start, decision.donor) == ("continue", StateRef(first, round_), None)
        assert decision.hparams == run.tree.hparams(first, round_)


@few
@given(seed=seeds, explore=st.sampled_from(list(EXPLORES)), exploit=st.sampled_from([*EXPLOITS, "never"]))
def test_values_stay_in_their_domains(seed, explore, exploit):
    """Property 6: whatever is explored, values stay inside their bounds, whole numbers whole and choices choices."""
    plan = pbt.Plan(exploit=EXPLOITS.get(exploit, pbt.never()), explore=EXPLORES[explore])
    run = pbt.run(lottery, SPACE, plan=plan, population=5, rounds=8, seed=seed)
    kinds = {name: {pbt.Float: float, pbt.Int: int}.get(type(domain)) for name, domain in SPACE.items()}
    for decision in decisions(run):
        assert run.space.contains(decision.hparams)
        assert all(kinds[name] in (None, type(value)) for name, value in decision.hparams.items())


@few
@given(seed=seeds, exploit=st.sampled_from(list(EXPLOITS)), inherit=st.sampled_from(["both", "state", "hparams"]))
def test_a_failed_member_is_never_a_donor(seed, exploit, inherit):
    """Property 7: who scored NaN or an infinity, or raised, ranks last, is copied by nobody and is replaced at once."""
    plan = pbt.Plan(exploit=EXPLOITS[exploit], inherit=inherit)
    run = pbt.run(trap, SPACE, plan=plan, population=6, rounds=6, seed=seed)
    failed = {(event.member, event.round) for event in run.events if isinstance(event, Failed)}
    assert failed.isdisjoint(run.tree.reports)
    for decision in decisions(run):
        assert (decision.donor, decision.round - 1) not in failed
        assert (decision.kind == "replace") == ((decision.member, decision.round - 1) in failed)
    assert math.isfinite(run.best.score)
    ranked = [member.id for member in run.view.ranking]
    assert all((member.id in ranked) == ((member.id, 6) not in failed) for member in run.view.members)


@few
@given(seed=seeds, exploit=st.sampled_from(list(EXPLOITS)))
def test_minimizing_is_maximizing_the_negative(seed, exploit):
    """Property 8: minimizing a loss logs the negative of what maximizing its negative logs, ties included."""
    options = {"plan": pbt.Plan(exploit=EXPLOITS[exploit]), "population": 6, "rounds": 6, "seed": seed}
    higher = pbt.run(lottery, SPACE, **options)
    lower = pbt.run(loss_of_lottery, SPACE, **options, objective="minimize")
    assert [_negated(event) for event in lower.events] == higher.events
    assert lower.best.score == -higher.best.score


def _negated(event):
    """The event with its scores negated; no other number differs."""
    if isinstance(event, Reported):
        return replace(event, scores=tuple(-score for score in event.scores))
    if isinstance(event, Decided):
        scores = tuple(-score for score in event.decision.scores)
        return Decided(decision=event.decision._replace(scores=scores))
    return event


def round_robin(task, space, plan, population, rounds, seed):
    """The log of asynchronous training by one worker, written down as a queue: train one, decide on it, put it last."""
    empty = View(seed=seed, space=pbt.Space(space), ages=Ages())
    events, states = list(plan.begin(empty, population, ()).starts), {None: None}
    budget = rounds * plan.interval
    queue = deque(range(population))
    while queue:
        id_ = queue.popleft()
        member = fold(events, empty).member(id_)
        step, ref = plan.next_ready(member.step), StateRef(id_, member.opened)
        context = pbt.Context(seed=seed, member=id_, round=member.opened, first_step=member.step)
        start = copy.deepcopy(states[member.state])
        states[ref], score = task(dict(member.hparams), start, step - member.step, context)
        known = {"member": id_, "round": member.opened, "step": step, "state": ref, "digest": digest(states[ref])}
        events.append(Reported(**known, scores=(score,)))
        if step < budget:
            view = fold(events, empty)
            events.append(Decided(decision=plan.decide(view, [view.member(id_)]).decisions[0]))
            queue.append(id_)
    return events


@few
@given(seed=seeds, exploit=st.sampled_from([*EXPLOITS, "never"]), population=st.integers(1, 4))
def test_asynchronous_with_one_worker_is_a_round_robin(seed, exploit, population):
    """Property 9: asynchronous with one worker is a queue of the members, each decided on as it finishes."""
    assume(population > 1 or exploit != "tournament")
    plan = pbt.Plan(exploit=EXPLOITS.get(exploit, pbt.never()), interval=5, mode="async")
    options = {"plan": plan, "population": population, "rounds": 5, "seed": seed}
    run = pbt.run(**NQM | options)
    assert run.events[:-1] == round_robin(noisy_quadratic, run.space, plan, population, 5, seed)


@few
@given(seed=seeds, explore=st.sampled_from(list(EXPLORES)), population=st.integers(1, 4))
def test_asynchronous_is_synchronous_where_nobody_is_copied(seed, explore, population):
    """Property 9: where no decision reads another member, both modes take the same ones and reach the same states.

    More cannot be promised: at a ready point a synchronous decision sees everybody at the end of the round, an
    asynchronous one sees the members behind it one round earlier, and those before it already decided on.
    """
    options = {"population": population, "rounds": 5, "seed": seed}
    plan = {"exploit": pbt.never(), "explore": EXPLORES[explore], "interval": 5}
    runs = [pbt.run(**NQM | options | {"plan": pbt.Plan(**plan, mode=mode)}) for mode in ("sync", "async")]
    for select in (decisions, lambda run: [e for e in run.events if isinstance(e, Reported)]):
        together, alone = (select(run) for run in runs)
        assert together == alone


@few
@given(
    seed=seeds,
    problem=st.sampled_from([FIG2, NQM, TOY_PLAIN, TOY_DECEPTIVE]),
    inherit=st.sampled_from(["both", "state", "hparams"]),
    mode=st.sampled_from(["sync", "async"]),
)
def test_replay_reproduces_the_winner(seed, problem, inherit, mode):
    """Property 10: the schedule of the best state's ancestry, followed by a population of one, makes that state."""
    plan = replace(problem["plan"], inherit=inherit, mode=mode)
    small = problem | {"population": min(problem["population"], 6), "rounds": 10, "seed": seed}
    run = pbt.run(**small | {"plan": plan})
    schedule = run.best_schedule
    replay = replace(plan, exploit=pbt.never(), explore=pbt.follow(schedule))
    # Not run.best.round: in asynchronous mode a copied state may be a round behind the one it replaced.
    rounds = run.best.step // plan.interval
    again = pbt.run(**problem | {"plan": replay, "population": 1, "rounds": rounds, "initial": [schedule.at(0)]})
    assert again.view.members[0].score == run.best.score
    assert digest(again.load_state(StateRef(0, rounds))) == digest(run.load_state())


def slower(hparams, member, view, rng):
    """A rule that draws nothing: a little less of everything."""
    return view.space.clip({name: 0.97 * value for name, value in hparams.items()}), {}


@few
@given(order=st.permutations(range(5)), inherit=st.sampled_from(["both", "state", "hparams"]))
def test_names_do_not_matter(order, inherit):
    """Property 11: who has which id decides ties and draws, and nothing else.

    Here one of five is replaced by the one best, so that no donor is drawn, and no two members ever tie.
    """
    plan = pbt.Plan(exploit=pbt.truncation(0.2), explore=slower, interval=20, inherit=inherit)
    values = [{"lr": lr} for lr in (0.011, 0.05, 0.23, 0.7, 1.3)]
    options = NQM | {"plan": plan, "population": 5, "rounds": 12}
    run = pbt.run(**options | {"initial": values})
    permuted = pbt.run(**options | {"initial": [values[i] for i in order]})
    for id_, original in enumerate(order):
        ours, theirs = permuted.view.member(id_), run.view.member(original)
        assert (ours.score, ours.hparams) == (theirs.score, theirs.hparams)
    rows = zip(run.history()["round"], run.history()["score"], strict=True)
    assert len(set(rows)) == 60
