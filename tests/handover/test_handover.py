"""The executors keep the laws of the hand-over."""

import pytest

from pbt.errors import TaskError
from pbt.executors.inline import InlineExecutor
from pbt.executors.processes import ProcessExecutor
from pbt.pytorch.vectorized.executor import VectorizedWorkerSpec
from pbt.store.files import StateFiles
from pbt.testing.forms import task_of
from pbt.testing.handover import HandoverContract
from pbt.testing.recipes import drawn
from tests.helpers.warm import warm_workers

# On one worker of pytest, so that the reference is trained once.
pytestmark = pytest.mark.xdist_group("handover")


@pytest.mark.parametrize("recipe", [r for r in drawn("supervised") if r != r.saved], ids=lambda r: r.scheduler)
def test_what_a_network_draws_and_does_not_save_is_no_program(recipe):
    """One program refuses it before the start, and says which executor trains it."""
    task = task_of("supervised", recipe)
    with pytest.raises(TaskError, match=r"which its state_dict does not save.*use the executor 'processes'"):
        VectorizedWorkerSpec(task=task, states=StateFiles(None)).open()


@pytest.mark.slow
class TestInlineInChunks(HandoverContract):
    together = VectorizedWorkerSpec.of
    members_per_program = 2

    def make_executor(self, setup):
        return InlineExecutor(setup)


class TestTwoProcesses(HandoverContract):
    forms = ("class", "vectorized")
    together = VectorizedWorkerSpec.of

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _warm(cls):
        with warm_workers():
            yield

    def make_executor(self, setup):
        return ProcessExecutor(setup, ["cpu"] * 2)


@pytest.mark.slow
class TestTwoProcessesAndAllForms(TestTwoProcesses):
    forms = HandoverContract.forms


@pytest.mark.slow
class TestThreeProcesses(HandoverContract):
    together = VectorizedWorkerSpec.of

    def make_executor(self, setup):
        return ProcessExecutor(setup, ["cpu"] * 3)


@pytest.mark.slow
class TestOneProcess(HandoverContract):
    together = VectorizedWorkerSpec.of

    def make_executor(self, setup):
        return ProcessExecutor(setup, ["cpu"])


@pytest.mark.slow
class TestMorePrograms(HandoverContract):
    together = VectorizedWorkerSpec.of
    each, start = 8, 1

    def make_executor(self, setup):
        return InlineExecutor(setup)
