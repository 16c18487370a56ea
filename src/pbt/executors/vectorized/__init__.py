"""Many members as one program."""

from pbt.executors.vectorized.elementwise import ELEMENTWISE, Elementwise
from pbt.executors.vectorized.executor import ProgramSetup, VectorizedExecutor

__all__ = ["ELEMENTWISE", "Elementwise", "ProgramSetup", "VectorizedExecutor"]
