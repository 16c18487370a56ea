"""The whole population as one program on one device."""

from pbt.executors.vectorized.elementwise import ELEMENTWISE, Elementwise
from pbt.executors.vectorized.executor import VectorizedExecutor

__all__ = ["ELEMENTWISE", "Elementwise", "VectorizedExecutor"]
