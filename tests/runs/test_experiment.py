"""The front door: what is refused before anything is written, what a resumed run may change, where arguments go."""

import contextlib
import inspect
import logging
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pbt
from pbt import Choice, Experiment, Float, Int, Placement, Plan, never, truncation
from pbt.core.events import Born, Decided, Ended, Failed, Reported
from pbt.errors import (
    DeviceError,
    PopulationLostError,
    RunExistsError,
    RunFormatError,
    SpaceError,
    TaskError,
    UsageError,
)
from pbt.executors.inline import InlineExecutor
from pbt.executors.retry import Limits
from pbt.runs.engine import Observer
from pbt.store.reader import RunReader

SPACE = {"lr": Float(0.01, 1.0, "log"), "width": Int(1, 9), "rule": Choice(("a", "b"))}


def train(hparams, state, steps, ctx):
    """A walk towards zero; smaller is better for `minimize`, the score is its distance."""
    place = np.ones(3) if state is None else state["place"]
    for step in range(ctx.first_step, ctx.first_step + steps):
        noise = np.random.default_rng(ctx.key("noise", ctx.member, step)).standard_normal(3)
        place = place * (1 - 0.1 * hparams["lr"]) + 0.01 * noise
    return {"place": place}, {"score": float(np.abs(place).sum()), "threads": ctx.threads}


def fail(hparams, state, steps, ctx):
    raise ValueError("always")


EXPERIMENT = Experiment(
    task=train, space=SPACE, plan=Plan(exploit=truncation(0.4), interval=2), population=4, rounds=3, seed=8
)


class Interrupt(Observer):
    """Ends a run after some commits, as a crash would."""

    def __init__(self, commits):
        self.commits = commits

    def on_commit(self, engine, events):
        self.commits -= 1
        if self.commits == 0:
            raise KeyboardInterrupt


def interrupted(experiment, path, commits=1):
    with pytest.raises(KeyboardInterrupt):
        experiment.run(path, observers=[Interrupt(commits)])


# Refused before anything is written


class Unbound:
    def build(self, hparams, ctx): ...
    def train(self, parts, hparams, steps, ctx): ...
    def evaluate(self, parts, ctx): ...


def named_objective(hparams, state, steps, ctx):
    """A task with a metric of a name that means something elsewhere."""
    state, metrics = train(hparams, state, steps, ctx)
    return state, {**metrics, "objective": "mine"}


