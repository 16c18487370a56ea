"""Whole runs as one program: decisions of the inline executor, the same bits twice, killed and resumed."""

import math
import multiprocessing
from dataclasses import replace
from functools import partial

import pytest

import pbt
from pbt import Float, Plan, keep, never, truncation
from pbt.core.events import Decided, Failed, Reported
from pbt.errors import TaskError
from pbt.pytorch.vectorized import VectorizedExecutor
from pbt.runs.engine import Observer
from pbt.runs.placement import Placement
from pbt.store.reader import RunReader
from pbt.store.verify import verify_run
from tests.helpers.processes import until
from tests.pytorch.vectorized import tasks as vectorized_tasks
from tests.pytorch.vectorized.tasks import SINGLE, SPACE, TASK, deadly_task, experiment

IN_TURN = Placement(executor="vectorized", workers=1, threads=1, members_per_program=3)
"""The programs of two workers, one after the other in this process."""


def decisions(run):
    return [event.decision for event in run.events if isinstance(event, Decided)]


def digests(run):
    return {(event.member, event.round): event.digest for event in run.events if isinstance(event, Reported)}


def scores(run):
    return {(event.member, event.round): event.scores for event in run.events if isinstance(event, Reported)}


def check_same_decisions(found, expected, tolerance=1e-8):
    taken, wanted = ([decision._replace(scores=()) for decision in decisions(run)] for run in (found, expected))
    assert taken == wanted
    assert any(decision.kind == "exploit" for decision in decisions(found))
    assert scores(found).keys() == scores(expected).keys()
    for key, score in scores(expected).items():
        assert scores(found)[key] == pytest.approx(score, abs=tolerance)


@pytest.fixture(scope="module")
def inline():
    return experiment("inline").run()


@pytest.fixture(scope="module")
def whole():
    return experiment().run()


def test_the_decisions_of_separate_runs(inline, whole) -> None:
    """Who copies whom, with which values, is what the inline executor's run decides; scores are close."""
    check_same_decisions(whole, inline)


def test_the_same_bits_twice(whole) -> None:
    """The same seed gives every state of every round again, to the bit."""
    again = experiment().run()
    assert digests(again) == digests(whole)
    assert len(digests(whole)) == 30


def test_single_precision() -> None:
    """In single precision scores are close to rounding, and decisions those of separate runs."""
    given = {"task": SINGLE, "rounds": 4}
    check_same_decisions(experiment(**given).run(), experiment("inline", **given).run(), tolerance=1e-4)


def test_chunks(inline, whole) -> None:
    """Two members at a time end with the same decisions, and near the same scores."""
    chunked = experiment(partial(VectorizedExecutor, members_per_program=2)).run()
    check_same_decisions(chunked, inline)
    assert digests(chunked).keys() == digests(whole).keys()


@pytest.mark.parametrize(("first", "second"), [("inline", VectorizedExecutor), (VectorizedExecutor, "inline")])
def test_resumed_on_another_executor(first, second, inline, tmp_path) -> None:
    """A run that begins on one executor and goes on with another decides as if it had stayed."""
    experiment(first, rounds=3).run(tmp_path / "run")
    check_same_decisions(experiment(second).run(tmp_path / "run", resume=True), inline)
    assert verify_run(tmp_path / "run") == []


def test_extended(whole, tmp_path) -> None:
    """A run that ended and goes on for more rounds has the bits of the longer run."""
    experiment(rounds=2).run(tmp_path / "run")
    assert digests(experiment().run(tmp_path / "run", resume=True)) == digests(whole)


class Stop(Observer):
    """Ends a run in the middle."""

    def on_commit(self, engine, events):
        if engine.view.round >= 3:
            raise KeyboardInterrupt


def test_interrupted(whole, tmp_path) -> None:
    """A run that was interrupted in this process goes on to the same bits."""
    with pytest.raises(KeyboardInterrupt):
        experiment().run(tmp_path / "run", observers=[Stop()])
    assert digests(experiment().run(tmp_path / "run", resume=True)) == digests(whole)


@pytest.mark.usefixtures("warm")
def test_killed(tmp_path) -> None:
    """A run that is killed in the middle of rounds, again and again, and resumed, has the bits of one that is not."""
    path = tmp_path / "run"
    killed = 0
    for logged in (5, 105):
        process = multiprocessing.get_context("spawn").Process(target=vectorized_tasks.train, args=(path,))
        process.start()
        try:
            until(lambda: count(path) >= logged or not process.is_alive())  # noqa: B023 (called in this round)
            killed += process.is_alive()
        finally:
            process.kill()
            process.join()
    assert killed == 2
    run = experiment(rounds=30).run(path, resume=True)
    assert digests(run) == digests(experiment(rounds=30).run())
    assert verify_run(path) == []


def count(path):
    """Events that are logged; none while the run directory is not made yet."""
    try:
        return len(RunReader(path).rows())
    except Exception:  # noqa: BLE001 (there is no run yet, or half of one)
        return 0


