"""The executors that train members apart keep the contract of supervised tasks."""

from pbt.executors.base import Executor
from pbt.executors.inline import InlineExecutor
from pbt.executors.processes import ProcessExecutor
from pbt.executors.worker import Setup
from pbt.testing.supervised import AgreementContract, SupervisedContract


class TestInline(SupervisedContract):
    def make_executor(self, setup: Setup) -> Executor:
        return InlineExecutor(setup)


class TestProcesses(AgreementContract):
    def make_executor(self, setup: Setup) -> Executor:
        return ProcessExecutor(setup, ["cpu"] * 2)