class Checked:
    """A trainable that refuses its hyperparameters."""

    def trainer(self, device, threads):
        return train

    def check(self, hparams):
        raise TaskError("the hyperparameter 'lr' has no effect")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"task": 3}, TaskError, "expected a task: a function"),
        ({"task": Unbound()}, TaskError, "Unbound needs a `bind` table"),
        ({"task": Checked()}, TaskError, "'lr' has no effect"),
        ({"space": {"lr": 0.1}}, SpaceError, "expected Float, Int or Choice, got 0.1"),
        ({"space": {"a b": Float(0, 1)}}, SpaceError, "expected letters, digits"),
        (
            {"objective": "max"},
            UsageError,
            "expected objective 'maximize' or 'minimize', or a list of one for each score, got 'max'",
        ),
        ({"population": 0}, UsageError, "at least 1 member"),
        ({"rounds": 0}, UsageError, "at least 1 round"),
        ({"seed": "7"}, UsageError, "seed to be a whole number"),
        ({"initial": [{"lr": 0.1, "width": 2, "rule": "c"}]}, SpaceError, "initial values of member 0: 'rule' must be"),
        ({"initial": [{"lr": 5.0}]}, SpaceError, "initial values of member 0: 'lr' must be"),
        ({"initial": [{"lr": 0.1, "width": 2, "rule": "a"}] * 5}, UsageError, "one per member, got 5"),
        ({"placement": "process"}, UsageError, "unknown executor 'process'; did you mean 'processes'?"),
        ({"placement": None}, UsageError, "expected placement to be a Placement or the name of an executor, got None"),
        ({"placement": Placement(device="cuda:77")}, DeviceError, "'cuda:77' does not exist: expected one of cpu"),
        ({"placement": Placement(device="tpu")}, DeviceError, "'tpu' does not exist"),
        ({"task": lambda *_: (None, 1.0), "placement": "processes"}, TaskError, "top level of a module"),
    ],
)
def test_refused_before_anything_is_written(changes, error, message, tmp_path) -> None:
    """A run that cannot be done as asked is refused with the remedy, and no run directory is left."""
    with pytest.raises(error, match=re.escape(message)):
        pbt.run(**({"task": train, "space": SPACE, "population": 4, "run_dir": tmp_path / "run"} | changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["workers", "threads", "members_per_program"])
def test_a_placement_counts_from_one(name) -> None:
    """A number of workers, threads or members below one is refused, with its name."""
    with pytest.raises(UsageError, match=f"at least 1 of {name}, got 0"):
        Placement(**{name: 0})


def test_cuda_where_there_is_none(tmp_path, monkeypatch) -> None:
    """`cuda` on a machine without one is an error that says what there is."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(DeviceError, match="'cuda' does not exist: expected one of cpu"):
        pbt.run(train, SPACE, placement=pbt.Placement(device="cuda"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_devices_are_dealt_round_robin(monkeypatch) -> None:
    """Workers get the devices in turn; the inline executor the first; a worker more than there are members none."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert Placement(device="cuda", workers=3).resolve(8).devices == ("cuda:0", "cuda:1", "cuda:0")
    assert Placement(device="cuda").resolve(8).devices == ("cuda:0", "cuda:1")
    assert Placement(device="cuda:1, cpu").resolve(8).devices == ("cuda:1", "cpu")
    assert Placement(device="cpu", workers=9).resolve(2).devices == ("cpu", "cpu")


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_that_holds_something(resume, tmp_path) -> None:
    """A directory with other things in it is not written to, with or without `resume`."""
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunExistsError):
        EXPERIMENT.run(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_that_is_there(tmp_path) -> None:
    """A second run in the same place is refused, and the first one is as it was."""
    events = EXPERIMENT.run(tmp_path / "run").events
    with pytest.raises(RunExistsError):
        EXPERIMENT.run(tmp_path / "run")
    assert pbt.Run.open(tmp_path / "run").events == events


# Where it is kept


def test_in_memory_as_on_disk(tmp_path) -> None:
    """A run without a directory gives the log, and the states, of one with a directory."""
    kept, loose = EXPERIMENT.run(tmp_path / "run"), EXPERIMENT.run()
    assert loose.path is None
    assert kept.path == tmp_path / "run"
    assert loose.events == kept.events
    assert loose.best == kept.best
    assert np.array_equal(loose.load_state()["place"], kept.load_state()["place"])


def test_what_is_recorded(tmp_path) -> None:
    """The run directory says what the run was made of."""
    first = {"lr": 0.5, "width": 3, "rule": "b"}
    experiment = replace(EXPERIMENT, initial=[first], objective="minimize", placement=Placement(threads=2))
    meta = experiment.run(tmp_path / "run", application={"name": "mine", "version": 3}).meta
    expected = {"seed": 8, "population": 4, "rounds": 3, "objective": "minimize", "initial": [first]}
    assert {name: meta[name] for name in expected} == expected
    assert meta["application"] == {"name": "mine", "version": 3}
    assert meta["task"] == "tests.runs.test_experiment:train"
    assert meta["plan"]["exploit"] == {"name": "Truncation", "fraction": 0.4, "ties": "stay"}
    assert pbt.Space.from_dict(meta["space"]) == pbt.Space(SPACE)
    assert (meta["place"]["executor"], meta["place"]["threads"], meta["place"]["device"]) == ("inline", 2, "cpu")


def test_resume_starts_what_is_not_there(tmp_path) -> None:
    """`resume` where nothing is yet begins the run."""
    assert EXPERIMENT.run(tmp_path / "run", resume=True).events == EXPERIMENT.run().events


@pytest.mark.parametrize("left", [b"", None])
def test_resume_where_only_the_creation_was_begun(left, tmp_path) -> None:
    """A run whose creation was interrupted is begun; a database of something else is refused, untouched."""
    path = tmp_path / "run"
    path.mkdir()
    if left is not None:
        (path / "run.db").write_bytes(left)
        assert EXPERIMENT.run(path, resume=True).events == EXPERIMENT.run().events
        return
    with contextlib.closing(sqlite3.connect(path / "run.db")) as connection:
        connection.execute("CREATE TABLE thesis (page)")
    before = (path / "run.db").read_bytes()
    with pytest.raises(RunFormatError, match="a database of another program"):
        EXPERIMENT.run(path, resume=True)
    assert (path / "run.db").read_bytes() == before


# Resuming


@pytest.mark.parametrize("commits", [1, 2, 3])
def test_resumed_as_undisturbed(commits, tmp_path) -> None:
    """A run that was interrupted after any round, and resumed, logs what an undisturbed one logs."""
    interrupted(EXPERIMENT, tmp_path / "run", commits)
    assert EXPERIMENT.run(tmp_path / "run", resume=True).events == EXPERIMENT.run().events


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 9),
        ("population", 5),
        ("objective", "minimize"),
        ("plan", Plan(exploit=truncation(0.3), interval=2)),
        ("plan", Plan(exploit=truncation(0.4), interval=3)),
        ("space", {**SPACE, "lr": Float(0.01, 0.5, "log")}),
        ("initial", [{"lr": 0.5, "width": 3, "rule": "b"}]),
    ],
)
def test_another_experiment_is_not_resumed(name, value, tmp_path) -> None:
    """What decisions depend on cannot change within a run: refused, naming what differs, and nothing is logged."""
    interrupted(EXPERIMENT, tmp_path / "run")
    events = RunReader(tmp_path / "run").events()
    with pytest.raises(UsageError, match=rf"started with {name}\S* = "):
        replace(EXPERIMENT, **{name: value}).run(tmp_path / "run", resume=True)
    assert RunReader(tmp_path / "run").events() == events
    assert EXPERIMENT.run(tmp_path / "run", resume=True).events == EXPERIMENT.run().events


