"""The executors keep the laws of the hand-over."""

import pytest

from pbt.executors.inline import InlineExecutor
from pbt.executors.processes import ProcessExecutor
from pbt.testing.handover import HandoverContract

# On one worker of pytest, so that the reference is trained once.
pytestmark = pytest.mark.xdist_group("handover")


class TestInline(HandoverContract):
    def make_executor(self, setup):
        return InlineExecutor(setup)


class TestSmallChunks(HandoverContract):
    forms = ("vectorized",)
    chunk = 2

    def make_executor(self, setup):
        return InlineExecutor(setup)


class TestTwoProcesses(HandoverContract):
    def make_executor(self, setup):
        return ProcessExecutor(setup, ["cpu"] * 2)


@pytest.mark.slow
class TestThreeProcesses(HandoverContract):
    def make_executor(self, setup):
        return ProcessExecutor(setup, ["cpu"] * 3)


@pytest.mark.slow
class TestOneProcess(HandoverContract):
    def make_executor(self, setup):
        return ProcessExecutor(setup, ["cpu"])


@pytest.mark.slow
class TestMorePrograms(HandoverContract):
    each, start = 8, 1

    def make_executor(self, setup):
        return InlineExecutor(setup)
