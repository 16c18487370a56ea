"""Where a state comes from, and the schedule that made it."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbt.core.events import Born, Decided, Decision, Failed, Reported
from pbt.core.exploit import never, truncation
from pbt.core.explore import follow, perturb
from pbt.core.fold import apply
from pbt.core.history import RunHistory
from pbt.core.population import StateRef, View
from pbt.core.schedule import Schedule, Segment
from pbt.core.strategy import Plan
from pbt.domains import Float
from pbt.errors import UsageError
from pbt.space import Space


def lr(value):
    return {"lr": value}


def reported(member, round_, score):
    return Reported(
        member=member, round=round_, step=10 * round_, scores=(score,), state=StateRef(member, round_), digest=""
    )


def decided(member, round_, start, value, donor=None):
    return Decided(
        decision=Decision(
            member=member, round=round_, start=start, step=10 * (round_ - 1), hparams=lr(value), donor=donor
        )
    )


# Three members, three rounds of ten steps. In round 2 member 0 goes on from member 2, and in round 3 member 2 from
# member 0; member 1 never changes, and fails in the end.
#
#   member 0   lr 0.1  x    .- lr 0.36 -+- lr 0.36 -
#   member 1   lr 0.2 -+------ lr 0.2 --+- failed
#   member 2   lr 0.3 -+----'- lr 0.3 x '- lr 0.5 --
LOG = [
    *(Born(member=i, hparams=lr(value)) for i, value in enumerate((0.1, 0.2, 0.3))),
    *(reported(i, 1, score) for i, score in enumerate((0.1, 0.2, 0.3))),
    decided(0, 2, StateRef(2, 1), 0.36, donor=2),
    decided(1, 2, StateRef(1, 1), 0.2),
    decided(2, 2, StateRef(2, 1), 0.3),
    *(reported(i, 2, score) for i, score in enumerate((0.6, 0.4, 0.5))),
    decided(0, 3, StateRef(0, 2), 0.36),
    decided(1, 3, StateRef(1, 2), 0.2),
    decided(2, 3, StateRef(0, 2), 0.5, donor=0),
    reported(0, 3, 0.7),
    Failed(member=1, round=3, cause="score", message="NaN"),
    reported(2, 3, 0.9),
]
LINEAGE = RunHistory(LOG)


@pytest.mark.parametrize(
    ("ref", "path"),
    [
        ((0, 1), [(0, 1)]),
        ((1, 2), [(1, 1), (1, 2)]),
        ((0, 2), [(2, 1), (0, 2)]),
        ((0, 3), [(2, 1), (0, 2), (0, 3)]),
        ((2, 3), [(2, 1), (0, 2), (2, 3)]),
    ],
)
def test_ancestry_is_the_path_of_states(ref, path):
    """The rounds that made a state, first to last: through donors, not along the member's own past."""
    assert [(link.member, link.round) for link in LINEAGE.ancestry(StateRef(*ref))] == path


def test_a_link_is_one_round():
    """Each link says what its round started from, which steps it trained, with which values, to which score."""
    first, second, third = LINEAGE.ancestry(StateRef(2, 3))
    assert (first.start, second.start, third.start) == (None, StateRef(2, 1), StateRef(0, 2))
    assert [(link.first_step, link.step) for link in (first, second, third)] == [(0, 10), (10, 20), (20, 30)]
    assert [link.hparams["lr"] for link in (first, second, third)] == [0.3, 0.36, 0.5]
    assert [link.score for link in (first, second, third)] == [0.3, 0.6, 0.9]
    assert first.decision is None
    assert (second.decision.donor, third.decision.donor) == (2, 0)


def test_a_state_without_a_report_has_no_ancestry():
    """A failed round made no state."""
    assert set(LINEAGE.failures) == {(1, 3)}
    with pytest.raises(KeyError):
        LINEAGE.ancestry(StateRef(1, 3))


@pytest.mark.parametrize(
    ("ref", "segments"),
    [
        ((2, 3), [(0, 10, 0.3), (10, 20, 0.36), (20, 30, 0.5)]),
        ((0, 3), [(0, 10, 0.3), (10, 30, 0.36)]),  # neighbors with equal values are joined
        ((1, 2), [(0, 20, 0.2)]),
    ],
)
def test_the_schedule_of_a_state(ref, segments):
    """The values along the ancestry of a state, as stretches of steps."""
    schedule = LINEAGE.schedule(StateRef(*ref))
    assert [(s.start, s.stop, s.hparams["lr"]) for s in schedule.segments] == segments
    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


