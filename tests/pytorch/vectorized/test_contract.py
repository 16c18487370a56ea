"""Programs keep the contract of supervised tasks: one for all, one after the other, and shared out over workers."""

import pytest

from pbt.executors.base import Executor
from pbt.executors.worker import WorkerSpec
from pbt.pytorch.vectorized import VectorizedExecutor, VectorizedWorkerSpec
from tests.helpers.pool import Pool
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

    @pytest.fixture(autouse=True)
    def _pool(self, pool: Pool) -> None:
        self.pool = pool

    def make_executor(self, setup: WorkerSpec) -> Executor:
        return self.pool(VectorizedWorkerSpec.of(setup, members_per_program=2))
