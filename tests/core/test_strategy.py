"""The default strategy: one exploit and one explore, decided from one view."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbt.core.events import Decided, Reported
from pbt.core.exploit import Copy, Mutate, Stay, at_random, binary_tournament, never, t_test, truncation
from pbt.core.explore import follow, keep, perturb, resample
from pbt.core.fold import apply
from pbt.core.population import StateRef, View, by_score
from pbt.core.rng import Rng
from pbt.core.schedule import Schedule, Segment
from pbt.core.strategy import Plan
from pbt.domains import Float, Int
from pbt.errors import SpaceError, UsageError
from pbt.space import Space

SCORES = st.lists(st.none() | st.integers(0, 4).map(float), min_size=1, max_size=9)
COPYING = (truncation(0.2), truncation(0.5), truncation(0.0), binary_tournament(), t_test(), at_random(0.2))
STAYING = (lambda member, view, rng: Stay(), lambda member, view, rng: Mutate())


def decided(plan, view):
    """Member id to its decision."""
    return {decision.member: decision for decision in plan.decide(view, view.population).decisions}


def sources(decisions):
    """What matters of decisions apart from the draws: who starts from what, with whose hyperparameters."""
    return {id_: (d.kind, d.donor, d.start, d.hparams_from) for id_, d in decisions.items()}


# One round of eleven members, in full: the rules below each table give every column but the draws, which are recorded.
#
#    id  score   rank  kind        donor  lr before   factor  lr after
TRUNCATION = """
     0  0.50       5  continue        -       0.001        -     0.001
     1  0.10      10  exploit         2       0.002      2.0     0.006
     2  0.90       1  continue        -       0.003        -     0.003
     3  0.40       7  continue        -       0.004        -     0.004
     4  0.80       2  continue        -       0.005        -     0.005
     5  failed     -  replace         8       0.006      0.5    0.0045
     6  0.50       6  continue        -       0.007        -     0.007
     7  0.20       9  exploit         4       0.008      2.0     0.010
     8  0.60       4  continue        -       0.009        -     0.009
     9  0.30       8  continue        -       0.010        -     0.010
    10  0.70       3  continue        -       0.011        -     0.011
"""
# A fifth of eleven is two: ranks 9 and 10 copy one of ranks 1 and 2. The failed member copies one of the better half,
# ranks 1 to 5. The donor's lr is multiplied by 0.5 or 2. All others go on; of the tie the lower id ranks first.

TOURNAMENT = """
     0  0.50       5  continue        -       0.001        -     0.001
     1  0.10      10  exploit         4       0.002      2.0     0.010
     2  0.90       1  continue        -       0.003        -     0.003
     3  0.40       7  continue        -       0.004        -     0.004
     4  0.80       2  continue        -       0.005        -     0.005
     5  failed     -  replace         8       0.006      0.5    0.0045
     6  0.50       6  continue        -       0.007        -     0.007
     7  0.20       9  exploit         3       0.008      2.0     0.008
     8  0.60       4  continue        -       0.009        -     0.009
     9  0.30       8  exploit        10       0.010      2.0     0.022
    10  0.70       3  exploit         4       0.011      0.5    0.0025
"""
# Each met one other: who met a better one copied it (rank 10 a 2, 9 a 7, 8 a 3, 3 a 2), all others met a worse one.


def rows(table):
    """The table's columns: id, score, rank, kind, donor, lr before, factor, lr after."""
    for line in table.strip().splitlines():
        yield [None if word in ("-", "failed") else word if word.isalpha() else float(word) for word in line.split()]


