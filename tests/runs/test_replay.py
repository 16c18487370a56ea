"""One fresh network along the ancestry of the winner: the same bits with the same seed."""

import random

import numpy as np
import pytest
import torch

import pbt
from pbt import Choice, Float, Placement, Plan, Run, perturb, truncation
from pbt.core.population import StateRef
from pbt.errors import PopulationLostError, RunError, RunExistsError, UsageError
from pbt.executors.inline import InlineExecutor
from pbt.runs.engine import Observer
from pbt.runs.replay import Cuts, compare, placement_of
from pbt.store.codec import digest
from pbt.store.memory import MemoryStore
from tests.pytorch.tasks import NET, Duel

PLAN = Plan(exploit=truncation(0.4), explore=perturb((0.7, 1.4)), interval=3)
NET_SPACE = {"lr": Float(1e-3, 0.3, "log"), "p": Float(0.1, 0.7), "smoothing": Float(0, 0.2)}
DUEL_SPACE = {"lr": Float(1e-3, 0.3, "log"), "other_lr": Float(1e-3, 0.3, "log"), "noise": Float(0, 0.2)}
DRAW_SPACE = {"rate": Float(0.1, 1.0), "rule": Choice(("up", "down")), "extra": Float(0, 1, when=("rule", "up"))}


def draw(hparams, state, steps, ctx):
    """Draws from every global generator and reads every field of the context: bits depend on who, when and how long."""
    place = np.zeros(4) if state is None else state["place"]
    for _ in range(steps):
        place = place + hparams["rate"] * np.random.standard_normal(4) + random.random()  # noqa: NPY002
        place += hparams.get("extra", 0.0) * float(torch.rand(()))
    place[0] += ctx.member + 0.1 * ctx.round + 0.01 * ctx.first_step
    return {"place": place}, {"score": float(place.sum()), "test_accuracy": 0.5}


TASKS = {
    "net": (NET, NET_SPACE, "minimize"),
    "duel": (Duel(), DUEL_SPACE, "maximize"),
    "draw": (draw, DRAW_SPACE, "maximize"),
}
TRAINED = [("net", "inline"), ("net", "vectorized"), ("duel", "inline"), ("draw", "inline")]


def begin(name, executor="inline", workers=1, **changes):
    task, space, objective = TASKS[name]
    arguments = {"plan": PLAN, "population": 5, "rounds": 8, "objective": objective, "seed": 5}
    return pbt.run(
        task, space, placement=pbt.Placement(executor=executor, workers=workers, threads=1), **arguments | changes
    )


def eventful(run):
    """The member whose ancestry has most hand-overs."""
    ids = [member.id for member in run.view.members]
    return max(ids, key=lambda id_: len({link.member for link in run.lineage(id_)}))


@pytest.mark.parametrize(("name", "executor"), TRAINED)
def test_the_same_seed_gives_the_same_bits(name, executor):
    """Through several hand-overs every round's state is that of its ancestor to the bit, whatever form the task has."""
    run = begin(name, executor)
    member = eventful(run)
    links = run.lineage(member)
    assert len({link.member for link in links}) >= 3
    again = pbt.replay(run, TASKS[name][0], member=member)
    found = compare(run, again, member)
    assert found.identical
    assert found.rounds == len(links) == 8
    assert found.original.scores == found.replayed.scores
    last = StateRef(links[-1].member, links[-1].round)
    assert digest(again.load_state(StateRef(0, 8))) == digest(run.load_state(last))


def test_a_replay_is_a_run_of_one_member(tmp_path):
    """On disk as in memory: the winner's rounds, steps, schedule and scores, under the one member 0, from the winner's
    run as it is read from its directory."""
    begin("net", run_dir=tmp_path / "run")
    run = Run.open(tmp_path / "run")
    kept = pbt.replay(run, NET, run_dir=tmp_path / "again")
    links = run.lineage()
    assert [(link.member, link.round) for link in kept.lineage()] == [(0, i) for i in range(1, len(links) + 1)]
    assert [link.step for link in kept.lineage()] == [link.step for link in links]
    assert [link.score for link in kept.lineage()] == [link.score for link in links]
    assert kept.best_schedule == run.best_schedule
    assert compare(run, kept).identical
    assert digest(kept.load_state()) == digest(run.load_state())
    assert Run.open(tmp_path / "again").events == pbt.replay(run, NET).events


