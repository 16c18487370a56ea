"""Several small programs under one script of decisions, trained by one start of an executor.

One member continues alone, one copies it, one gets other hyperparameters and copies later. Workers record and report
the settings used by every optimizer step.
"""

# ruff: noqa: S101 (these are assertions)

import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.optim.optimizer as torch_optimizer

from pbt.core.population import StateRef, Stored
from pbt.executors.base import Executor, Outcome, Report, RoundTask, TaskBatch
from pbt.executors.worker import Worker, WorkerSpec, failure
from pbt.testing import forms, programs
from pbt.testing.executors import finish, make_task
from pbt.testing.recipes import ROUNDS, STEPS, TOTAL, Form, Recipe, Values

ALONE, COPIED, MOVED = 0, 1, 2
"""The members of the script: one that continues alone; one that copies the first; one that gets other hyperparameters,
then copies the second."""
WHICH = "program"
"""The hyperparameter with the index of the program."""

Key = tuple[Form, Recipe]
Together = Callable[[WorkerSpec, int | None], WorkerSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class Several(WorkerSpec):
    """Workers that train several programs, so that a single start of an executor serves all.

    Args:
        task: The programs, as `(form, recipe)`.
        together: Makes the spec of a vectorized worker from that of a single one: `VectorizedWorkerSpec.of`.
        members_per_program: The most members of one vectorized program; None for all of a wave.
    """

    together: Together | None = None
    members_per_program: int | None = None

    @property
    def keys(self) -> Sequence[Key]:
        """The programs."""
        keys: Any = self.task
        return keys  # type: ignore[no-any-return]

    def of(self, which: int) -> WorkerSpec:
        """The spec of a worker of one of the programs."""
        form, recipe = self.keys[which]
        task = forms.task_of(form, recipe)
        setup = WorkerSpec(task=task, states=self.states, device=self.device, threads=self.threads)
        return self.together(setup, self.members_per_program) if self.together and form == "vectorized" else setup

    def shares(self, tasks: Sequence[RoundTask]) -> list[TaskBatch]:
        """Batches of tasks: the members of a vectorized program together, all others separately."""
        found: list[TaskBatch] = []
        for which in dict.fromkeys(map(_which, tasks)):
            own = [task for task in tasks if _which(task) == which]
            size = (self.members_per_program or len(own)) if self.keys[which][0] == "vectorized" else 1
            found += [tuple(own[start : start + size]) for start in range(0, len(own), size)]
        return found

    def open(self) -> Worker:
        """A worker that opens each program at its first round."""
        return _Trainers(self)


def _which(task: RoundTask) -> int:
    which: Any = task.hparams[WHICH]
    return int(which)


class _Trainers:
    def __init__(self, setup: Several) -> None:
        self._setup = setup
        self._open: dict[int, Worker] = {}

    def run(self, share: TaskBatch) -> list[Outcome]:
        """Train a batch of one program; the settings used by each optimizer step are added to the reported values."""
        which = _which(share[0])
        own = [replace(t, hparams={n: v for n, v in t.hparams.items() if n != WHICH}) for t in share]
        try:
            if which not in self._open:
                self._open[which] = self._setup.of(which).open()
        except Exception as error:  # noqa: BLE001 (a program that cannot be built must not affect the others)
            return [failure(task, "refused", repr(error)) for task in own]
        with recorded() as used:
            outcomes = self._open[which].run(tuple(own))
        if self._setup.keys[which][0] == "vectorized":
            return outcomes
        return [replace(o, reported={**o.reported, "used": used}) if isinstance(o, Report) else o for o in outcomes]


@contextmanager
def recorded() -> Iterator[list[Any]]:
    """Record the settings of every optimizer step in the context: learning rate, weight decay and momentum by group."""
    used: list[Any] = []
    hook = torch_optimizer.register_optimizer_step_pre_hook(lambda of, *_: used.append(settings_of(of)))
    try:
        yield used
    finally:
        hook.remove()


def settings_of(optimizer: Any) -> list[list[float]]:
    """The learning rate, the weight decay and the momentum of every group."""
    return [
        [float(group["lr"]), float(group["weight_decay"]), float(group.get("betas", [group.get("momentum", 0.0)])[0])]
        for group in optimizer.param_groups
    ]


@functools.cache
def plain(recipe: Recipe, values: tuple[tuple[str, Any], ...]) -> list[Any]:
    """The settings used by every step in plain torch, with an optimizer built with these hyperparameters."""
    hparams = dict(values)
    with torch.random.fork_rng(), recorded() as used:
        parts = programs.build(recipe, hparams, {**programs.BUILT, **hparams})
        programs.train(recipe, parts, hparams["lr"], range(TOTAL))
    return used


@dataclass
class Script:
    """The outcomes of one program under the script.

    Args:
        key: Form and recipe.
        which: The index of the program.
    """

    key: Key
    which: int
    outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    """By member and round; round 0 is a single round of all steps of the first member."""
    hparams: dict[tuple[int, int], Values] = field(default_factory=dict)
    starts: dict[tuple[int, int], int] = field(default_factory=dict)
    """The member whose state of the previous round is the start, by member and round."""
    founders: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """A hash of the recipe, so that the same program has the same member ids in every form and context."""
        return zlib.crc32(repr(self.key[1]).encode())

    def tasks(self, round_: int) -> list[RoundTask]:
        """The tasks of a round, for the members whose previous round succeeded."""
        recipe = self.key[1]
        found = []
        for member in range(3):
            source, values = member, self.hparams.get((member, round_ - 1)) or recipe.births()[member]
            if round_ == 3 and member == COPIED:
                source, values = ALONE, self.hparams[ALONE, 2]
            elif round_ == 3 and member == MOVED:
                values = recipe.changed(values)
            elif round_ == 4 and member == MOVED:
                source = COPIED
                values = {**self.hparams[COPIED, 3], "lr": 0.5 * self.hparams[COPIED, 3]["lr"]}
            self.hparams[member, round_], self.starts[member, round_] = values, source
            self.founders[member, round_] = self.founders.get((source, round_ - 1), member)
            before = self.outcomes.get((source, round_ - 1))
            if round_ == 1 or isinstance(before, Report):
                found.append(self.task(member, round_, STEPS, before, values, source))
        return found

    def task(self, member: int, round_: int, steps: int, before: Any, values: Values, source: int) -> RoundTask:
        """A task of this program, with member ids that are unique among all programs."""
        start: tuple[StateRef, Stored] | None = None
        if before is not None:
            start = StateRef(10 * self.number + source, round_ - 1), before.stored
        return make_task(
            10 * self.number + member,
            round_,
            start,
            hparams={**values, WHICH: self.which},
            first_step=STEPS * (round_ - 1),
            steps=steps,
            founder=10 * self.number + self.founders[member, round_],
        )

    def whole(self) -> RoundTask:
        """A single round of all steps of the first member."""
        return self.task(ALONE, 1, TOTAL, None, self.key[1].births()[ALONE], ALONE)

    def report(self, member: int, round_: int) -> Report:
        """The report of a member's round; a failure is an AssertionError."""
        outcome = self.outcomes.get((member, round_))
        assert isinstance(outcome, Report), (
            f"member {member}, round {round_}: {getattr(outcome, 'message', 'no start')}"
        )
        return outcome


def perform(executor: Executor, keys: Sequence[Key], backwards: bool = False) -> dict[Key, Script]:
    """Train all programs under the script, then the first member of each in a single round.

    Args:
        executor: The executor.
        keys: The programs.
        backwards: Submit every wave in reverse order.
    """
    scripts = {key: Script(key, which) for which, key in enumerate(keys)}
    for form in dict.fromkeys(form for form, _ in keys):
        own = [script for script in scripts.values() if script.key[0] == form]
        for round_ in range(1, ROUNDS + 1):
            _collect(executor, own, [task for script in own for task in script.tasks(round_)], round_, backwards)
        _collect(executor, own, [script.whole() for script in own], 0, backwards)
    return scripts


def _collect(executor: Executor, own: Sequence[Script], tasks: list[RoundTask], round_: int, backwards: bool) -> None:
    named = {script.number: script for script in own}
    for (member, _), outcome in finish(executor, tasks[::-1] if backwards else tasks).items():
        named[member // 10].outcomes[member % 10, round_] = outcome
