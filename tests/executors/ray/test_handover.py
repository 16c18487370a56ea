"""Ray actors keep the laws of the hand-over."""

import pytest

from pbt.executors.ray.executor import RayExecutor
from pbt.pytorch.vectorized.executor import VectorizedWorkerSpec
from pbt.testing.handover import HandoverContract


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
class TestTwoActors(HandoverContract):
    together = VectorizedWorkerSpec.of

    def make_executor(self, setup):
        return RayExecutor(setup, workers=2)