def test_extended(tmp_path) -> None:
    """More rounds extend a finished run to what the longer run is; fewer are refused."""
    EXPERIMENT.run(tmp_path / "run")
    longer = replace(EXPERIMENT, rounds=5)
    extended = longer.run(tmp_path / "run", resume=True)
    rows = [event for event in extended.events if not isinstance(event, Ended)]
    assert rows == [event for event in longer.run().events if not isinstance(event, Ended)]
    assert extended.meta["rounds"] == 5
    with pytest.raises(UsageError, match="at least the 5 rounds"):
        EXPERIMENT.run(tmp_path / "run", resume=True)
    assert longer.run(tmp_path / "run", resume=True).events == extended.events


def test_a_strategy_begins_once_per_start(tmp_path, monkeypatch) -> None:
    """A start, and a resume, ask the strategy once for its first members, from a view that knows the objective."""
    signs = []
    real = Plan.begin

    def counted(plan, view, population, initial):
        signs.append(view.sign)
        return real(plan, view, population, initial)

    monkeypatch.setattr(Plan, "begin", counted)
    EXPERIMENT.run(tmp_path / "run")
    assert signs == [1]
    replace(EXPERIMENT, rounds=4).run(tmp_path / "run", resume=True)
    replace(EXPERIMENT, objective="minimize").run()
    assert signs == [1, 1, -1]


def test_threads_are_those_of_the_start(tmp_path, caplog) -> None:
    """A resumed run trains with the recorded number of threads, without a word; the journal says it was resumed."""
    begun = replace(EXPERIMENT, placement=Placement(threads=3))
    interrupted(begun, tmp_path / "run")
    with caplog.at_level(logging.WARNING, "pbt"):
        run = EXPERIMENT.run(tmp_path / "run", resume=True)
    assert {event.reported["threads"] for event in run.events if isinstance(event, Reported)} == {3}
    assert caplog.messages == []
    (note,) = (entry for entry in RunReader(tmp_path / "run").journal() if entry.kind == "resumed")
    assert note.details == {"changes": []}