@pytest.mark.usefixtures("warm")
def test_worker_processes_are_replayed_in_this_one():
    """What workers trained is repeated to the bit without workers."""
    run = begin("net", "processes", rounds=3, workers=2)
    assert placement_of(run).executor == "inline"
    assert compare(run, pbt.replay(run, NET)).identical
    assert compare(run, pbt.replay(run, NET, placement=Placement(executor="processes"))).identical


def test_another_seed_is_another_network():
    """Another seed follows the same schedule to other weights, round by round, and one at a time."""
    run = begin("net", "vectorized", rounds=4)
    other = pbt.replay(run, NET, seed=77)
    found = compare(run, other)
    assert found.same == 0
    assert other.meta["seed"] == 77
    assert other.schedule(0) == run.best_schedule
    assert placement_of(run, repeat=False).executor == "inline"
    assert pbt.replay(run, NET, seed=78).events != other.events


def test_a_replay_that_was_stopped_goes_on(tmp_path):
    """A replay that ends in the middle is resumed to the events of one that did not; a second start is refused."""

    class Stop(Observer):
        def on_commit(self, engine, events):
            if engine.view.round == 3:
                raise KeyboardInterrupt

    run = begin("draw")
    with pytest.raises(KeyboardInterrupt):
        pbt.replay(run, draw, run_dir=tmp_path / "again", observers=[Stop()])
    with pytest.raises(RunExistsError):
        pbt.replay(run, draw, run_dir=tmp_path / "again")
    with pytest.raises(UsageError, match="has not reached round 4"):
        compare(run, Run.open(tmp_path / "again"))
    resumed = pbt.replay(run, draw, run_dir=tmp_path / "again", resume=True)
    assert resumed.events == pbt.replay(run, draw).events
    with pytest.raises(UsageError, match="started with seed"):
        pbt.replay(run, draw, run_dir=tmp_path / "again", resume=True, seed=8)


def test_another_task_is_told_apart():
    """A task that is not the run's gives other digests from the first round on."""
    run = begin("draw")

    def other(hparams, state, steps, ctx):
        return {"place": np.zeros(1)}, 0.0

    assert compare(run, pbt.replay(run, other)).same == 0


def test_a_task_that_fails_loses_its_population():
    """A replay whose task raises ends with that error."""
    run = begin("draw")

    def broken(hparams, state, steps, ctx):
        raise ValueError("no luck")

    with pytest.raises(PopulationLostError, match="no luck"):
        pbt.replay(run, broken)


def test_what_cannot_be_replayed():
    """Nothing trained yet, a member that is not there, an executor that is not on record: errors that say so."""
    empty = Run(MemoryStore({"seed": 0, "space": {}}))
    with pytest.raises(RunError, match="no member has finished a round yet"):
        pbt.replay(empty, draw)
    with pytest.raises(RunError, match="no member has finished a round yet"):
        pbt.replay(empty, draw, member=1)
    run = begin("draw", InlineExecutor)
    with pytest.raises(UsageError, match="member 9 does not exist"):
        pbt.replay(run, draw, member=9)
    with pytest.raises(UsageError, match=r"custom executor \(custom\)"):
        pbt.replay(run, draw)
    assert compare(run, pbt.replay(run, draw, placement=Placement(executor="inline"))).identical
    with pytest.raises(UsageError, match="not recorded"):
        placement_of(empty)


def test_the_cuts_are_the_ancestors():
    """A replay is ready where the ancestors were, also where rounds differ in length, and behind them at every step."""
    assert [Cuts((3, 10, 12))(step) for step in (0, 2, 3, 9, 10, 12, 20)] == [3, 3, 10, 10, 12, 13, 21]
    run = begin("draw", plan=Plan(exploit=truncation(0.4), interval=lambda step: step + 2 + step % 3))
    again = pbt.replay(run, draw)
    assert [link.step for link in again.lineage(0)] == [link.step for link in run.lineage()]
    assert compare(run, again).identical


def test_a_run_without_rounds_in_step_is_replayed(tmp_path):
    """An asynchronous run's ancestry, in which round numbers may jump, is repeated to the bit."""
    run = begin("draw", plan=Plan(exploit=truncation(0.4), interval=2, mode="async"))
    member = eventful(run)
    assert compare(run, pbt.replay(run, draw, member=member), member).identical
