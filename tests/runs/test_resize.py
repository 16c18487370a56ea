"""A population that grows or shrinks when its run is resumed."""

import pytest

import pbt
from pbt import Choice, Float, Plan, Stop, truncation
from pbt.core.events import Born, Ended, Retired
from pbt.core.fold import empty_view, fold
from pbt.errors import UsageError
from pbt.report.data.figures import pictures
from pbt.report.data.members import member_table
from pbt.report.read import read_snapshot
from pbt.report.sentences import shows
from pbt.runs.engine import Observer
from pbt.runs.results import Run
from pbt.store.verify import verify_run
from pbt.strategies.registry import named
from pbt.testing.invariants import violations
from tests.helpers.command import pbt as call

SPACE = {"lr": Float(0.01, 1.0, "log"), "rule": Choice(["a", (1, 2)])}
GROWING = [
    pytest.param(name, marks=pytest.mark.long) for name in ("no-evolution", "backtracking", "gpbt-pl", "pb2-mix")
]
OWN = Plan(exploit=truncation(0.34), explore=pbt.perturb((0.5, 2.0)), interval=2)


def climb(hparams, state, steps, ctx):
    height = (state or {"height": 0.0})["height"] + steps * hparams["lr"]
    return {"height": height}, height


def train(path, population, rounds, plan=OWN, **options):
    options = {"resume": path.exists(), "changed_population": path.exists(), **options}
    return pbt.run(climb, SPACE, plan=plan, population=population, rounds=rounds, seed=3, run_dir=path, **options)


def check(path):
    """The log obeys all laws, its checkpoint is its fold, and each reader shows it."""
    assert violations(path) == []
    run = Run.open(path)
    assert fold(run.events, empty_view(run.meta)).members == run.view.members
    assert len(run.view.population) == run.meta["population"]
    assert len(member_table(read_snapshot(path)).rows) == len(run.view.members)
    assert verify_run(path) == []
    return run