@pytest.mark.parametrize(
    ("exploit", "table"), [(truncation(0.2), TRUNCATION), (binary_tournament(), TOURNAMENT)], ids=["truncation", "bt"]
)
def test_golden_trace(view_of, member_of, exploit, table):
    """A whole round under a fixed seed, to the last draw: the table is the algorithm."""
    space = Space({"lr": Float(1e-4, 1.0, "log")})
    expected = list(rows(table))
    members = [member_of(int(id_), score, hparams={"lr": lr}) for id_, score, _, _, _, lr, _, _ in expected]
    view = view_of(members, space=space, seed=1)
    decisions = decided(Plan(exploit=exploit, explore=perturb((0.5, 2.0))), view)
    assert list(decisions) == [member.id for member in members]
    for id_, _, rank, kind, donor, _, factor, after in expected:
        decision = decisions[id_]
        assert view.position.get(id_) == (None if rank is None else rank - 1)
        assert (decision.kind, decision.donor, decision.round) == (kind, donor, 2)
        assert decision.draws == ({} if factor is None else {"lr": factor})
        assert decision.hparams == {"lr": pytest.approx(after)}
        source = id_ if donor is None else donor
        assert (decision.start, decision.step, decision.hparams_from) == (StateRef(source, 1), 10, source)
        assert decision.scores == (() if donor is None else view.member(donor).scores)


class TestInherit:
    #  inherit      state of  hparams of  scores
    TABLE = (
        ("both", 1, 1, (0.9,)),
        ("state", 1, 0, (0.9,)),
        ("hparams", 0, 1, ()),
    )

    @pytest.mark.parametrize(("inherit", "state_of", "hparams_of", "scores"), TABLE)
    def test_what_a_copy_takes(self, view_of, member_of, inherit, state_of, hparams_of, scores):
        """State and hyperparameters come from where `inherit` says; both sources are named, and step fits state."""
        view = view_of(
            [
                member_of(0, 0.1, step=10, hparams={"lr": 0.01, "decay": 0.1}),
                member_of(1, 0.9, step=30, series=(0.8, 0.9)),
            ]
        )
        decision = decided(Plan(exploit=truncation(0.5), explore=perturb((2.0,)), inherit=inherit), view)[0]
        assert (decision.kind, decision.donor) == ("exploit", 1)
        assert (decision.start, decision.hparams_from) == (StateRef(state_of, 1), hparams_of)
        assert (decision.step, decision.scores) == (view.member(state_of).step, scores)
        assert decision.series == ((0.8, 0.9) if scores else ())
        assert decision.hparams == {name: 2 * value for name, value in view.member(hparams_of).hparams.items()}
        member = apply(view, [Decided(decision=decision)]).member(0)
        assert (member.scores, member.inherited) == (((0.9,), True) if scores else ((0.1,), False))
        assert member.copied_at == decision.step

    @pytest.mark.parametrize("inherit", ["both", "state", "hparams"])
    def test_a_failed_member_takes_everything(self, view_of, inherit):
        """Neither state nor values of a failed member are kept, whatever `inherit` says."""
        decision = decided(Plan(explore=keep(), inherit=inherit), view_of([None, 0.9]))[0]
        assert (decision.start, decision.hparams_from, decision.donor) == (StateRef(1, 1), 1, 1)
        assert (decision.kind, decision.scores) == ("replace", (0.9,))


class TestOlderStates:
    def past(self, member_of, round_, **fields):
        return member_of(1, round_ / 10, round=round_, step=10 * round_, state=StateRef(1, round_), **fields)

    def test_everything_is_read_from_the_moment_of_the_state(self, view_of, member_of):
        """An older state brings the step, scores and values that belong to it, not the donor's of now."""
        old = self.past(member_of, 2, hparams={"lr": 0.5, "decay": 0.2})
        view = view_of(
            [member_of(0, 0.1, round=4), self.past(member_of, 4)],
            lookback=3,
            history={1: (old, self.past(member_of, 3), self.past(member_of, 4))},
        )

        def back(member, view, rng):
            return Copy(donor=1, state=StateRef(1, 2)) if member.id == 0 else Stay()

        decision = decided(Plan(exploit=back, explore=keep(), lookback=3), view)[0]
        assert (decision.start, decision.step, decision.scores) == (StateRef(1, 2), 20, (0.2,))
        assert decision.hparams == {"lr": 0.5, "decay": 0.2}

    def test_a_state_out_of_sight_is_refused(self, view_of):
        """A state that is not among the reports that the plan may see is an error that names the remedy."""
        plan = Plan(exploit=lambda member, view, rng: Copy(donor=1, state=StateRef(1, 0)))
        with pytest.raises(UsageError, match="raise the plan's lookback"):
            decided(plan, view_of([0.1, 0.9]))


