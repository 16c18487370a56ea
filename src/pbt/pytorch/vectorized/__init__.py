"""Many members as one program."""

from pbt.pytorch.vectorized.elementwise import ELEMENTWISE, Elementwise
from pbt.pytorch.vectorized.executor import ProgramSetup, VectorizedExecutor

__all__ = ["ELEMENTWISE", "Elementwise", "ProgramSetup", "VectorizedExecutor"]