@pytest.mark.parametrize("name", ["own", *GROWING])
def test_growing_and_shrinking(name, tmp_path):
    """New members start from states of the better half, the worst leave, and all others train on."""
    path, plan = tmp_path / "run", named(name, OWN, rounds=9)
    train(path, 6, 3, plan, stop=Stop(score=0.0) if name == "own" else None)
    before = Run.open(path).view
    grown = train(path, 9, 6, plan)
    births = [event for event in grown.events if isinstance(event, Born)][6:]
    assert [birth.member for birth in births] == [6, 7, 8]
    better = {member.state for member in before.ranking[: (len(before.ranking) + 1) // 2]}
    assert {birth.start for birth in births} <= better
    assert all(birth.step == 2 * birth.start.round for birth in births)
    assert all(member.round == 6 for member in grown.view.population)
    check(path)
    worst = {
        member.id
        for member in grown.view.ranked_by(plan.rank if isinstance(plan, Plan) else grown.view.rank).ranking[5:]
    }
    shrunk = train(path, 5, 9, plan)
    left = {event.member: event for event in shrunk.events if isinstance(event, Retired)}
    if name == "no-evolution":  # the other plans decide before the members leave, and a copy has its donor's score
        assert left.keys() == worst
    assert len(left) == 4
    assert all("reduced from 9 to 5" in event.why for event in left.values())
    assert shrunk.best.score == max(shrunk.history()["score"])
    assert [entry.details for entry in shrunk.journal() if entry.kind == "changed_population"] == [
        {"before": 6, "now": 9},
        {"before": 9, "now": 5},
    ]
    check(path)
    assert train(path, 5, 9, plan, changed_population=False).events == shrunk.events


def changed(path, executor, pieces):
    """The events of a run of 4 members that grows to 6 and shrinks to 3, without the ends of its pieces."""
    train(path, 4, 2)
    train(path, 6, 3, executor=executor)
    if pieces:
        train(path, 6, 4, changed_population=False)
    train(path, 6, 5, changed_population=False)
    train(path, 3, 6, executor=executor)
    return [event for event in Run.open(path).events if not isinstance(event, Ended)]


def test_a_change_is_a_function_of_the_log(tmp_path):
    """The same changes of the same run give the same events, however it is cut into pieces."""
    assert changed(tmp_path / "one", "inline", pieces=False) == changed(tmp_path / "two", "inline", pieces=True)


@pytest.mark.long
def test_a_change_is_the_same_on_processes(tmp_path):
    """The same changes give the same events in worker processes."""
    assert changed(tmp_path / "one", "inline", pieces=False) == changed(tmp_path / "two", "processes", pieces=True)


class Interruption(Observer):
    """Ends the run before its first round is logged."""

    def on_outcome(self, engine, outcome):
        raise RuntimeError("interrupted")


@pytest.mark.parametrize("population", [5, 2])
def test_before_the_first_round_a_change_is_another_start(population, tmp_path):
    """A population without a score grows by founders, as if it had started so; of a smaller one the first remain."""
    path = tmp_path / "run"
    with pytest.raises(RuntimeError, match="interrupted"):
        train(path, 3, 4, observers=[Interruption()])
    train(path, population, 4)
    assert Run.open(path).history() == train(tmp_path / "whole", population, 4).history()
    check(path)


def test_a_replay_of_a_member_that_was_added(tmp_path):
    """The ancestry of a new member leads to its donor's founder, and its schedule is replayed with the same bits."""
    plan = Plan(exploit=pbt.never(), explore=pbt.perturb((0.5, 2.0)), interval=2)
    train(tmp_path / "run", 3, 2, plan)
    run = train(tmp_path / "run", 8, 4, plan)
    snapshot = read_snapshot(run)
    assert " of 3 initial members" in shows("tree", pictures(snapshot), snapshot)
    for new in run.view.members[3:]:
        ancestry = run.ancestry(new.state)
        assert [state.step for state in ancestry] == [2, 4, 6, 8]
        assert ancestry[0].member == ancestry[1].member < 3 <= ancestry[2].member == new.id
        assert ancestry[-1].founder == ancestry[0].member
        replayed = pbt.replay(run, climb, member=new.id)
        assert replayed.history()["score"] == [state.score for state in ancestry]


def test_an_asynchronous_population(tmp_path):
    """Members with rounds left are added and removed; those that were added train to the same budget."""
    path, plan = tmp_path / "run", Plan(exploit=truncation(0.34), interval=2, mode="async")
    train(path, 4, 3, plan, stop=lambda view: view.round >= 2)
    grown = train(path, 7, 5, plan)
    assert len(grown.view.population) == 7
    assert {member.step for member in grown.view.population} == {10}
    shrunk = train(path, 2, 7, plan)
    assert {member.step for member in shrunk.view.population} == {14}
    check(path)


def test_what_cannot_change(tmp_path):
    """Without the argument, without rounds left and under a strategy of fixed size the refusal says what to do."""
    path = tmp_path / "run"
    train(path, 4, 2)
    events = Run.open(path).events
    with pytest.raises(UsageError, match=r"population = 4.*resumed with 6.*changed_population=True"):
        train(path, 6, 3, changed_population=False)
    with pytest.raises(UsageError, match=r"no round left.*add rounds"):
        train(path, 6, 2)
    assert Run.open(path).events == events
    assert Run.open(path).meta["population"] == 4
    other = tmp_path / "fire"
    plan = named("mf-pbt", OWN)
    train(other, 16, 2, plan)
    with pytest.raises(UsageError, match=r"MultipleFrequencies cannot change its number of members.*resume with 16"):
        train(other, 32, 3, plan)
    assert (Run.open(other).meta["population"], Run.open(other).meta["rounds"]) == (16, 2)


def test_the_command_line(tmp_path):
    """`--population` of `pbt resume`, and of `pbt run --resume`, changes the number of members."""
    (tmp_path / "task.py").write_text(
        "import pbt\n"
        "def train(hparams, state, steps, ctx):\n"
        "    return {'at': ctx.round}, hparams['lr']\n"
        "experiment = pbt.Experiment(task=train, space={'lr': pbt.Float(0, 1)}, population=3, rounds=2)\n"
    )
    call(tmp_path, "run", "task.py:experiment", "--out", "run")
    call(tmp_path, "resume", "run", "task.py:experiment", "--population", "5", "--rounds", "3")
    assert check(tmp_path / "run").meta["population"] == 5
    call(tmp_path, "resume", "run", "task.py:experiment", "--rounds", "4")
    call(tmp_path, "run", "task.py:experiment", "--out", "run", "--resume", "--population", "2", "--rounds", "5")
    assert check(tmp_path / "run").meta["population"] == 2