class TestBurnIn:
    @pytest.mark.parametrize("exploit", [truncation(0.5), never(), STAYING[1]])
    def test_nobody_copies_or_changes_before(self, view_of, exploit):
        """Up to the step of the burn-in members go on unchanged; from it on they do not."""
        view = view_of([0.1, 0.9])  # both at step 10
        plan = Plan(exploit=exploit, explore=perturb((2.0,)), burn_in=11)
        assert {d.kind for d in decided(plan, view).values()} == {"continue"}
        assert all(d.hparams == view.member(id_).hparams for id_, d in decided(plan, view).items())
        assert decided(replace(plan, burn_in=10), view)[0].kind in ("exploit", "explore")

    def test_a_failed_member_is_replaced_all_the_same(self, view_of):
        """Burn-in does not keep a failed member from being replaced."""
        assert decided(Plan(burn_in=1000), view_of([0.5, None, 0.1]))[1].kind == "replace"


class TestFailure:
    @pytest.mark.parametrize("exploit", [*COPYING, *STAYING])
    @given(SCORES, st.integers(0, 99))
    def test_failed_members_are_replaced_under_every_exploit(self, view_of, exploit, scores, seed):
        """Every failed member copies one of the better half of the healthy, if there is one, else it retires."""
        view = view_of(scores, seed=seed)
        proposal = Plan(exploit=exploit).decide(view, view.population)
        failed = [member.id for member in view.population if member.status == "failed"]
        replaced = {d.member: d.donor for d in proposal.decisions if d.kind == "replace"}
        if view.ranking:
            assert sorted(replaced) == failed
            assert all(2 * view.position[donor] < len(view.ranking) for donor in replaced.values())
            assert not proposal.retirements
        else:
            assert not proposal.decisions
            assert [retired.member for retired in proposal.retirements] == failed

    def test_beyond_the_plans_own_number(self, view_of):
        """Failed members are replaced in addition to the worst n, not in their place."""
        kinds = Counter(
            d.kind for d in decided(Plan(exploit=truncation(0.2)), view_of([None] * 3 + [*range(7)])).values()
        )
        assert kinds == {"replace": 3, "exploit": 2, "continue": 5}

    def test_every_one_of_the_better_half_may_be_the_donor(self, view_of):
        """The donor of a failed member is drawn from the better half, all of it."""
        donors = Counter(decided(Plan(), view_of([None, 1, 2, 3, 4, 5], seed=seed))[0].donor for seed in range(300))
        assert set(donors) == {3, 4, 5}
        assert min(donors.values()) > 60

    def test_under_never_a_failed_member_retires(self, view_of):
        """Where nobody copies, a failed member leaves, and the others go on."""
        proposal = Plan(exploit=never(), explore=keep()).decide(view_of([0.5, None]), view_of([0.5, None]).population)
        assert [(r.member, r.round) for r in proposal.retirements] == [(1, 1)]
        assert [d.member for d in proposal.decisions] == [0]

    @pytest.mark.parametrize("exploit", [*COPYING, never()])
    def test_a_population_lost_is_retired(self, view_of, exploit):
        """When all have failed, all retire and nothing is decided."""
        view = view_of([None, None, None])
        proposal = Plan(exploit=exploit).decide(view, view.population)
        assert [retired.member for retired in proposal.retirements] == [0, 1, 2]
        assert not proposal.decisions


