"""One program trains what each member alone would, or says truthfully why not: one test for each case of the table."""

import pytest

from pbt.errors import TaskError
from pbt.executors.inline import InlineExecutor
from pbt.executors.transport import check_sendable
from pbt.runs.auto_placement import choose
from pbt.runs.placement import Placement
from tests.pytorch.vectorized.zoo import CASES
from tests.pytorch.vectorized.zoo.cases import Refused
from tests.pytorch.vectorized.zoo.run import STEPS, agrees, births_of, defaults, run, train

REFUSED = [name for name, case in CASES.items() if isinstance(case.word, Refused)]


def table(names):
    """The cases as parameters; a sample runs by default."""
    of_all = [name for name in names if CASES[name].sample]
    kept = of_all[::3]
    marks = {name: () if name in kept else pytest.mark.long for name in of_all}
    return [pytest.param(name, marks=marks.get(name, pytest.mark.slow)) for name in names]


@pytest.mark.parametrize("name", table(CASES))
def test_the_expected_word(name) -> None:
    """The states and scores of two rounds with a copy between them are those of members alone, or the refusal is."""
    assert agrees(CASES[name], run(CASES[name])) == ""


@pytest.mark.parametrize("name", table(REFUSED))
def test_auto_trains_what_one_program_refuses(name) -> None:
    """`auto` takes members one by one and gives the reason; they are trained where the refusal says so."""
    case = CASES[name]
    with defaults(case.dtype):
        choice = choose(Placement(executor="auto", device="cpu", workers=2), case.task, births_of(case))
        assert choice.placement.executor == ("processes" if _is_sendable(case.task) else "inline")
        missing = [fact for fact in case.word.facts if fact not in choice.why]
        assert not missing, choice.why
        trained = not train(case, InlineExecutor)[-1].failures
    assert trained or not case.word.remedy


def _is_sendable(task):
    try:
        check_sendable(task)
    except TaskError:
        return False
    return True


def test_the_table_is_large_and_short() -> None:
    """The table has the cases that the documentation states, and a sample of them by default."""
    assert len(CASES) >= 550
    assert 40 <= sum(case.sample for case in CASES.values()) <= 90
    assert len(STEPS) == 2