def test_who_survived():
    """Each state goes back to one founder; states are counted by it."""
    assert [LINEAGE.founder(StateRef(i, 1)) for i in range(3)] == [0, 1, 2]
    assert LINEAGE.founders([StateRef(0, 2), StateRef(1, 2), StateRef(2, 2)]) == Counter({2: 2, 1: 1})
    assert LINEAGE.founders([StateRef(0, 3), StateRef(2, 3)]) == Counter({2: 2})


def test_a_late_birth_has_the_ancestors_of_its_state():
    """A member that is born with a state goes back to that state's founder, and keeps its own first values."""
    late = [Born(member=3, round=3, hparams=lr(0.7), start=StateRef(1, 2)), reported(3, 3, 0.8)]
    lineage = RunHistory([*LOG, *late])
    assert [(link.member, link.round) for link in lineage.ancestry(StateRef(3, 3))] == [(1, 1), (1, 2), (3, 3)]
    assert lineage.founder(StateRef(3, 3)) == 1
    assert lineage.schedule(StateRef(3, 3)).segments[-1] == Segment(start=20, stop=30, hparams=lr(0.7))


@pytest.mark.parametrize(
    ("step", "value"), [(0, 0.3), (9, 0.3), (10, 0.36), (19, 0.36), (20, 0.5), (29, 0.5), (30, 0.5), (10**9, 0.5)]
)
def test_schedule_at(step, value):
    """A segment holds from its start up to, not including, its stop; the last one holds on."""
    assert LINEAGE.schedule(StateRef(2, 3)).at(step) == lr(value)


@pytest.mark.parametrize("edges", [[], [(1, 5)], [(0, 5), (6, 9)], [(0, 5), (4, 9)], [(0, 0)], [(0, 5), (5, 5)]])
def test_a_schedule_has_no_gaps(edges):
    """Segments start at 0, are never empty, and join without gaps or overlaps."""
    with pytest.raises(UsageError, match="segments that join without gaps, from step 0"):
        Schedule(tuple(Segment(start=start, stop=stop, hparams={}) for start, stop in edges))


SPACE = Space({"lr": Float(1e-3, 1.0, "log")})


def train(weight, hparams, step):
    """One step of a toy whose result depends on every value, and on when it was used."""
    return weight + hparams["lr"] * (1 - weight) / (step + 1) - 0.1 * hparams["lr"] ** 2


def run(plan, seed, num_members, rounds, initial=()):
    """A whole run of the toy: its log and the weight in every state."""
    view = View(seed=seed, space=SPACE)
    events = list(plan.begin(view, num_members, initial).starts)
    view, weights = apply(view, events), {None: 0.0}
    for _ in range(rounds):
        wave = []
        for member in view.population:
            weight, stop = weights[member.state], plan.next_ready(member.step)
            for step in range(member.step, stop):
                weight = train(weight, member.hparams, step)
            ref = StateRef(member.id, member.opened)
            weights[ref] = weight
            wave.append(replace(reported(*ref, weight), step=stop))
        view = apply(view, wave)
        handed_over = [Decided(decision=d) for d in plan.decide(view, view.population).decisions]
        events += wave if view.round == rounds else [*wave, *handed_over]
        view = apply(view, handed_over)
    return events, weights


@settings(max_examples=25)
@given(st.integers(0, 999), st.integers(2, 8), st.integers(1, 8), st.integers(1, 4))
def test_following_its_schedule_reproduces_the_winner(seed, num_members, rounds, interval):
    """One member that follows the winner's schedule ends with the winner's weight, bit by bit, and its schedule."""
    plan = Plan(exploit=truncation(0.5), explore=perturb((0.5, 2.0)), interval=interval)
    events, weights = run(plan, seed, num_members, rounds)
    winner = max((StateRef(i, rounds) for i in range(num_members)), key=weights.__getitem__)
    schedule = RunHistory(events).schedule(winner)
    replay = Plan(exploit=never(), explore=follow(schedule), interval=interval)
    again, replayed = run(replay, seed + 1, 1, rounds, [schedule.at(0)])
    assert replayed[StateRef(0, rounds)] == weights[winner]
    assert RunHistory(again).schedule(StateRef(0, rounds)) == schedule
