"""The table of cases; the modules add their cases when they are imported."""

from tests.pytorch.vectorized.zoo import behavior, layers, modules, noise, optimizers, options, tensors
from tests.pytorch.vectorized.zoo.cases import CASES

__all__ = ["CASES", "behavior", "layers", "modules", "noise", "optimizers", "options", "tensors"]
