"""The laws of the hand-over, for every form of task: subclass `HandoverContract`, say how an executor is made.

```python
class TestMyExecutor(HandoverContract):
    def make_executor(self, setup):
        return MyExecutor(setup)
```

Little programs, drawn by Hypothesis (`pbt.testing.recipes`), are trained by the same script of decisions: a member goes
on alone, one copies it, one gets other hyperparameters. All programs share one start of the executor (`Several`), and
its results are compared with those of the inline executor and with plain torch.
"""

# ruff: noqa: S101 (these are tests)

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.optim.optimizer as torch_optimizer

from pbt.core.population import StateRef, Stored
from pbt.executors.base import Executor, Outcome, Report, Share, Task
from pbt.executors.inline import InlineExecutor
from pbt.executors.vectorized.executor import ProgramSetup
from pbt.executors.worker import Setup, Trainer, failure
from pbt.store.files import StateFiles
from pbt.testing import programs
from pbt.testing.courses import check_close, state_of
from pbt.testing.executors import finish, make_task
from pbt.testing.recipes import FORMS, ROUNDS, STEPS, TOTAL, Form, Recipe, Values, drawn

ALONE, COPIED, MOVED = 0, 1, 2
"""The members of the script: goes on alone; copies the first; gets other hyperparameters, then copies the second."""
MARK = "pbt_base"
"""The entry of a parameter group for the base values that are in effect."""
WHICH = "program"
"""The hyperparameter that says which of several programs a round is of."""

Key = tuple[Form, Recipe]


@dataclass(frozen=True, slots=True, kw_only=True)
class Several(Setup):
    """Workers that train several programs, so that one start of an executor serves them all.

    Args:
        task: The programs, as `(form, recipe)`.
        chunk: Members in one vectorized program at most; None: all of a wave.
    """

    chunk: int | None = None

    def of(self, which: int) -> Setup:
        """What a worker of one of the programs is made of."""
        keys: Any = self.task
        form, recipe = keys[which]
        common: Any = {"states": self.states, "device": self.device, "threads": self.threads}
        task = programs.task_of(form, recipe)
        return (
            ProgramSetup(task=task, chunk=self.chunk, **common) if form == "vectorized" else Setup(task=task, **common)
        )

    def shares(self, tasks: Sequence[Task]) -> list[Share]:
        """A vectorized program takes its members of a wave together."""
        keys: Any = self.task
        found: list[Share] = []
        for which in dict.fromkeys(task.hparams[WHICH] for task in tasks):
            own = [task for task in tasks if task.hparams[WHICH] == which]
            size = (self.chunk or len(own)) if keys[which][0] == "vectorized" else 1
            found += [tuple(own[start : start + size]) for start in range(0, len(own), size)]
        return found

    def open(self) -> Trainer:
        """A worker that opens each program when its first round comes."""
        return _Trainers(self)


class _Trainers:
    def __init__(self, setup: Several) -> None:
        self._setup = setup
        self._open: dict[int, Trainer] = {}

    def run(self, share: Share) -> list[Outcome]:
        """Train a share of one program; what each optimizer step used is added to what is reported."""
        which: Any = share[0].hparams[WHICH]
        own = [replace(t, hparams={n: v for n, v in t.hparams.items() if n != WHICH}) for t in share]
        try:
            if which not in self._open:
                self._open[which] = self._setup.of(which).open()
        except Exception as error:  # noqa: BLE001 (a program that cannot be made fails alone)
            return [failure(task, "refused", repr(error)) for task in own]
        with recorded() as used:
            outcomes = self._open[which].run(tuple(own))
        if len(share) > 1 or not isinstance(outcomes[0], Report):
            return outcomes
        return [replace(outcomes[0], reported={**outcomes[0].reported, "used": used})]


@contextmanager
def recorded() -> Iterator[list[Any]]:
    """What every step of an optimizer inside used: per group the learning rate, the weight decay and the momentum."""
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
    """What every step uses in plain torch, where the optimizer is built with these hyperparameters."""
    hparams = dict(values)
    with torch.random.fork_rng(), recorded() as used:
        parts = programs.build(recipe, hparams, {**programs.BUILT, **hparams})
        programs.train(recipe, parts, hparams["lr"], range(TOTAL))
    return used


