"""The 1,797 digits of scikit-learn, 8 x 8 pixels, with a split per seed.

Data: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pbt.errors import MissingExtraError

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

VALIDATION, TEST = slice(1000, 1397), slice(-400, None)
"""Positions of these images in the order of a seed, after the training images."""


class Splits(NamedTuple):
    """Images (n, 64) with pixels from 0 to 1, and digits (n,)."""

    train: tuple[Array, Labels]
    validation: tuple[Array, Labels]
    test: tuple[Array, Labels]


@cache
def images() -> tuple[Array, Labels]:
    """All images and digits, in scikit-learn's order.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("the digits of scikit-learn", "problems") from error
    x, y = load_digits(return_X_y=True)
    return x / 16.0, y.astype(np.int64)


@lru_cache(maxsize=8)
def splits(seed: int, examples: int) -> Splits:
    """Three disjoint splits of the images in the order of a seed; the first `examples` are for training."""
    x, y = images()
    order = np.random.default_rng(seed).permutation(len(y))
    x, y = x[order], y[order]
    return Splits((x[:examples], y[:examples]), (x[VALIDATION], y[VALIDATION]), (x[TEST], y[TEST]))
