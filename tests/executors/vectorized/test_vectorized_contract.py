"""The population as one program keeps the contract of supervised tasks, whole and in chunks."""

from pbt.executors.base import Executor
from pbt.executors.vectorized import VectorizedExecutor
from pbt.executors.worker import Setup
from pbt.testing.supervised import SupervisedContract
from pbt.testing.varieties import NetworksContract


class TestVectorized(NetworksContract):
    exact = False

    def make_executor(self, setup: Setup) -> Executor:
        return VectorizedExecutor(setup)


class TestInChunks(SupervisedContract):
    exact = False

    def make_executor(self, setup: Setup) -> Executor:
        return VectorizedExecutor(setup, chunk=2)
