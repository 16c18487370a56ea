"""Training of many members as one program."""

from pbt.pytorch.vectorized.elementwise import ELEMENTWISE, Elementwise
from pbt.pytorch.vectorized.executor import VectorizedExecutor, VectorizedWorkerSpec

__all__ = ["ELEMENTWISE", "Elementwise", "VectorizedExecutor", "VectorizedWorkerSpec"]
