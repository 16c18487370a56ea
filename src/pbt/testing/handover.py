"""The contract of hand-overs, for every form of task: subclass `HandoverContract` and implement `make_executor`.

```python
class TestCopiesOfMyExecutor(HandoverContract):
    together = VectorizedWorkerSpec.of

    def make_executor(self, setup):
        return MyExecutor(setup)
```

Small programs drawn by Hypothesis (`pbt.testing.recipes`) are trained under the same script of decisions: one member
continues alone, one copies it, one gets other hyperparameters. All programs share one start of the executor
(`Several`); the results are compared with those of the inline executor and with plain torch.
"""

# ruff: noqa: S101 (these are tests)

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from pbt.executors.base import Executor
from pbt.executors.base_values import MARK
from pbt.executors.inline import InlineExecutor
from pbt.executors.worker import WorkerSpec
from pbt.store.files import StateFiles
from pbt.testing.recipes import FORMS, ROUNDS, STEPS, Form, drawn
from pbt.testing.scripts import ALONE, COPIED, Key, Script, Several, Together, perform, plain
from pbt.testing.states import check_close, state_of

Law = Callable[[Script, Script], None]
"""Checks a program against the same one trained by the inline executor; raises AssertionError if it is violated."""


def trained(script: Script, wanted: Script) -> None:  # noqa: ARG001 (all have one signature)
    """Every round of every member succeeds."""
    for member in range(3):
        for round_ in range(1, ROUNDS + 1):
            script.report(member, round_)
    script.report(ALONE, 0)


def same(script: Script, wanted: Script) -> None:
    """Scores, reported values and digests of all states equal those of the reference."""
    for place in wanted.outcomes:
        own, other = script.report(*place), wanted.report(*place)
        assert own.scores == other.scores, place
        assert own.reported == other.reported, place
        assert own.stored.digest == other.stored.digest, place


def close(script: Script, wanted: Script) -> None:
    """States and scores equal those of the reference up to rounding."""
    for place in wanted.outcomes:
        own, other = script.report(*place), wanted.report(*place)
        check_close(own.scores, other.scores, f"scores of {place}")
        check_close(state_of(own.stored), state_of(other.stored), f"{place}")


def cut(script: Script, wanted: Script) -> None:  # noqa: ARG001
    """The rounds of an unchanged member equal a single round of all steps, in state, score and rates."""
    form, recipe = script.key
    if recipe.evaluation == "kept" or (
        form in ("supervised", "vectorized") and recipe.scheduler == "ReduceLROnPlateau"
    ):
        return  # four evaluations change the state four times
    whole, last = script.report(ALONE, 0), script.report(ALONE, ROUNDS)
    check_close(unmarked(state_of(last.stored)), unmarked(state_of(whole.stored)), tolerance=0.0)
    assert last.scores == whole.scores
    if form != "vectorized":
        steps = [used for r in range(1, ROUNDS + 1) for used in script.report(ALONE, r).reported["used"]]
        assert steps == whole.reported["used"]


def unmarked(state: Any) -> Any:
    """The state without the base values in the parameter groups, which are updated every round."""
    if isinstance(state, dict):
        return type(state)({key: unmarked(value) for key, value in state.items() if key != MARK})
    return [unmarked(value) for value in state] if isinstance(state, list) else state


def copied(script: Script, wanted: Script) -> None:  # noqa: ARG001
    """A copy with its donor's hyperparameters trains exactly like the donor."""
    for round_ in (3, 4):
        donor, copy = script.report(ALONE, round_), script.report(COPIED, round_)
        check_close(state_of(copy.stored), state_of(donor.stored), tolerance=0.0)
        assert copy.scores == donor.scores
        assert copy.reported == donor.reported


def rates(script: Script, wanted: Script) -> None:  # noqa: ARG001
    """Every step uses the same settings as plain torch under the logged hyperparameters."""
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
    """A state includes the effects of training and evaluation, or of training alone if the task requests it."""
    form, recipe = script.key
    if form != "class" or recipe.evaluation == "pure":
        return
    for round_ in range(1, ROUNDS + 1):
        tally = state_of(script.report(ALONE, round_).stored)["tally"]
        assert float(tally["evaluations"]) == (round_ if recipe.evaluation == "kept" else 0)


@functools.cache
def reference(keys: tuple[Key, ...], together: Together | None = None) -> Mapping[Key, Script]:
    """The programs trained by the inline executor."""
    with InlineExecutor(Several(task=keys, states=StateFiles(None), together=together)) as executor:  # type: ignore[arg-type]
        return perform(executor, keys)