def test_a_broken_member_changes_nobody_else() -> None:
    """Whether the last member becomes NaN or not, and is replaced, the others have the same bits in every round.

    Nobody copies of its own accord, so nothing but the one program could carry anything over.
    """
    values = [{"lr": 0.01, "decay": 0.01 * i, "p": 0.1 * i, "clip": 1.0} for i in range(4)]
    runs = []
    for rate in (0.02, 1e300):
        plan = Plan(exploit=truncation(0.0), explore=keep(), interval=5)
        initial = [*values, {**values[0], "lr": rate}]
        runs.append(experiment(plan=plan, initial=initial, rounds=4).run())
    healthy, broken = runs
    assert [(e.member, e.round, e.cause) for e in broken.events if isinstance(e, Failed)] == [(4, 1, "score")]
    assert next(d.kind for d in decisions(broken) if d.member == 4) == "replace"
    assert (4, 2) in digests(broken)
    others = [{key: digest for key, digest in digests(run).items() if key[0] < 4} for run in runs]
    assert others[0] == others[1]
    assert len(others[0]) == 16
    assert digests(healthy)[4, 1]


def test_a_member_that_retires() -> None:
    """Where nobody is replaced the program shrinks, and those that are left go on as they would alone."""
    plan = Plan(exploit=never(), explore=keep(), interval=4)
    initial = [{"lr": rate, "decay": 0.0, "p": 0.2, "clip": 1.0} for rate in (0.01, 1e300, 0.02)]
    runs = [
        experiment(e, plan=plan, initial=initial, population=3, rounds=3).run() for e in ("inline", VectorizedExecutor)
    ]
    for run in runs:
        assert sorted(digests(run)) == [(0, 1), (0, 2), (0, 3), (2, 1), (2, 2), (2, 3)]
    for key, score in scores(runs[0]).items():
        assert scores(runs[1])[key] == pytest.approx(score, abs=1e-8)


def test_asynchronous() -> None:
    """An asynchronous plan is trained to the end, every state with its digest, twice to the same bits."""
    plan = Plan(exploit=truncation(0.4), interval=5, mode="async")
    first, second = (experiment(plan=plan, rounds=4).run() for _ in range(2))
    assert len(digests(first)) >= 20
    assert {member.step for member in first.view.population} == {20}
    assert digests(first) == digests(second)
    assert all(math.isfinite(score) for (score,) in scores(first).values())


def test_by_name(whole) -> None:
    """The executor is there under its name too, and is the same."""
    one = Placement(executor="vectorized", workers=1, threads=1)
    assert digests(experiment(placement=one).run()) == digests(whole)


@pytest.mark.usefixtures("warm")
def test_shared_out_over_workers(inline, tmp_path) -> None:
    """Two workers, a program each, interrupted and resumed, decide as separate runs do, to the bits of one process."""
    with pytest.raises(KeyboardInterrupt):
        experiment("vectorized").run(tmp_path / "run", observers=[Stop()])
    run = experiment("vectorized").run(tmp_path / "run", resume=True)
    assert run.meta["place"] | {"workers": 2, "members_per_program": 3} == run.meta["place"]
    check_same_decisions(run, inline)
    # Somebody copies a state that another worker has.
    crossed = {(d.member < 3, d.donor < 3) for d in decisions(run) if d.donor is not None}
    assert crossed & {(True, False), (False, True)}
    assert digests(run) == digests(experiment(placement=IN_TURN).run())
    assert verify_run(tmp_path / "run") == []


def deadly_run(folder, deaths, **changes):
    """Five members in two workers; the loss of member 1 kills its process so many times."""
    folder.mkdir()
    values = {"lr": 0.01, "decay": 0.0, "p": 0.2, "clip": 1.0}
    return experiment(
        "vectorized",
        task=deadly_task(folder, deaths),
        space=SPACE | {"fatal": Float(0.0, 1.0)},
        plan=Plan(exploit=never(), explore=keep(), interval=3),
        initial=[values | {"fatal": float(member == 1)} for member in range(5)],
        rounds=2,
        **changes,
    ).run()


@pytest.mark.usefixtures("warm")
def test_killed_with_others(tmp_path) -> None:
    """Members whose worker dies are trained again together, with the same bits."""
    undisturbed = deadly_run(tmp_path / "0", 0, placement=IN_TURN)
    killed = deadly_run(tmp_path / "2", 2)
    assert len(list((tmp_path / "2").iterdir())) == 2
    assert digests(killed) == digests(undisturbed)
    assert len(digests(killed)) == 10


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_a_member_that_kills_its_worker(tmp_path) -> None:
    """At last each is trained by itself, so that one member takes no other along."""
    run = deadly_run(tmp_path / "run", 1000)
    assert [(e.member, e.round, e.cause) for e in run.events if isinstance(e, Failed)] == [(1, 1, "worker")]
    assert len(list((tmp_path / "run").iterdir())) == 4
    assert sorted(digests(run)) == [(member, round_) for member in (0, 2, 3, 4) for round_ in (1, 2)]


def plain_task(hparams, state, steps, ctx):
    return None, 1.0


def test_a_task_of_another_form() -> None:
    """A task with a loop of its own is refused, with the executor that trains it."""
    with pytest.raises(TaskError, match=r"expected a SupervisedTask.*use the executor 'processes'"):
        pbt.run(
            plain_task,
            {"lr": Float(0.1, 1.0)},
            placement=pbt.Placement(executor=VectorizedExecutor),
            population=2,
            rounds=1,
        )


def test_a_task_that_cannot_be_one_program() -> None:
    """What `vmap` cannot do ends the run with one line that names the remedy."""
    with pytest.raises(TaskError) as caught:
        experiment(task=replace(TASK, model=vectorized_tasks.Recurrent)).run()
    assert "aten::lstm" in str(caught.value)
    assert "use the executor 'processes'" in str(caught.value)
    assert "\n" not in str(caught.value)
