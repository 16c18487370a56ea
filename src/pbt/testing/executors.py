"""The contract of executors: subclass `ExecutorContract`, implement `make_executor`, and run pytest.

```python
class TestMyExecutor(ExecutorContract):
    def make_executor(self, setup):
        return MyExecutor(setup)
```

The tasks of this module need only numpy, so that worker processes start fast. The tests share one executor, started by
the first of them, except where the start itself matters.
"""

# ruff: noqa: S101 (these are tests)

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from pbt.core.population import StateRef, Stored
from pbt.core.rng import seed_of
from pbt.executors.base import Executor, Failure, Outcome, Report, RoundTask
from pbt.executors.worker import Context, WorkerSpec
from pbt.store.files import StateFiles

SEED = 11
THREADS = 3
CLOSE_SECONDS = 5.0
"""The most seconds that `close` may take."""

Values = Mapping[str, Any]


def walk(hparams: Values, state: Any, steps: int, ctx: Context) -> tuple[Any, Values]:
    """A random walk with draws keyed by member and step; also reports draws of the global generators."""
    place = np.zeros(3) if state is None else state["place"]
    for step in range(ctx.first_step, ctx.first_step + steps):
        place += hparams["lr"] * np.random.default_rng(ctx.key("walk", ctx.member, step)).standard_normal(3)
    draws = [random.random(), float(np.random.random())]  # noqa: NPY002
    return {"place": place, "steps": ctx.first_step + steps}, {"score": -float(np.linalg.norm(place)), "draws": draws}


def tell_context(hparams: Values, state: Any, steps: int, ctx: Context) -> tuple[Any, Values]:
    """A task that reports all its arguments."""
    given = {name: getattr(ctx, name) for name in ("seed", "member", "round", "first_step", "device", "threads")}
    return state, {"score": 1.0, "given": {**given, "hparams": hparams, "steps": steps, "key": ctx.key("any", 1)}}


def mark(hparams: Values, state: Any, steps: int, ctx: Context) -> tuple[Any, Values]:  # noqa: ARG001
    """A task that reports the values of the state's array, then overwrites them in place with its member id."""
    found = state["place"].tolist()
    state["place"][:] = ctx.member
    return state, {"score": 1.0, "found": found}


def tell_points(hparams: Values, state: Any, steps: int, ctx: Context) -> tuple[Any, float]:
    """A task that reports numbers at every step, and may fail then."""
    for step in range(ctx.first_step + 1, ctx.first_step + steps + 1):
        ctx.report(step, loss=ctx.member + 0.5)
    ctx.report(ctx.first_step + 1, rate=math.nan)
    if hparams["fail"]:
        raise ValueError("it did not work")
    return state, 1.0


def hand_on(hparams: Values, state: Any, steps: int, ctx: Context) -> tuple[Any, float]:  # noqa: ARG001
    """A task that returns its state unchanged."""
    return state, 1.0


def trouble(hparams: Values, state: Any, steps: int, ctx: Context) -> tuple[Any, Any]:  # noqa: ARG001
    """A task that fails in the way given by the hyperparameter `what`."""
    match hparams["what"]:
        case "raise":
            raise ValueError("it did not work")
        case "exit":
            raise SystemExit(3)
        case "state":
            return {"inner": {"thing": object()}}, 1.0
        case "tuple":
            return 1.0  # type: ignore[return-value]
        case "alone":
            return {"state": 1, "metrics": 2}  # type: ignore[return-value]
    return None, METRICS[hparams["what"]]


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
METRICS: Mapping[str, Any] = {
    "fine": {"score": np.ones((1, 1)) * 2, "note": "good", "array": np.arange(3), "number": np.float32(0.5)},
    "nan": math.nan,
    "infinite": {"score": -math.inf},
    "missing": {"loss": 1.0},
    "none": None,
    "none inside": {"score": None},
    "empty": {"scores": []},
    "text": {"score": "1.0"},
    "truth": {"score": True},
    "complex": {"score": 1j},
    "several": {"score": np.arange(2.0)},
    "one": {"scores": 1.0},
    "series": {"score": 1.0, "series": [1.0, None]},
    "huge score": {"score": 10**400},
    "thing": {"score": 1.0, "thing": object()},
    "set": {"score": 1.0, "inner": {"thing": [{1}]}},
    "huge": {"score": 1.0, "thing": 10**5000},
    "circle": {"score": 1.0, "thing": CIRCLE},
    "objects": {"score": 1.0, "thing": np.array([object()])},
}
FAILURES = {
    "raise": "exception",
    "exit": "exception",
    "state": "state",
    **dict.fromkeys(("tuple", "alone", *(what for what in METRICS if what != "fine")), "score"),
}
"""Each value of `what` with the cause that the failure must name."""


TASKS = {task.__name__: task for task in (walk, tell_context, tell_points, mark, hand_on, trouble)}