def test_resumed_elsewhere(tmp_path, caplog) -> None:
    """Other threads, if asked for, are used; a warning and the journal say what changed. It is not refused."""
    interrupted(EXPERIMENT, tmp_path / "run")
    threads = EXPERIMENT.placement.resolve(4).threads
    elsewhere = replace(EXPERIMENT, placement=Placement(threads=threads + 1))
    with caplog.at_level(logging.WARNING, "pbt"):
        run = elsewhere.run(tmp_path / "run", resume=True)
    change = f"threads {threads} -> {threads + 1}"
    assert change in caplog.text
    assert {e.reported["threads"] for e in run.events if isinstance(e, Reported)} == {threads, threads + 1}
    (note,) = (entry for entry in RunReader(tmp_path / "run").journal() if entry.kind == "resumed")
    assert note.details == {"changes": [change]}


def test_the_device_is_that_of_the_start(tmp_path, monkeypatch) -> None:
    """A run that was begun on the CPU stays there, also where there is a GPU now."""
    interrupted(EXPERIMENT, tmp_path / "run")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    devices = []

    def executor(setup):
        devices.append(setup.device)
        return InlineExecutor(setup)

    replace(EXPERIMENT, placement=Placement(executor=executor)).run(tmp_path / "run", resume=True)
    replace(EXPERIMENT, placement=Placement(executor=executor)).run()
    assert devices == ["cpu", "cuda:0"]


def test_a_lost_run_stays_lost(tmp_path) -> None:
    """A run whose members all failed says so again when it is resumed."""
    lost = replace(EXPERIMENT, task=fail)
    for resume in (False, True):
        with pytest.raises(PopulationLostError, match="ValueError: always"):
            lost.run(tmp_path / "run", resume=resume)


def forgets(hparams, state, steps, ctx):
    if (ctx.member, ctx.round) == (3, 2):
        return {"place": {1, 2}, "thing": object()}, {}
    return train(hparams, state, steps, ctx)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_mistake_of_one_member_costs_one_member(tmp_path, mode) -> None:
    """A round without a score is its member's failure; the others' round is kept, and a resume has nothing to do."""
    plan = Plan(exploit=truncation(0.4), interval=2, mode=mode)
    careless = replace(EXPERIMENT, task=forgets, plan=plan)
    run = careless.run(tmp_path / "run")
    assert [(e.member, e.round, e.cause) for e in run.events if isinstance(e, Failed)] == [(3, 2, "score")]
    reports = [event for event in run.events if isinstance(event, Reported)]
    # In asynchronous mode members are done by steps: the one that was replaced may need a round more.
    assert len(reports) == 11 if mode == "sync" else len(reports) >= 11
    assert {e.step for e in reports if e.state in {m.state for m in run.view.members}} == {6}
    assert careless.run(tmp_path / "run", resume=True).events == run.events


# What it computes


def test_minimize() -> None:
    """Under `minimize` the best is the lowest; log, history and best hold scores as the task returned them."""
    low = replace(EXPERIMENT, objective="minimize").run()
    assert low.best.score == min(low.history()["score"])
    high = EXPERIMENT.run()
    first = [[e.scores[0] for e in run.events if isinstance(e, Reported) and e.round == 1] for run in (low, high)]
    assert first[0] == first[1]
    assert high.best.score == max(event.scores[0] for event in high.events if isinstance(event, Reported))


def test_initial_points() -> None:
    """The first members start with the values given, the others with values drawn as if none were given."""
    points = [{"lr": 0.5, "width": 3, "rule": "b"}, {"rule": "a", "width": 1, "lr": 0.25}]
    with_points, without = (
        [e.hparams for e in replace(EXPERIMENT, initial=initial).run().events if isinstance(e, Born)]
        for initial in (points, [])
    )
    assert with_points[:2] == points
    assert with_points[2:] == without[2:]


