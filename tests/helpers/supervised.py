"""The contract of executors that train a `SupervisedTask`: their results equal those of separate training.

```python
class TestMyExecutorOnNetworks(SupervisedContract):
    def make_executor(self, setup):
        return MyExecutor(setup)
```

`AgreementContract` is the core, for executors with slow tests; `SupervisedContract` adds the laws of the executor's
interface; `NetworksContract`, for executors with their own arithmetic, adds many networks and optimizers. The reference
is a separate run of each member by the inline executor.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pbt.core.population import StateRef
from pbt.executors.base import Executor, Failure, Outcome, Report
from pbt.executors.inline import InlineExecutor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import SupervisedTask, loss
from pbt.store.files import StateFiles
from pbt.testing.executors import finish, make_task, reports
from pbt.testing.states import check_close, state_of
from tests.helpers.networks import BATCH, EXAMPLES
from tests.helpers.tasks import DENSE, PLAIN
from tests.helpers.trajectories import Trajectory, Values, check_same_course

HPARAMS: Sequence[Values] = (
    {"lr": 0.05, "momentum": 0.9, "decay": 0.0, "clip": 1.0, "p": 0.0},
    {"lr": 0.1, "momentum": 0.5, "decay": 0.01, "clip": 0.3, "p": 0.4},
    {"lr": 1e300, "momentum": 0.9, "decay": 0.0, "clip": 1.0, "p": 0.2},
    {"lr": 0.02, "momentum": 0.8, "decay": 0.1, "clip": 5.0, "p": 0.1},
)
"""Hyperparameters of four members, the third of which always fails."""
BROKEN = 2


def touchy(outputs: Tensor, targets: Tensor, limit: float = 1.0) -> Tensor:
    """A loss that fails for some members."""
    if limit < 0:
        raise ValueError(f"no loss below {limit}")
    return nn.functional.cross_entropy(outputs, targets)


class AgreementContract(ABC):
    """The results equal those of separate runs."""

    exact = True
    """Whether a member's result is bitwise independent of the members trained with it; else it is close."""
    device = "cpu"
    """Where members are trained, by the executor and by the separate runs that it is compared with."""

    @abstractmethod
    def make_executor(self, setup: WorkerSpec) -> Executor:
        """A new executor of these workers, not yet started; its device must be `setup.device`."""

    def open(self, task: SupervisedTask, **fields: Any) -> Executor:
        """The executor, with states stored in their records."""
        return self.make_executor(WorkerSpec(task=task, states=StateFiles(None), device=self.device, **fields))

    def compare(self, task: SupervisedTask, run: Callable[[Trajectory], Trajectory]) -> Trajectory:
        """Assert that the executor's results equal those of separate runs, and return them."""
        with InlineExecutor(WorkerSpec(task=task, states=StateFiles(None), device=self.device)) as inline:
            expected = run(Trajectory(inline))
        with self.open(task) as executor:
            found = run(Trajectory(executor))
        check_same_course(found, expected)
        return found

    def test_the_same_as_separate_runs(self) -> None:
        """States, scores and reports equal those of separate runs, after a failure, a copy and a short last batch."""
        first: dict[int, Values] = dict(enumerate(HPARAMS))
        second = {0: HPARAMS[0] | {"lr": 0.03, "p": 0.0}, 1: HPARAMS[3], 2: HPARAMS[1], 3: HPARAMS[0]}

        def run(course: Trajectory) -> Trajectory:
            course.train(7, first)
            assert {m: failure.cause for m, failure in course.failures.items()} == {BROKEN: "score"}
            return course.train(6, second, {1: 3, 2: 0})

        assert 3 * EXAMPLES // BATCH < 7 + 6
        assert list(self.compare(DENSE, run).reports) == [0, 1, 2, 3]

    def test_failures_are_data(self) -> None:
        """A NaN loss, a loss that raises and a state that does not fit become Failures; other members continue."""
        task = replace(PLAIN, loss=touchy, bind={**PLAIN.bind, "limit": loss("limit")})
        ref = StateRef(9, 1)
        stored = StateFiles(None).put(ref, {"model": {"weight": torch.ones(2)}, "optimizer": {"state": {}}})
        whats = [{"lr": 1e300, "limit": 1.0}, {"lr": 0.1, "limit": -1.0}, {"lr": 0.1, "limit": 1.0}]
        tasks = [make_task(member, hparams=values, steps=5) for member, values in enumerate(whats)]
        with self.open(task) as executor:
            outcomes = finish(executor, [*tasks, make_task(3, 1, (ref, stored), hparams=whats[2], steps=5)])
            assert executor.incidents() == []
        not_finite, raised, fine, misfit = (outcomes[member, 1] for member in range(4))
        assert _cause(not_finite) == "score"
        assert isinstance(raised, Failure)
        assert raised.cause == "exception"
        assert "ValueError: no loss below -1.0" in raised.message
        assert "touchy" in raised.traceback
        assert isinstance(fine, Report)
        assert isinstance(misfit, Failure)
        assert misfit.cause == "exception"
        assert "must not change shapes" in misfit.message


