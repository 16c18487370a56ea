"""Stagnation of a series of scores: no rise, or too slow a rise. Functions of numbers.

The rules are those of IPBT (Chebykin et al. 2025, arXiv 2511.09190). The series is standardized and smoothed by a
Gaussian process with a Matérn-5/2 kernel. The paper's process is variational, with noise that varies along the series;
here it is exact, with constant noise, and its two parameters are the likeliest of a grid, so that equal series give
equal bits.
"""

import math
from collections.abc import Sequence

from pbt.strategies.surrogate import _tensor, one_thread

WINDOW = 15
"""The points over which a rise can be too slow."""
PATIENCE = 3
"""Points in succession without a rise that are stagnation."""
MOST = 100
"""The most points that are smoothed, the newest."""
_LENGTHS = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Length scales of the kernel, in points."""
_NOISES = (1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0)
"""Noise variances, in units of the variance of the series."""


def smoothed(series: Sequence[float]) -> list[float]:
    """The newest points of a series in units of its standard deviation, smoothed; zeros for a constant series."""
    values = _in_deviations(series[-MOST:])
    if not any(values):
        return values
    import torch

    with one_thread():
        targets = _tensor(values)[:, None]
        order = torch.arange(len(values), dtype=targets.dtype, device="cpu")
        gaps = (order[:, None] - order).abs()[None] / _tensor(_LENGTHS)[:, None, None]
        near = 5**0.5 * gaps
        kernels = ((1 + near + near**2 / 3) * (-near).exp())[:, None]
        noise = _tensor(_NOISES)[None, :, None, None] * torch.eye(len(values), dtype=targets.dtype, device="cpu")
        roots = torch.linalg.cholesky(kernels + noise)
        weights = torch.cholesky_solve(targets.expand(*roots.shape[:2], -1, -1), roots)
        fits = -(targets * weights).sum((-2, -1)) / 2 - roots.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        length, level = divmod(int(fits.argmax()), len(_NOISES))
        points: list[float] = (kernels[length, 0] @ weights[length, level])[:, 0].tolist()
    return points


def rises(curve: Sequence[float]) -> bool:
    """Whether the last point of a smoothed series is above the one before; a single point counts as a rise."""
    return len(curve) < 2 or curve[-1] > curve[-2]


def too_slow(curve: Sequence[float]) -> bool:
    """Whether a smoothed series rose by less than its standard deviation over the last `WINDOW` points."""
    return len(curve) >= WINDOW and curve[-1] - curve[-WINDOW] < 1


def _in_deviations(values: Sequence[float]) -> list[float]:
    """The values minus their mean, in units of their standard deviation; zeros if they are equal."""
    if min(values) == max(values):
        return [0.0] * len(values)
    # Scaled by the largest value, so that no square overflows: a score may be 1e200.
    unit = max(map(abs, values))
    mean = math.fsum(value / unit for value in values) / len(values)
    deviation = math.sqrt(math.fsum((value / unit - mean) ** 2 for value in values) / len(values))
    return [(value / unit - mean) / deviation if deviation else 0.0 for value in values]