@dataclass
class Script:
    """What became of one program under the script.

    Args:
        key: Form and recipe.
        which: Its place among the programs.
    """

    key: Key
    which: int
    number: int = 0
    """Its place among the programs of its form: the same task in two forms has the same members."""
    outcomes: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    """By member and round; round 0 is all rounds of the first member as one."""
    hparams: dict[tuple[int, int], Values] = field(default_factory=dict)
    starts: dict[tuple[int, int], int] = field(default_factory=dict)
    """Whose state of the round before it was."""
    founders: dict[tuple[int, int], int] = field(default_factory=dict)

    def tasks(self, round_: int) -> list[Task]:
        """The tasks of a round, of those members whose start is there."""
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

    def task(self, member: int, round_: int, steps: int, before: Any, values: Values, source: int) -> Task:
        """A task of this program, whose members have numbers of their own among all programs."""
        start: tuple[StateRef, Stored] | None = None
        if before is not None:
            start = StateRef(10 * self.number + source, round_ - 1), before.stored
        more: Values = {}
        if "founder" in Task.__dataclass_fields__:
            more["founder"] = 10 * self.number + self.founders[member, round_]
        return make_task(
            10 * self.number + member,
            round_,
            start,
            hparams={**values, WHICH: self.which},
            first_step=STEPS * (round_ - 1),
            steps=steps,
            **more,
        )

    def whole(self) -> Task:
        """All rounds of the first member as one."""
        return self.task(ALONE, 1, TOTAL, None, self.key[1].births()[ALONE], ALONE)

    def report(self, member: int, round_: int) -> Report:
        """The report of a member's round, which must not have failed."""
        outcome = self.outcomes.get((member, round_))
        assert isinstance(outcome, Report), (
            f"member {member}, round {round_}: {getattr(outcome, 'message', 'no start')}"
        )
        return outcome


def perform(executor: Executor, keys: Sequence[Key], backwards: bool = False) -> dict[Key, Script]:
    """Train all of these programs by the script, then the first member of each in a single round.

    Args:
        executor: Trains them.
        keys: The programs.
        backwards: Submit every wave in reverse order.
    """
    scripts = {key: Script(key, which) for which, key in enumerate(keys)}
    for form in dict.fromkeys(form for form, _ in keys):
        own = [script for script in scripts.values() if script.key[0] == form]
        for number, script in enumerate(own):
            script.number = number
        for round_ in range(1, ROUNDS + 1):
            _collect(executor, own, [task for script in own for task in script.tasks(round_)], round_, backwards)
        _collect(executor, own, [script.whole() for script in own], 0, backwards)
    return scripts