def perform(hparams: Values, state: Any, steps: int, ctx: Context) -> tuple[Any, Any]:
    """The task of the contract: the one of `TASKS` that the hyperparameter `task` names."""
    return TASKS[hparams["task"]](hparams, state, steps, ctx)


def make_task(member: int, round_: int = 1, start: tuple[StateRef, Stored] | None = None, **fields: Any) -> RoundTask:
    """A round of two steps, from the given state or from the start."""
    given: dict[str, Any] = {"hparams": {"lr": 0.1}, "first_step": 2 * (round_ - 1), "steps": 2, "seed": SEED}
    if start is not None:
        ref, stored = start
        given |= {"start": ref, "digest": stored.digest, "blob": stored.blob}
    return RoundTask(**({"member": member, "round": round_, "start": None} | given | fields))


def finish(executor: Executor, tasks: Sequence[RoundTask]) -> dict[tuple[int, int], Outcome]:
    """Submit the tasks as one wave and wait for all outcomes, returned by member and round."""
    executor.submit(tasks)
    outcomes: list[Outcome] = []
    while len(outcomes) < len(tasks):
        found = executor.wait()
        assert found, "wait returned no outcomes although tasks are pending"
        outcomes += found
    return {(outcome.member, outcome.round): outcome for outcome in outcomes}


def reports(outcomes: Mapping[Any, Outcome]) -> dict[Any, Report]:
    """The outcomes as reports; a failure is an AssertionError."""
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, Failure)]
    assert not failed, failed
    return {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, Report)}