class TestOneView:
    def test_a_chain_of_copies_in_one_wave(self, view_of):
        """A copies B while B copies C: A gets what B was before, as everything is read before anything is applied."""
        view = view_of([0.1, 0.2, 0.3])
        plan = Plan(
            exploit=lambda member, view, rng: Copy(donor=member.id + 1) if member.id < 2 else Stay(), explore=keep()
        )
        after = apply(view, [Decided(decision=decision) for decision in decided(plan, view).values()])
        assert [member.state for member in after.members] == [StateRef(1, 1), StateRef(2, 1), StateRef(2, 1)]
        assert [member.scores for member in after.members] == [(0.2,), (0.3,), (0.3,)]
        assert [m.hparams for m in after.members] == [view.members[i].hparams for i in (1, 2, 2)]

    @given(SCORES, st.sampled_from((*COPYING, never)), st.randoms())
    def test_the_order_of_arrival_does_not_matter(self, view_of, scores, exploit, random):
        """Any order of the ready members, and asking for each alone, gives the same decisions."""
        view, plan = view_of(scores), Plan(exploit=exploit)
        expected = decided(plan, view)
        ready = list(view.population)
        random.shuffle(ready)
        assert {d.member: d for d in plan.decide(view, ready).decisions} == expected
        alone = [decision for member in ready for decision in plan.decide(view, [member]).decisions]
        assert {decision.member: decision for decision in alone} == expected

    @given(SCORES, st.sampled_from(COPYING))
    def test_deciding_is_pure(self, view_of, scores, exploit):
        """Deciding twice gives the same, changes nothing in the view, and uses no global randomness."""
        view, plan = view_of(scores), Plan(exploit=exploit, explore=resample())
        before = repr(view)
        random.seed(1)
        first = plan.decide(view, view.population)
        random.seed(2)
        assert plan.decide(view, view.population) == first
        assert repr(view) == before

    def test_seed_round_and_member_are_in_every_draw(self, view_of, member_of):
        """Another seed, round or member draws other values."""
        plan = Plan(exploit=STAYING[1], explore=resample())
        drawn = [
            decided(plan, view_of([member_of(id_, 0.5, round=round_)], seed=seed))[id_].hparams["lr"]
            for seed, round_, id_ in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1))
        ]
        assert len(set(drawn)) == 4


class TestSymmetries:
    @given(SCORES, st.sampled_from((truncation(0.2), truncation(0.5), binary_tournament())), st.integers(0, 99))
    def test_minimizing_is_maximizing_the_negative(self, view_of, scores, exploit, seed):
        """An ascending rank over scores decides as the default one over negated scores, ties included."""
        negated = view_of([None if score is None else -score for score in scores], seed=seed)
        plan = Plan(exploit=exploit)
        mirror = replace(plan, rank=lambda members: sorted(members, key=lambda member: (member.score, member.id)))
        a, b = decided(mirror, view_of(scores, seed=seed)), decided(plan, negated)
        assert sources(a) == sources(b)
        assert [d.hparams for d in a.values()] == [d.hparams for d in b.values()]

    @given(st.lists(st.integers(0, 99), min_size=2, max_size=7, unique=True), st.randoms())
    def test_permuting_ids_permutes_the_results(self, view_of, member_of, scores, random):
        """Without ties, members under other ids do the same to each other (here one replaces one: nothing is drawn)."""
        names = list(range(len(scores)))
        random.shuffle(names)
        values = [{"lr": 0.01 * (i + 1), "decay": 0.5} for i in range(len(scores))]
        plan = Plan(exploit=truncation(0.2), explore=perturb((0.5,)))
        plain = decided(plan, view_of([member_of(i, s, hparams=values[i]) for i, s in enumerate(scores)]))
        renamed_members = [member_of(names[i], s, hparams=values[i]) for i, s in enumerate(scores)]
        renamed = decided(plan, view_of(sorted(renamed_members, key=lambda member: member.id)))
        for i, decision in plain.items():
            other = renamed[names[i]]
            assert other.hparams == decision.hparams
            assert other.donor == (None if decision.donor is None else names[decision.donor])
            assert other.start == StateRef(names[decision.start.member], 1)

    @given(SCORES, st.sampled_from([exploit for exploit in COPYING if exploit != t_test()]), st.integers(0, 99))
    def test_the_best_member_is_never_overwritten(self, view_of, scores, exploit, seed):
        """Whoever ranks first goes on from its own state."""
        view = view_of(scores, seed=seed)
        if view.ranking:
            best = view.ranking[0]
            decision = decided(Plan(exploit=exploit), view)[best.id]
            assert (decision.start, decision.donor, decision.hparams_from) == (best.state, None, best.id)

    @pytest.mark.parametrize("plan", [Plan(), Plan(exploit=truncation(0.0)), Plan(exploit=never(), explore=keep())])
    def test_one_member_or_no_fraction_is_ordinary_training(self, view_of, plan):
        """A population of one goes on unchanged for ever under any plan that changes only what was copied."""
        decision = decided(plan, view_of([0.5]))[0]
        assert (decision.kind, decision.start, decision.draws) == ("continue", StateRef(0, 1), {})
        assert decision.hparams == view_of([0.5]).member(0).hparams


