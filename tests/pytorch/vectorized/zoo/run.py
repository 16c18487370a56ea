"""Run a case: as one program and with members alone, and compare."""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pbt.errors import TaskError
from pbt.executors.inline import InlineExecutor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch import SupervisedTask
from pbt.pytorch.vectorized import VectorizedExecutor
from pbt.runs.auto_placement import choose
from pbt.runs.placement import Placement
from pbt.store.files import StateFiles
from pbt.testing.states import state_of
from tests.helpers.trajectories import Trajectory
from tests.pytorch.vectorized.zoo.cases import NOISE, Case, Refused

STEPS = (4, 4)
"""Steps of the two rounds; an epoch has three, the last with fewer examples."""
ROUNDING = {torch.float64: 1e-9, torch.float32: 2e-4, torch.bfloat16: 3e-2, torch.float16: 3e-3}
"""The largest difference by rounding, relative to the largest number of a tensor, by the type of the computation.

Two orders of a sum differ by some units in the last place (1.1e-16, 6e-8, 4e-3 and 5e-4); eight steps with momentum
amplify this by a few orders at most. A different gradient, mode or draw differs by 1e-3 and more: each case also checks
that members with other learning rates are further apart than 20 times this.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a case gave: `equal`, `noise`, `refused`, or a defect (`different`, `late`, `fails`), and details."""

    word: str
    text: str = ""


@contextmanager
def defaults(dtype: torch.dtype) -> Iterator[None]:
    """A default type of numbers, without the warnings of the cases' own layers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)


def births_of(case: Case) -> list[dict[str, Any]]:
    """The hyperparameters of the first round."""
    return [dict(values) for values in case.hparams]


def refusal_of(case: Case) -> str | None:
    """The message with which one program refuses the case before the start; None: it is accepted."""
    placement = Placement(executor="vectorized", device="cpu", workers=1, threads=1)
    try:
        choose(placement, case.task, births_of(case))
    except TaskError as error:
        return str(error)
    return None


def train(case: Case, executor: Any, task: SupervisedTask | None = None) -> list[Trajectory]:
    """The course after each of two rounds, with a copy and new hyperparameters between them."""
    values = dict(enumerate(births_of(case)))
    second = {member: values[(member + 1) % len(values)] for member in values}
    setup = WorkerSpec(task=task or case.task, states=StateFiles(None))
    with executor(setup) as one:
        course = Trajectory(one).train(STEPS[0], values)
        if course.failures:
            return [course]
        return [course, Trajectory(one, course.step, course.round, dict(course.stored)).train(STEPS[1], second, {0: 1})]


def run(case: Case) -> Result:
    """Run a case."""
    with defaults(case.dtype):
        message = refusal_of(case)
        if message is not None:
            return Result("refused", message)
        if case.word == NOISE:
            return _noise(case)
        return compared(case, case.task)


def compared(case: Case, task: SupervisedTask) -> Result:
    """Compare one program with members alone."""
    expected, found = (train(case, executor, task) for executor in (InlineExecutor, VectorizedExecutor))
    failures = [{m: f.message for m, f in course[-1].failures.items()} for course in (expected, found)]
    if failures[0]:
        return Result("fails" if failures[0].keys() != failures[1].keys() else "equal", f"{failures}")
    if failures[1]:
        late = any(failure.cause == "refused" for failure in found[-1].failures.values())
        return Result("late" if late else "different", f"{failures[1]}")
    tolerance = case.tolerance or ROUNDING[case.dtype]
    for before, after in zip(expected, found, strict=True):
        for member, report in before.reports.items():
            own = after.reports[member]
            for name, one, other in (
                ("state", state_of(own.stored), state_of(report.stored)),
                ("reported", dict(own.reported), dict(report.reported)),
                ("scores", own.scores, report.scores),
            ):
                text = difference(one, other, f"round {before.round}, member {member}: {name}", tolerance)
                if text:
                    return Result("different", text)
    states = [state_of(report.stored) for report in expected[-1].reports.values()]
    if case.moves and not difference(states[0]["model"], states[2]["model"], "", 20 * tolerance):
        return Result("fails", "members with other hyperparameters have the same weights: the case shows nothing")
    return Result("equal")


def _noise(case: Case) -> Result:
    """Draws alone differ: equal without draws, and the same bits twice."""
    assert case.silent is not None
    still = compared(case, case.silent)
    if still.word != "equal":
        return Result(still.word, f"without draws: {still.text}")
    twice = [train(case, VectorizedExecutor)[-1] for _ in range(2)]
    if twice[0].digests != twice[1].digests:
        return Result("different", "two runs with the same seed differ")
    result = compared(case, case.task)
    return Result("noise", result.text) if result.word == "different" else result


def difference(found: Any, expected: Any, where: str, tolerance: float) -> str:
    """The first difference of two nested containers; empty: none."""
    if type(found) is not type(expected):
        return f"{where}: {type(found).__name__} instead of {type(expected).__name__}"
    if isinstance(expected, Tensor):
        return _of_tensors(found, expected, where, tolerance)
    if isinstance(expected, (Mapping, list, tuple)):
        pairs = expected.items() if isinstance(expected, Mapping) else enumerate(expected)
        if list(found) != list(expected) if isinstance(expected, Mapping) else len(found) != len(expected):
            return f"{where}: {list(found)} instead of {list(expected)}"
        return next(filter(None, (difference(found[k], v, f"{where}.{k}", tolerance) for k, v in pairs)), "")
    if isinstance(expected, float):
        close = found == expected or abs(found - expected) <= tolerance * max(1.0, abs(expected))
        return (
            "" if close or (math.isnan(found) and math.isnan(expected)) else f"{where}: {found} instead of {expected}"
        )
    return "" if found == expected else f"{where}: {found!r} instead of {expected!r}"


def _of_tensors(found: Tensor, expected: Tensor, where: str, tolerance: float) -> str:
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return f"{where}: {found.dtype} {tuple(found.shape)} instead of {expected.dtype} {tuple(expected.shape)}"
    if not expected.numel():
        return ""
    wide = torch.promote_types(expected.dtype, torch.float64)
    one, other = found.to(wide), expected.to(wide)
    scale = max(1.0, float(other.abs().nan_to_num().max()))
    apart = float((one - other).abs().nan_to_num().max())
    same = torch.equal(one.isnan(), other.isnan())
    return "" if apart <= tolerance * scale and same else f"{where}: {apart:.3g} apart"


def agrees(case: Case, result: Result) -> str:
    """The reason why a result is not the expected word; empty: it is."""
    if not isinstance(case.word, Refused):
        return "" if result.word == case.word else f"expected {case.word}, got {result.word}: {result.text}"
    if result.word != "refused":
        return f"expected a refusal with {case.word.facts}, got {result.word}: {result.text}"
    missing = [fact for fact in case.word.facts if fact not in result.text]
    if missing or ("use the executor 'processes'" in result.text) != case.word.remedy:
        return f"expected {case.word}, got the message: {result.text}"
    return ""