class SupervisedContract(AgreementContract):
    """The laws of the executor's interface, one test each."""

    def test_nothing_to_wait_for(self) -> None:
        """`wait` without pending tasks returns an empty list immediately."""
        with self.open(PLAIN) as executor:
            assert executor.wait() == []
            finish(executor, [make_task(0)])
            assert executor.wait() == []
            assert executor.incidents() == []

    def test_every_task_has_one_outcome(self) -> None:
        """Each task of a wave has one outcome, with its member, round and attempt, and a stored state."""
        tasks = [make_task(member, round_=3, attempt=2) for member in (4, 1, 3, 0, 2)]
        with self.open(PLAIN) as executor:
            assert executor.slots >= 1
            outcomes = finish(executor, tasks)
        assert set(outcomes) == {(task.member, task.round) for task in tasks}
        for report in reports(outcomes).values():
            assert report.attempt == 2
            assert report.seconds >= 0
            assert set(state_of(report.stored)) == {"model", "optimizer"}

    def test_order_changes_nothing(self) -> None:
        """The result of a round depends neither on the rounds trained before it nor on the order of submission."""
        tasks = [make_task(member, hparams=HPARAMS[3]) for member in range(4)]
        found = []
        for order in (tasks, tasks[2:] + tasks[1::-1]):
            with self.open(DENSE) as executor:
                found.append(reports(finish(executor, order[:1])) | reports(finish(executor, order[1:])))
        for key, report in found[0].items():
            if self.exact:
                assert report.stored.digest == found[1][key].stored.digest
            check_close(state_of(report.stored), state_of(found[1][key].stored))
            check_close(report.scores, found[1][key].scores)

    def test_the_same_seed_the_same_bits(self) -> None:
        """Two runs with equal seeds have equal states, to the bit; another seed gives others."""
        found = []
        for seed in (11, 11, 12):
            with self.open(DENSE) as executor:
                tasks = [make_task(member, hparams=HPARAMS[member], seed=seed, steps=4) for member in (0, 1)]
                found.append({key: r.stored.digest for key, r in reports(finish(executor, tasks)).items()})
        assert found[0] == found[1]
        assert not set(found[0].values()) & set(found[2].values())

    def test_resumed_by_another(self) -> None:
        """An executor that continues from stored states gives the same bits as the one that stored them."""
        values = {0: HPARAMS[0], 1: HPARAMS[1], 2: HPARAMS[3]}
        with self.open(DENSE) as executor:
            course = Trajectory(executor).train(5, values)
            kept = dict(course.stored)
            undisturbed = course.train(5, values, {2: 0}).digests
        with self.open(DENSE) as executor:
            assert Trajectory(executor, step=5, round=1, stored=kept).train(5, values, {2: 0}).digests == undisturbed

    def test_a_broken_member_reaches_nobody(self) -> None:
        """A member that becomes NaN does not change the bits of the others."""
        found = []
        for rate in (0.1, 1e300):
            values = {m: HPARAMS[m] | ({"lr": rate} if m == BROKEN else {}) for m in range(4)}
            with self.open(DENSE) as executor:
                course = Trajectory(executor).train(6, values)
                assert (BROKEN in course.failures) == (rate == 1e300)
                digests = course.digests
                digests.pop(BROKEN, None)
                found.append(digests)
        assert found[0] == found[1]

    def test_rounds_of_any_length_at_once(self) -> None:
        """A wave may mix rounds of different lengths, first steps and seeds without mutual effects."""
        places = [(0, 3, 11), (0, 5, 11), (4, 3, 11), (0, 3, 12), (0, 3, 11)]
        tasks = [
            make_task(member, hparams=HPARAMS[3], first_step=first, steps=steps, seed=seed)
            for member, (first, steps, seed) in enumerate(places)
        ]
        with self.open(DENSE) as executor:
            together = reports(finish(executor, tasks))
        with InlineExecutor(WorkerSpec(task=DENSE, states=StateFiles(None), device=self.device)) as inline:
            apart = reports(finish(inline, tasks))
        for key, report in apart.items():
            check_close(state_of(together[key].stored), state_of(report.stored), f"member {key[0]}")

    def test_a_second_wave_while_the_first_is_out(self) -> None:
        """Tasks can be submitted while others are training, as in asynchronous mode."""
        with self.open(PLAIN) as executor:
            executor.submit([make_task(member) for member in range(3)])
            found = executor.wait()
            executor.submit([make_task(7), make_task(8, 2, first_step=3, steps=1)])
            while len(found) < 5:
                found += executor.wait()
        assert sorted(outcome.member for outcome in found) == [0, 1, 2, 7, 8]

    def test_the_donor_is_handed_over(self) -> None:
        """A round without changes returns the donor's state with the donor's digest, for every member."""
        still = {"lr": 0.0}
        with self.open(PLAIN) as executor:
            donor = reports(finish(executor, [make_task(9, hparams=still)]))[9, 1].stored
            tasks = [make_task(member, 2, (StateRef(9, 1), donor), hparams=still) for member in range(4)]
            again = reports(finish(executor, tasks))
            alone = reports(finish(executor, tasks[:1]))
        assert {report.stored.digest for report in [*again.values(), *alone.values()]} == {donor.digest}

    def test_a_handed_over_state_is_a_copy(self) -> None:
        """Members that start from the same donor do not affect each other, nor the donor, which continues, too."""
        values: dict[int, Values] = {m: HPARAMS[3] | {"lr": 0.01 * (m + 1)} for m in range(4)}

        def run(course: Trajectory) -> Trajectory:
            return course.train(3, values).train(4, values, dict.fromkeys(range(4), 1)).train(2, values)

        found = self.compare(DENSE, run)
        assert len(set(found.digests.values())) == 4

    def test_another_state_is_refused(self) -> None:
        """A state that differs from the decided one is a failure with cause `corrupt`; other members continue."""
        with self.open(PLAIN) as executor:
            donor = reports(finish(executor, [make_task(9)]))[9, 1].stored
            start = StateRef(9, 1), donor
        with self.open(PLAIN) as executor:
            other = replace(make_task(0, 2, start), digest="0" * 64)
            missing = replace(make_task(1, 2, start), blob=None)
            outcomes = finish(executor, [other, missing, make_task(2, 2, start)])
        for member in (0, 1):
            outcome = outcomes[member, 2]
            assert isinstance(outcome, Failure)
            assert outcome.cause == "corrupt"
            assert "member 9, round 1" in outcome.message
        assert isinstance(outcomes[2, 2], Report)

    def test_the_caller_is_left_alone(self) -> None:
        """Training changes neither the caller's global generators nor torch's threads and default type."""

        def outside() -> tuple[Any, ...]:
            generator: Any = np.random.get_state()  # noqa: NPY002 (the test is about the global generator)
            place = generator[2], generator[1].tolist()
            return torch.get_rng_state().tolist(), place, torch.get_num_threads(), torch.get_default_dtype()

        before = outside()
        with self.open(DENSE, threads=torch.get_num_threads() + 1) as executor:
            reports(finish(executor, [make_task(member, hparams=HPARAMS[3]) for member in range(2)]))
        assert outside() == before

    def test_close(self) -> None:
        """`close` drops unfinished tasks, and can be called twice or before any task."""
        executor = self.open(PLAIN)
        executor.submit([make_task(member) for member in range(20)])
        executor.close()
        executor.close()
        assert executor.wait() == []
        self.open(PLAIN).close()


def _cause(outcome: Outcome) -> str:
    return outcome.cause if isinstance(outcome, Failure) else ""