class TestKinds:
    @pytest.mark.parametrize(
        ("choice", "explore", "kind"),
        [
            (Stay(), perturb(), "continue"),
            (Mutate(), perturb(), "explore"),
            (Mutate(), keep, "continue"),
            (Copy(donor=1), keep(), "exploit"),
        ],
    )
    def test_the_kind_says_what_happened(self, view_of, choice, explore, kind):
        """Unchanged is `continue`, own values changed `explore`, and only `exploit` has a donor."""
        decision = decided(Plan(exploit=lambda member, view, rng: choice, explore=explore), view_of([0.1, 0.9]))[0]
        assert decision.kind == kind
        assert decision.donor == (1 if kind == "exploit" else None)
        assert bool(decision.draws) == (kind == "explore")

    def test_what_a_rule_returns_is_checked(self, view_of):
        """An exploit that returns nothing and an explore that leaves the space are errors that say so."""
        with pytest.raises(UsageError, match="expected exploit to return Copy, Mutate or Stay, got None"):
            decided(Plan(exploit=lambda member, view, rng: None), view_of([0.1, 0.9]))
        outside = Plan(exploit=STAYING[1], explore=lambda hparams, member, view, rng: ({"lr": 9.0, "decay": 0.5}, {}))
        with pytest.raises(SpaceError, match="explored hyperparameters of member 0: 'lr' must be float"):
            decided(outside, view_of([0.1, 0.9]))

    def test_rules_see_the_plans_rank(self, view_of):
        """The view that exploit and explore get is ordered by the plan's rank."""
        seen = []

        def exploit(member, view, rng):
            seen.append(view.ranking[0].id)
            return Stay()

        decided(Plan(exploit=exploit, rank=lambda members: by_score(members)[::-1]), view_of([0.1, 0.5, 0.9]))
        assert seen == [0, 0, 0]