def test_the_seed_decides() -> None:
    """The same seed gives the same run twice, another seed another one."""
    runs = [replace(EXPERIMENT, seed=seed).run().events for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    births = [[event.hparams for event in events if isinstance(event, Born)] for events in runs]
    assert births[0] != births[2]


def test_a_population_of_one() -> None:
    """Vanilla training is a population of one that never copies: a round follows another, unchanged."""
    run = replace(EXPERIMENT, population=1, plan=Plan(exploit=never(), explore=pbt.keep(), interval=2)).run()
    decisions = [event.decision for event in run.events if isinstance(event, Decided)]
    assert [(d.kind, d.donor, d.step) for d in decisions] == [("continue", None, 2), ("continue", None, 4)]


def test_every_argument_reaches_its_place(monkeypatch, tmp_path) -> None:
    """`run` is an Experiment, its Placement and its `run`, argument by argument."""
    seen = {}

    def spy(self, run_dir=None, **others):
        seen.update(vars(self), run_dir=run_dir, **others)
        return "the run"

    monkeypatch.setattr(Experiment, "run", spy)
    given = {
        "task": train,
        "space": pbt.Space(SPACE),
        "plan": Plan(exploit=never()),
        "population": 3,
        "rounds": 7,
        "seed": 5,
        "initial": [{"lr": 0.5, "width": 3, "rule": "b"}],
        "objective": "minimize",
        "placement": Placement(executor="processes", workers=2, threads=4, device="cpu"),
        "run_dir": tmp_path,
        "resume": True,
        "observers": [Observer()],
        "callbacks": [pbt.Callback()],
        "changed_plan": True,
        "changed_population": True,
        "progress": False,
        "stop": pbt.Stop(patience=3),
    }
    assert set(given) == set(inspect.signature(pbt.run).parameters) - {"fields"}
    assert pbt.run(**given) == "the run"
    assert {name: seen[name] for name in given} == given
    assert pbt.run(**given | {"placement": "vectorized"}) == "the run"
    assert seen["placement"] == Placement(executor="vectorized")


def test_public_scores_are_the_tasks(tmp_path: Path) -> None:
    """Under `minimize` SQL views hold the task's scores, and a metric that is called `objective` survives."""
    run = replace(EXPERIMENT, task=named_objective, objective="minimize").run(tmp_path / "run")
    assert run.best.reported["objective"] == "mine"
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "run.db")) as connection:
        (last,) = connection.execute("SELECT score FROM schedule ORDER BY last_step DESC LIMIT 1").fetchone()
        lowest, members = connection.execute("SELECT min(score), count(*) FROM history").fetchone()
    assert last == lowest == run.best.score > 0
    assert members == len(run.history()["score"])


def test_settings_reach_the_workers() -> None:
    """Task, states, device and threads arrive at the executor's factory."""
    setups = []

    def executor(setup):
        setups.append(setup)
        return InlineExecutor(setup)

    where = Placement(executor=executor, threads=5, device="cpu", limits=Limits(attempts=9))
    replace(EXPERIMENT, placement=where).run()
    (setup,) = setups
    assert (setup.task, setup.device, setup.threads) == (train, "cpu", 5)
    assert where.resolve(4).limits.attempts == 9


@pytest.mark.long
def test_the_fields_of_a_placement_may_be_given_one_by_one() -> None:
    """They replace those of a placement that is given, too; a mistake names the nearest argument."""
    given = {"population": 2, "rounds": 1, "seed": 1}
    whole = pbt.run(train, SPACE, placement=Placement(executor="processes", workers=1, threads=2), **given)
    single = pbt.run(train, SPACE, executor="processes", workers=1, threads=2, **given)
    mixed = pbt.run(train, SPACE, placement=Placement(executor="processes", threads=3), workers=1, threads=2, **given)
    assert whole.meta["place"] == single.meta["place"] == mixed.meta["place"]
    assert whole.events == single.events == mixed.events
    with pytest.raises(UsageError, match=r"'populaton'.*'population'"):
        pbt.run(train, SPACE, populaton=3)
    with pytest.raises(UsageError, match=r"'worker'.*'workers'"):
        pbt.run(train, SPACE, worker=3)
    with pytest.raises(UsageError, match="placement"):
        pbt.run(train, SPACE, placement=3)