def _collect(executor: Executor, own: Sequence[Script], tasks: list[Task], round_: int, backwards: bool) -> None:
    for (member, _), outcome in finish(executor, tasks[::-1] if backwards else tasks).items():
        own[member // 10].outcomes[member % 10, round_] = outcome


Law = Callable[[Script, Script], None]
"""Of a program, and of the same one as the inline executor trained it; AssertionError where it is broken."""


def trained(script: Script, wanted: Script) -> None:  # noqa: ARG001 (all have one signature)
    """Every round of every member succeeds."""
    for member in range(3):
        for round_ in range(1, ROUNDS + 1):
            script.report(member, round_)
    script.report(ALONE, 0)


def same(script: Script, wanted: Script) -> None:
    """Scores, everything that is reported and the digests of all states are those of the reference."""
    for place in wanted.outcomes:
        own, other = script.report(*place), wanted.report(*place)
        assert own.scores == other.scores, place
        assert own.reported == other.reported, place
        assert own.stored.digest == other.stored.digest, place


def close(script: Script, wanted: Script) -> None:
    """States and scores agree with those of the reference to rounding."""
    for place in wanted.outcomes:
        own, other = script.report(*place), wanted.report(*place)
        check_close(own.scores, other.scores, f"scores of {place}")
        check_close(state_of(own.stored), state_of(other.stored), f"{place}")


def cut(script: Script, wanted: Script) -> None:  # noqa: ARG001
    """All rounds of a member to which nothing happens equal one round of all steps: state, score and rates."""
    form, recipe = script.key
    if recipe.evaluation == "kept" or (
        form in ("supervised", "vectorized") and recipe.scheduler == "ReduceLROnPlateau"
    ):
        return  # what evaluation does, four evaluations do four times
    whole, last = script.report(ALONE, 0), script.report(ALONE, ROUNDS)
    check_close(unmarked(state_of(last.stored)), unmarked(state_of(whole.stored)), tolerance=0.0)
    assert last.scores == whole.scores
    if form != "vectorized":
        steps = [used for r in range(1, ROUNDS + 1) for used in script.report(ALONE, r).reported["used"]]
        assert steps == whole.reported["used"]


def unmarked(state: Any) -> Any:
    """The state without the base values that parameter groups are marked with, which is done once a round."""
    if isinstance(state, dict):
        return type(state)({key: unmarked(value) for key, value in state.items() if key != MARK})
    return [unmarked(value) for value in state] if isinstance(state, list) else state


def copied(script: Script, wanted: Script) -> None:  # noqa: ARG001
    """A copy with the hyperparameters of its donor trains what the donor trains."""
    for round_ in (3, 4):
        donor, copy = script.report(ALONE, round_), script.report(COPIED, round_)
        check_close(state_of(copy.stored), state_of(donor.stored), tolerance=0.0)
        assert copy.scores == donor.scores
        assert copy.reported == donor.reported


def rates(script: Script, wanted: Script) -> None:  # noqa: ARG001
    """Every step uses what plain torch would use at it under the hyperparameters that the log has."""
    form, recipe = script.key
    if form == "supervised" and recipe.scheduler == "ReduceLROnPlateau":
        return  # its rates depend on losses
    for (member, round_), values in script.hparams.items():
        report = script.report(member, round_)
        used = plain(recipe, tuple(values.items()))[STEPS * (round_ - 1) : STEPS * round_]
        check_close(report.reported["used"], used, f"member {member}, round {round_}: used")
        for name in ("activation", "slope"):
            if name in values and name in report.reported:
                assert report.reported[name] == values[name], (member, round_)


def moment(script: Script, wanted: Script) -> None:  # noqa: ARG001
    """A state holds what training and evaluation made of it, or training alone where the task says so."""
    form, recipe = script.key
    if form != "class" or recipe.evaluation == "pure":
        return
    for round_ in range(1, ROUNDS + 1):
        tally = state_of(script.report(ALONE, round_).stored)["tally"]
        assert float(tally["evaluations"]) == (round_ if recipe.evaluation == "kept" else 0)


@functools.cache
def reference(keys: tuple[Key, ...]) -> Mapping[Key, Script]:
    """The programs trained by the inline executor."""
    with InlineExecutor(Several(task=keys, states=StateFiles(None))) as executor:  # type: ignore[arg-type]
        return perform(executor, keys)


def broken(law: Law, found: Mapping[Key, Script], wanted: Mapping[Key, Script]) -> dict[Key, str]:
    """The programs for which the law does not hold, with what is wrong."""
    errors: dict[Key, str] = {}
    for key, script in found.items():
        try:
            law(script, wanted[key])
        except AssertionError as error:
            errors[key] = str(error) or "not equal"
    return errors


class HandoverContract(ABC):
    """The laws, one test each, for every form of task.

    Attributes:
        forms: Those that the executor trains.
        each: Programs of each form per kind of scheduler.
        start: Another number draws other programs.
        chunk: Members in one vectorized program at most; None: all of a wave.
    """

    forms: Sequence[Form] = FORMS
    each = 1
    start = 0
    chunk: int | None = None

    @abstractmethod
    def make_executor(self, setup: Setup) -> Executor:
        """An executor of these workers, not yet started; its device must be `setup.device`."""

    @pytest.fixture(scope="class")
    @classmethod
    def scripts(cls) -> Mapping[Key, Script]:
        """All programs, trained by one start of the executor."""
        keys = programs_of(cls.forms, cls.each, cls.start)
        with cls().make_executor(Several(task=keys, states=StateFiles(None), chunk=cls.chunk)) as executor:  # type: ignore[arg-type]
            return perform(executor, keys, backwards=True)

    def check(self, law: Law, scripts: Mapping[Key, Script], forms: Sequence[Form], other: Form | None = None) -> None:
        """Fail with the programs of these forms that break the law; `other` is the form that they are compared with."""
        wanted = reference(programs_of(FORMS, self.each, self.start))
        own = {key: script for key, script in scripts.items() if key[0] in forms}
        if not own:
            pytest.skip("the executor does not train this form")
        errors = broken(law, own, {key: wanted[other or key[0], key[1]] for key in own})
        shown = "\n".join(f"{key}: {error}" for key, error in list(errors.items())[:3])
        assert not errors, f"{len(errors)} of {len(own)} programs, the first of them\n{shown}"

    @pytest.mark.parametrize("form", FORMS)
    def test_every_round_succeeds(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """Every round of every member succeeds."""
        self.check(trained, scripts, [form])

    @pytest.mark.parametrize("form", FORMS)
    def test_the_results_of_inline(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """Scores, reported values and digests are those of the inline executor; to rounding where chunks differ."""
        rounded = form == "vectorized" and self.chunk is not None
        self.check(close if rounded else same, scripts, [form])

    def test_vectorized_agrees_with_supervised(self, scripts: Mapping[Key, Script]) -> None:
        """A task trained as one program has the scores and states of the same task trained apart, to rounding."""
        self.check(close, scripts, ["vectorized"], "supervised")

    @pytest.mark.parametrize("form", FORMS)
    def test_rounds_change_nothing(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """All rounds of a member that goes on alone equal one round of all steps, to the bit."""
        self.check(cut, scripts, [form])

    @pytest.mark.parametrize("form", FORMS)
    def test_a_copy_goes_on_as_its_donor(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """A copy under its donor's hyperparameters trains what the donor trains, to the bit."""
        self.check(copied, scripts, [form])

    @pytest.mark.parametrize("form", ["function", "class", "supervised"])
    def test_every_step_uses_what_the_log_says(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """Every step uses the settings of plain torch, built with the hyperparameters that the log has for it."""
        self.check(rates, scripts, [form])

    def test_a_state_is_one_moment(self, scripts: Mapping[Key, Script]) -> None:
        """A state of the class form holds training and evaluation, or training alone where the task says so."""
        self.check(moment, scripts, ["class"])


@functools.cache
def programs_of(forms: Sequence[Form], each: int, start: int) -> tuple[Key, ...]:
    """The programs of these forms; what is trained as one program is also trained apart."""
    own: Mapping[Form, Form] = {"vectorized": "supervised"}
    return tuple((form, recipe) for form in forms for recipe in drawn(own.get(form, form), each, start))