class TestPlan:
    def test_begin_takes_given_values_first_and_then_draws(self):
        """The first members start with what was given, the others with draws keyed by their ids."""
        view = View(seed=4, space=Space({"lr": Float(1e-4, 1.0, "log"), "batch": Int(1, 64)}))
        starts = Plan().begin(view, 4, [{"batch": 8, "lr": 0.1}]).starts
        assert [start.member for start in starts] == [0, 1, 2, 3]
        assert list(starts[0].hparams.items()) == [("lr", 0.1), ("batch", 8)]
        assert all(view.space.contains(start.hparams) for start in starts)
        assert len({start.hparams["lr"] for start in starts}) == 4
        assert Plan().begin(view, 2, []).starts[1] == starts[1]
        with pytest.raises(SpaceError, match=r"initial values of member 0: 'batch' must be int 1 \.\. 64"):
            Plan().begin(view, 1, [{"lr": 0.1, "batch": 65}])

    def test_next_ready(self):
        """A number is added to the step, a function is called and must give a later step."""
        assert Plan(interval=5).next_ready(12) == 17
        assert Plan(interval=lambda step: (step // 10 + 1) * 10).next_ready(12) == 20
        with pytest.raises(UsageError, match=r"interval\(12\) to give a later step, .*, got 12"):
            Plan(interval=lambda step: step).next_ready(12)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"mode": "both"}, "expected mode 'sync' or 'async', got 'both'"),
            ({"inherit": "weights"}, "expected inherit 'both', 'state' or 'hparams', got 'weights'"),
            ({"interval": 0}, "expected an interval of at least 1 step, got 0"),
            ({"burn_in": -1}, r"burn_in \(-1\) and lookback \(0\) must not be negative"),
            ({"lookback": -2}, r"burn_in \(0\) and lookback \(-2\) must not be negative"),
        ],
    )
    def test_settings_out_of_range(self, fields, message):
        """A plan that makes no sense is refused, with what was expected and what was found."""
        with pytest.raises(UsageError, match=message):
            Plan(**fields)

    def test_describe_tells_plans_apart(self):
        """The description names every setting in plain values; functions are named by their place."""
        plan = Plan(exploit=truncation(0.25), explore=perturb((0.8, 1.25)), interval=100)
        assert plan.describe() == {
            "name": "Plan",
            "exploit": {"name": "Truncation", "fraction": 0.25, "ties": "stay"},
            "explore": {"name": "Perturb", "factors": [0.8, 1.25]},
            "interval": 100,
            "burn_in": 0,
            "mode": "sync",
            "inherit": "both",
            "rank": "pbt.core.population:by_score",
            "lookback": 0,
            "age_gap": 0,
        }
        schedule = Schedule((Segment(start=0, stop=9, hparams={"lr": 0.1}),))
        described = Plan(exploit=never(), explore=follow(schedule)).describe()
        segment = {"name": "Segment", "start": 0, "stop": 9, "hparams": {"lr": 0.1}}
        assert described["explore"]["schedule"] == {"name": "Schedule", "segments": [segment]}

    def test_a_plan_keeps_no_states_of_its_own(self, view_of):
        """A plan copies only what members stand on: nothing else has to be retained."""
        assert Plan().retain(view_of([0.1, 0.9])) == set()


@pytest.mark.gate
@pytest.mark.parametrize(("num_runs", "tolerance"), [(50, 0.6), pytest.param(200, 0.15, marks=pytest.mark.slow)])
def test_distinct_ancestors_under_noise(num_runs, tolerance):
    """With scores of pure noise, N=20 and q=0.2: 16, 8.75, 5.6, 3.3 and 1.7 founders after 1, 5, 10, 20, 50 rounds."""
    plan, rounds = Plan(exploit=truncation(0.2), explore=keep()), (1, 5, 10, 20, 50)
    space = Space({"lr": Float(0.0, 1.0)})
    survivors = np.zeros(len(rounds))
    for seed in range(num_runs):
        empty = View(seed=seed, space=space)
        view = apply(empty, plan.begin(empty, 20, []).starts)
        founder = list(range(20))
        for round_ in range(1, rounds[-1] + 1):
            wave = [
                Reported(
                    member=i,
                    round=round_,
                    step=round_,
                    scores=(Rng(seed, "noise", round_, i).random(),),
                    state=StateRef(i, round_),
                    digest="",
                )
                for i in range(20)
            ]
            view = apply(view, wave)
            decisions = plan.decide(view, view.population).decisions
            founder = [founder[decision.start.member] for decision in decisions]
            view = apply(view, [Decided(decision=decision) for decision in decisions])
            if round_ in rounds:
                survivors[rounds.index(round_)] += len(set(founder)) / num_runs
    assert survivors.tolist() == pytest.approx([16, 8.75, 5.6, 3.3, 1.7], abs=tolerance)
