"""The 1,797 digits of scikit-learn, 8 x 8 pixels each, split anew for every seed.

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
"""Where these images stand in the order of a seed; training images stand before."""


class Splits(NamedTuple):
    """Images (n, 64) with pixels from 0 to 1, and their digits (n,)."""

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
    """The three disjoint splits under a seed, which orders the images; the first `examples` are for training."""
    x, y = images()
    order = np.random.default_rng(seed).permutation(len(y))
    x, y = x[order], y[order]
    return Splits((x[:examples], y[:examples]), (x[VALIDATION], y[VALIDATION]), (x[TEST], y[TEST]))