def broken(law: Law, found: Mapping[Key, Script], wanted: Mapping[Key, Script]) -> dict[Key, str]:
    """The programs that violate the law, with the error."""
    errors: dict[Key, str] = {}
    for key, script in found.items():
        try:
            law(script, wanted[key])
        except AssertionError as error:
            errors[key] = str(error) or "not equal"
    return errors


class HandoverContract(ABC):
    """The laws of a hand-over, one test each, for every form of task.

    Attributes:
        forms: The forms of task that the executor trains.
        each: Number of programs per form and kind of scheduler.
        start: The seed of the drawn programs.
        together: `VectorizedWorkerSpec.of`; None to leave out the vectorized form.
        members_per_program: The most members of one vectorized program; None for all of a wave.
    """

    forms: Sequence[Form] = FORMS
    each = 1
    start = 0
    together: Together | None = None
    members_per_program: int | None = None

    @abstractmethod
    def make_executor(self, setup: WorkerSpec) -> Executor:
        """A new executor of these workers, not yet started; its device must be `setup.device`."""

    @pytest.fixture(scope="class")
    @classmethod
    def scripts(cls) -> Mapping[Key, Script]:
        """All programs, trained by one start of the executor."""
        keys = programs_of(tuple(cls.forms), cls.each, cls.start)
        setup = Several(
            task=keys,  # type: ignore[arg-type]
            states=StateFiles(None),
            together=cls.together,
            members_per_program=cls.members_per_program,
        )
        with cls().make_executor(setup) as executor:
            return perform(executor, keys, backwards=True)

    def check(self, law: Law, scripts: Mapping[Key, Script], forms: Sequence[Form], other: Form | None = None) -> None:
        """Fail with the programs of these forms that violate the law; `other` is the form to compare with."""
        own = {key: script for key, script in scripts.items() if key[0] in forms}
        if not own:
            pytest.skip("the executor does not train this form")
        compared = (other,) if other else tuple(form for form in FORMS if form in forms)
        wanted = reference(programs_of(compared, self.each, self.start), self.together)
        errors = broken(law, own, {key: wanted[other or key[0], key[1]] for key in own})
        shown = "\n".join(f"{key}: {error}" for key, error in list(errors.items())[:3])
        assert not errors, f"{len(errors)} of {len(own)} programs, the first of them\n{shown}"

    @pytest.mark.parametrize("form", FORMS)
    def test_every_round_succeeds(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """Every round of every member succeeds."""
        self.check(trained, scripts, [form])

    @pytest.mark.parametrize("form", FORMS)
    def test_the_results_of_inline(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """Scores, reports and digests equal those of the inline executor, up to rounding if programs are split."""
        rounded = form == "vectorized" and self.members_per_program is not None
        self.check(close if rounded else same, scripts, [form])

    def test_vectorized_agrees_with_supervised(self, scripts: Mapping[Key, Script]) -> None:
        """A task trained as one program has the scores and states of separate training, up to rounding."""
        self.check(close, scripts, ["vectorized"], "supervised")

    @pytest.mark.parametrize("form", FORMS)
    def test_rounds_change_nothing(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """The rounds of an unchanged member equal a single round of all steps, to the bit."""
        self.check(cut, scripts, [form])

    @pytest.mark.parametrize("form", FORMS)
    def test_a_copy_goes_on_as_its_donor(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """A copy with its donor's hyperparameters trains exactly like the donor, to the bit."""
        self.check(copied, scripts, [form])

    @pytest.mark.parametrize("form", ["function", "class", "supervised"])
    def test_every_step_uses_what_the_log_says(self, scripts: Mapping[Key, Script], form: Form) -> None:
        """Every step uses the settings of plain torch, built with the logged hyperparameters."""
        self.check(rates, scripts, [form])

    def test_a_state_is_one_moment(self, scripts: Mapping[Key, Script]) -> None:
        """A state of the class form includes training and evaluation, or training alone if the task requests it."""
        self.check(moment, scripts, ["class"])


@functools.cache
def programs_of(forms: Sequence[Form], each: int, start: int) -> tuple[Key, ...]:
    """The programs of these forms; those trained as one vectorized program are also trained separately.

    Recipes with draws that are not saved are left out of the vectorized form, which rejects them.
    """
    found: list[Key] = []
    for form in forms:
        own = drawn("supervised" if form == "vectorized" else form, each, start)
        one = [recipe.saved for recipe in own] if form in ("supervised", "vectorized") else []
        found += [(form, recipe) for recipe in dict.fromkeys(one if form == "vectorized" else [*own, *one])]
    return tuple(found)
