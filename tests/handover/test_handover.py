"""The executors keep the laws of the hand-over."""

import pytest

from pbt.executors.inline import InlineExecutor
from pbt.executors.processes import ProcessExecutor
from pbt.executors.vectorized.executor import ProgramSetup
from pbt.testing.handover import HandoverContract

# On one worker of pytest, so that the reference is trained once.
pytestmark = pytest.mark.xdist_group("handover")


class TestInlineInChunks(HandoverContract):
    together = ProgramSetup.of
    chunk = 2

    def make_executor(self, setup):
        return InlineExecutor(setup)


class TestTwoProcesses(HandoverContract):
    forms = ("class", "supervised", "vectorized")  # a function saves and loads by itself; below it is there, too
    together = ProgramSetup.of

    def make_executor(self, setup):
        return ProcessExecutor(setup, ["cpu"] * 2)


@pytest.mark.slow
class TestThreeProcesses(HandoverContract):
    together = ProgramSetup.of

    def make_executor(self, setup):
        return ProcessExecutor(setup, ["cpu"] * 3)


@pytest.mark.slow
class TestOneProcess(HandoverContract):
    together = ProgramSetup.of

    def make_executor(self, setup):
        return ProcessExecutor(setup, ["cpu"])


@pytest.mark.slow
class TestMorePrograms(HandoverContract):
    together = ProgramSetup.of
    each, start = 8, 1

    def make_executor(self, setup):
        return InlineExecutor(setup)
