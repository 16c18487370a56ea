"""Programs keep the contract of supervised tasks: one for all, one after the other, and shared out over workers."""

from pbt.executors.base import Executor
from pbt.executors.processes import ProcessExecutor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch.vectorized import VectorizedExecutor, VectorizedWorkerSpec
from tests.helpers.supervised import AgreementContract, SupervisedContract
from tests.helpers.varieties import NetworksContract


class TestVectorized(NetworksContract):
    exact = False

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return VectorizedExecutor(setup)


class TestInChunks(SupervisedContract):
    exact = False

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return VectorizedExecutor(setup, members_per_program=2)


class TestInWorkers(AgreementContract):
    exact = False

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return ProcessExecutor(VectorizedWorkerSpec.of(setup, members_per_program=2), ["cpu"] * 2)