class ExecutorContract(ABC):
    """The laws of an executor, one test each."""

    states = StateFiles(None)
    _shared: ClassVar[Executor | None] = None

    @abstractmethod
    def make_executor(self, setup: WorkerSpec) -> Executor:
        """A new executor of these workers, not yet started; its device must be `setup.device`."""

    @classmethod
    def teardown_class(cls) -> None:
        """Close the executor that the tests share; called by pytest."""
        if cls._shared is not None:
            cls._shared.close()
            cls._shared = None

    def _open(self) -> Executor:
        return self.make_executor(WorkerSpec(task=perform, states=self.states, threads=THREADS))

    def _executor(self) -> Executor:
        cls = type(self)
        if cls._shared is None:
            cls._shared = self._open()
        return cls._shared

    def _run(self, tasks: Sequence[RoundTask]) -> dict[tuple[int, int], Outcome]:
        return finish(self._executor(), tasks)

    def _stored(self, member: int = 9) -> tuple[StateRef, Stored]:
        ref = StateRef(member, 1)
        return ref, self.states.put(ref, {"place": np.arange(3.0), "steps": 2})

    def test_nothing_to_wait_for(self) -> None:
        """`wait` without pending tasks returns an empty list immediately."""
        executor = self._executor()
        assert executor.wait() == []
        finish(executor, [_task("hand_on", 0)])
        assert executor.wait() == []
        assert executor.incidents() == []

    def test_every_task_has_one_outcome(self) -> None:
        """Each task of a wave has one outcome, with its member, round and attempt, and a stored state."""
        tasks = [_task("walk", member, 3, attempt=2) for member in (4, 1, 3, 0, 2)]
        assert self._executor().slots >= 1
        outcomes = self._run(tasks)
        assert set(outcomes) == {(task.member, task.round) for task in tasks}
        for (member, round_), report in reports(outcomes).items():
            assert report.attempt == 2
            assert report.seconds >= 0
            state = self.states.get(StateRef(member, round_), report.stored.digest, report.stored.blob)
            assert state["steps"] == 6

    def test_order_changes_nothing(self) -> None:
        """The result of a round depends neither on the rounds trained before it nor on the order of submission."""
        tasks = [_task("walk", member) for member in range(4)]
        found = []
        with self._open() as fresh:
            for executor, order in ((self._executor(), tasks), (fresh, tasks[2:] + tasks[1::-1])):
                outcomes = reports(finish(executor, order[:1])) | reports(finish(executor, order[1:]))
                found.append({key: (o.scores, o.reported, o.stored.digest) for key, o in outcomes.items()})
        assert found[0] == found[1]

    def test_global_draws_are_seeded(self) -> None:
        """The global generators differ between members and rounds, and repeat for the same ones."""
        draws = {
            key: tuple(report.reported["draws"])
            for wave in (1, 2)
            for key, report in reports(self._run([_task("walk", m, wave) for m in range(2)])).items()
        }
        again = reports(self._run([_task("walk", 1, 2)]))[1, 2]
        assert len(set(draws.values())) == 4
        assert tuple(again.reported["draws"]) == draws[1, 2]

    def test_a_second_wave_while_the_first_is_out(self) -> None:
        """Tasks can be submitted while others are training, as in asynchronous mode."""
        executor = self._executor()
        executor.submit([_task("walk", member) for member in range(3)])
        found = executor.wait()
        executor.submit([_task("walk", 7)])
        while len(found) < 4:
            found += executor.wait()
        assert sorted(outcome.member for outcome in found) == [0, 1, 2, 7]

    def test_failures_are_data(self) -> None:
        """Every error in a task becomes a Failure with its cause; no exception is raised, and other tasks continue."""
        whats = [*FAILURES, "fine"]
        outcomes = self._run([_task("trouble", member, what=what) for member, what in enumerate(whats)])
        assert self._executor().incidents() == []
        for member, (what, cause) in enumerate(FAILURES.items()):
            outcome = outcomes[member, 1]
            assert isinstance(outcome, Failure), what
            assert (outcome.cause, outcome.attempt, bool(outcome.message)) == (cause, 1, True), what
            assert "\n" not in outcome.message, what
        assert isinstance(outcomes[len(FAILURES), 1], Report)
        raised, refused = outcomes[0, 1], outcomes[whats.index("state"), 1]
        assert isinstance(raised, Failure)
        assert "ValueError: it did not work" in raised.message
        assert "trouble" in raised.traceback
        assert isinstance(refused, Failure)
        assert "['inner']['thing']" in refused.message

    def test_metrics_are_plain(self) -> None:
        """Reported arrays and array scalars become plain numbers and lists."""
        report = reports(self._run([_task("trouble", 0, what="fine")]))[0, 1]
        assert report.scores == (2.0,)
        assert report.reported == {"note": "good", "array": [0, 1, 2], "number": 0.5}
        assert type(report.reported["number"]) is float

    def test_points_are_reported(self) -> None:
        """Points reported during a round are part of its outcome, also of a failure, and of no other round."""
        tasks = [_task("tell_points", member, 2 - member, fail=member == 1) for member in range(2)]
        outcomes = self._run([*tasks, _task("walk", 2)])
        for member, (step, loss) in enumerate([(3, 0.5), (1, 1.5)]):
            points = outcomes[member, 2 - member].points
            assert list(points) == ["loss", "rate"]
            assert points["loss"] == ((step, loss), (step + 1, loss))
            assert [step for step, _ in points["rate"]] == [step]
            assert math.isnan(points["rate"][0][1])
        assert isinstance(outcomes[1, 1], Failure)
        assert outcomes[2, 1].points == {}

    def test_the_donor_is_handed_over(self) -> None:
        """The state from which a member starts has the donor's digest, on every worker."""
        donor = self._stored()
        outcomes = reports(self._run([_task("hand_on", member, 2, donor) for member in range(4)]))
        assert {report.stored.digest for report in outcomes.values()} == {donor[1].digest}

    def test_a_handed_over_state_is_a_copy(self) -> None:
        """Members that start from the same donor and modify its arrays in place do not affect each other."""
        donor = self._stored()
        outcomes = reports(self._run([_task("mark", member, 2, donor) for member in range(4)]))
        assert [outcomes[member, 2].reported["found"] for member in range(4)] == [[0.0, 1.0, 2.0]] * 4
        for member in range(4):
            report = outcomes[member, 2]
            state = self.states.get(StateRef(member, 2), report.stored.digest, report.stored.blob)
            assert state["place"].tolist() == [member] * 3

    def test_another_state_is_refused(self) -> None:
        """A state whose content differs from the decided one is a failure with cause `corrupt` that names the state."""
        start = self._stored()
        task = replace(_task("hand_on", 0, 2, start), digest="0" * 64)
        missing = replace(_task("hand_on", 1, 2, start), blob=None)
        for outcome in self._run([task, missing]).values():
            assert isinstance(outcome, Failure)
            assert outcome.cause == "corrupt"
            assert "member 9, round 1" in outcome.message

    def test_context(self) -> None:
        """`ctx` has the run's seed, member, round, first step, device, threads and keys."""
        task = _task("tell_context", 5, 4, note="a", steps=7)
        report = reports(self._run([task]))[5, 4]
        given = {"seed": SEED, "member": 5, "round": 4, "first_step": 6, "device": "cpu", "threads": THREADS}
        key = seed_of(SEED, "task", "any", 1)
        assert report.reported["given"] == {**given, "hparams": task.hparams, "steps": 7, "key": key}

    def test_close(self) -> None:
        """`close` drops unfinished tasks, and can be called twice or before any task; `wait` then returns nothing."""
        executor = self._open()
        assert executor.wait() == []
        executor.submit([_task("walk", member) for member in range(50)])
        executor.close()
        executor.close()
        assert executor.wait() == []
        self._open().close()


def _task(
    name: str, member: int, round_: int = 1, start: tuple[StateRef, Stored] | None = None, **more: Any
) -> RoundTask:
    """A round of one of `TASKS`; `steps` and `attempt` are those of the round, other values are hyperparameters."""
    fields = {key: more.pop(key) for key in ("steps", "attempt") if key in more}
    return make_task(member, round_, start, hparams={"task": name, "lr": 0.1, **more}, **fields)
