"""The controls: what each leaves out of a plan, and that nothing else of the plan is touched."""

import math
from dataclasses import replace

import pytest

import pbt
from pbt.core.schedule import Schedule, Segment
from pbt.errors import UsageError
from pbt.store.event_rows import from_json, to_json
from pbt.strategies import controls
from pbt.strategies.base import Rounds
from pbt.testing.invariants import violations
from pbt.testing.problems import NQM, blocks, nqm_loss
from pbt.testing.strategies import StrategyContract

PLAN = pbt.Plan(exploit=pbt.truncation(0.3), explore=pbt.perturb((0.5, 2.0)), interval=7, burn_in=2, inherit="hparams")
SMALL = NQM | {"population": 6, "rounds": 4}


def doubled(step):
    """An interval that is a function."""
    return 2 * step + 1


class TestAlong(StrategyContract):
    """Following a schedule keeps to the laws of every strategy."""

    def make_strategy(self):
        values = ({"lr": lr, "decay": 0.0, "layers": 2, "rule": "b"} for lr in (0.5, 0.01))
        segments = (Segment(start=0, stop=2, hparams=next(values)), Segment(start=2, stop=9, hparams=next(values)))
        return controls.Along(schedule=Schedule(segments))

    def test_failed_members_are_replaced(self) -> None:
        """Nobody is copied, so whoever failed leaves."""
        met = 0
        for moment in self._run(lambda member: None if member.id == member.round % 3 else 0.5):
            failed = {member.id for member in moment.ready if member.status == "failed"}
            assert {retired.member for retired in moment.proposal.retirements} == failed
            met += len(failed)
        assert met


def test_a_control_differs_from_the_plan_in_one_thing() -> None:
    """No evolution, selection only and explore only keep interval, burn-in, mode and what is inherited."""
    assert controls.no_evolution(PLAN) == replace(PLAN, exploit=pbt.never(), explore=pbt.keep())
    assert controls.selection_only(PLAN) == replace(PLAN, explore=pbt.keep())
    assert controls.explore_only(PLAN) == replace(PLAN, exploit=pbt.at_random(0.3))
    assert controls.explore_only(PLAN, 0.1) == replace(PLAN, exploit=pbt.at_random(0.1))


def test_a_strategy_of_another_kind_lends_its_rounds() -> None:
    """Where the experiment has another algorithm the controls are those of the default plan with its rounds."""
    like = Rounds(interval=5)
    assert controls.selection_only(like) == pbt.Plan(explore=pbt.keep(), interval=5)
    assert controls.explore_only(like) == pbt.Plan(exploit=pbt.at_random(0.2), interval=5)
    still = pbt.Plan(exploit=pbt.never(), explore=pbt.keep(), interval=doubled)
    assert controls.evolving(still) == pbt.Plan(interval=doubled)


def test_no_evolution_changes_nothing() -> None:
    """No member ever copies, or trains with other values than those it was born with."""
    run = pbt.run(**SMALL | {"plan": controls.no_evolution(SMALL["plan"])})
    assert {decision.kind for decision in run.tree.decisions.values()} == {"continue"}
    assert len(run.tree.founders([member.state for member in run.view.population])) == 6


def test_selection_only_draws_no_new_values() -> None:
    """Members are copied, and every value is one that somebody was born with."""
    run = pbt.run(**SMALL | {"plan": controls.selection_only(SMALL["plan"])})
    born = {birth.hparams["lr"] for birth in run.tree.births.values()}
    assert any(decision.donor is not None for decision in run.tree.decisions.values())
    assert {decision.hparams["lr"] for decision in run.tree.decisions.values()} <= born


def test_explore_only_changes_as_many_as_truncation() -> None:
    """Each round as many members as truncation would replace explore, and nobody copies."""
    run = pbt.run(**SMALL | {"plan": controls.explore_only(SMALL["plan"], 0.5)})
    assert all(decision.donor is None for decision in run.tree.decisions.values())
    for round_ in (2, 3, 4):
        kinds = [decision.kind for (_, opened), decision in run.tree.decisions.items() if opened == round_]
        assert kinds.count("explore") == 3


@pytest.mark.gate
def test_replay_gives_what_the_schedule_gives() -> None:
    """Gate N3: on a deterministic task every member of a replay reaches what the winner reached."""
    found = pbt.run(**NQM, seed=3)
    plan = controls.replay(NQM["plan"], found)
    again = pbt.run(**NQM | {"plan": plan, "seed": 99, "rounds": found.best.round})
    assert [member.score for member in again.view.population] == pytest.approx([found.best.score] * 20, abs=1e-12)
    assert nqm_loss(again.best_schedule) == pytest.approx(-found.best.score, abs=1e-12)


def test_final_holds_the_last_values() -> None:
    """All members train with the last values of the schedule from the first step on."""
    found = pbt.run(**SMALL, seed=4)
    assert len(found.best_schedule.segments) > 1
    run = pbt.run(**SMALL | {"plan": controls.final(SMALL["plan"], found), "seed": 2})
    assert {birth.hparams["lr"] for birth in run.tree.births.values()} == {found.best.hparams["lr"]}
    assert -run.best.score == pytest.approx(nqm_loss(blocks("lr", [found.best.hparams["lr"]], 80)), abs=1e-12)


def test_constant_is_made_of_a_run_without_evolution() -> None:
    """It holds that run's best values; a winner whose values changed makes none, and the message says what would do."""
    random = pbt.run(**SMALL | {"plan": controls.no_evolution(SMALL["plan"])})
    held = controls.constant(SMALL["plan"], random)
    assert [segment.hparams for segment in held.schedule.segments] == [random.best.hparams]
    with pytest.raises(UsageError, match=r"without evolution.*replay"):
        controls.constant(SMALL["plan"], pbt.run(**SMALL))


def test_following_goes_on_as_it_began(tmp_path) -> None:
    """A replay that is extended logs what a longer one logs in one go, and its directory is sound."""
    found = pbt.run(**SMALL)
    options = SMALL | {"plan": controls.replay(SMALL["plan"], found), "seed": 7}
    pbt.run(**options | {"rounds": 3}, run_dir=tmp_path / "run")
    resumed = pbt.run(**options, run_dir=tmp_path / "run", resume=True)
    whole = pbt.run(**options)
    assert [event for event in resumed.events if event.kind != "ended"] == [
        event for event in whole.events if event.kind != "ended"
    ]
    assert violations(tmp_path / "run") == []


@pytest.mark.parametrize("interval", [20, doubled])
def test_what_a_run_recorded_is_enough_to_go_on(interval) -> None:
    """A strategy that was described, written as JSON and read again is the same one, whatever its values are."""
    like = pbt.Plan(interval=interval)
    values = {"lr": 0.1 + 0.2, "n": 3, "rule": "b", "on": True, "tiny": math.ulp(0.0)}
    along = controls.Along(schedule=Schedule((Segment(start=0, stop=9, hparams=values),)), interval=interval)
    plain = from_json(to_json(along.describe(), "plan"))
    assert controls.along_again(like, plain) == along


@pytest.mark.parametrize("plain", [None, {}, {"name": "Plan"}])
def test_another_description_is_refused(plain) -> None:
    """What describes another strategy is no schedule to follow."""
    with pytest.raises(UsageError, match="follows a schedule"):
        controls.along_again(PLAN, plain)
