"""The executors that train members apart keep the contract of supervised tasks."""

import pytest

from pbt.executors.base import Executor
from pbt.executors.inline import InlineExecutor
from pbt.executors.processes import ProcessExecutor
from pbt.executors.worker import WorkerSpec
from tests.helpers.supervised import AgreementContract, SupervisedContract


class TestInline(SupervisedContract):
    def make_executor(self, setup: WorkerSpec) -> Executor:
        return InlineExecutor(setup)


@pytest.mark.usefixtures("warm")
class TestProcesses(AgreementContract):
    def make_executor(self, setup: WorkerSpec) -> Executor:
        return ProcessExecutor(setup, ["cpu"] * 2)
