"""Read the data set of a folder, in IDX or PNG files, and compare it with MNIST."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pbt.errors import DataError
from pbt.mnist.data.idx import IdxFile, Spec, digest_of, locate, read_idx_file
from pbt.mnist.data.png import is_png_folder, load_png_folder

LAYOUTS = ("", "MNIST/raw", "raw")  # flat; torchvision's root; a folder inside torchvision's root
_SHOWN = 5  # entries of a folder named in an error
_LOOKED_INTO = 100  # folders searched for the hint in an error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrays:
    """The two splits of a data set as stored."""

    train_x: npt.NDArray[np.uint8]  # (N, height, width) or (N, channels, height, width)
    train_y: npt.NDArray[np.integer]  # (N,)
    test_x: npt.NDArray[np.uint8]
    test_y: npt.NDArray[np.integer]
    names: tuple[str, str]  # of the training and the test labels, for errors
    source: str
    note: str

    def check(self, num_classes: int) -> None:
        """Check that each image has a label below `num_classes`, and all images have one size; raises DataError."""
        for x, y, name in ((self.train_x, self.train_y, self.names[0]), (self.test_x, self.test_y, self.names[1])):
            if len(x) != len(y):
                raise DataError(f"{name}: expected {len(x):,} labels, one for each image, found {len(y):,}")
            if (largest := int(y.max())) >= num_classes:
                raise DataError(
                    f"{name}: expected labels below num_classes = {num_classes}, found {largest}; raise num_classes"
                )
        one, other = self.train_x.shape[1:], self.test_x.shape[1:]
        if one != other:
            raise DataError(f"{self.source}: expected images of one size, found {one} in training and {other} in test")


def read_folder(
    root: Path, specs: Sequence[Spec], *, channels: int, pngs: Path, named: str | None = None
) -> Arrays | None:
    """The data set in a folder; None if it has none.

    Args:
        root: The folder.
        specs: The IDX files, and the checksums of MNIST's.
        channels: Channels of PNG images: 1 or 3.
        pngs: Cache folder of decoded PNG files.
        named: The setting that names the folder, which must then have a data set. Default: it need not have one.

    Raises:
        DataError: A file is damaged or missing from its set, or a named folder has no data set or cannot be read.
    """
    try:
        paths = _idx_files(root, specs)
        if paths is not None:
            return _from_idx(paths, specs)
        if is_png_folder(root):
            return _from_png(root, specs, channels, pngs)
        if named is not None:
            raise DataError(f"{named}: {_absence(root, specs)}")
    except OSError as error:
        raise DataError(
            f"{root.absolute()}: cannot be read ({error.strerror or error}); name another folder"
        ) from error
    return None


def whole_set(files: Sequence[IdxFile], folder: Path) -> Arrays:
    """MNIST itself, from files whose checksums were compared."""
    train_x, train_y, test_x, test_y = (file.values for file in files)
    names = (str(folder), str(folder))
    return Arrays(
        train_x=train_x, train_y=train_y, test_x=test_x, test_y=test_y, names=names, source=str(folder), note=""
    )


def _idx_files(root: Path, specs: Sequence[Spec]) -> list[Path] | None:
    """The four files of the first complete layout; None if no file of any layout exists."""
    if root.exists() and not root.is_dir():
        raise DataError(f"{root}: expected a folder with MNIST's four files, found a file")
    partial: dict[Path, list[str]] = {}
    for layout in LAYOUTS:
        folder = root / layout
        paths = [locate(folder, spec) for spec in specs]
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


def _from_idx(paths: Sequence[Path], specs: Sequence[Spec]) -> Arrays:
    files = [read_idx_file(path, spec.ndim) for path, spec in zip(paths, specs, strict=True)]
    known = [file.sha256 == spec.sha256 for file, spec in zip(files, specs, strict=True)]
    train_x, train_y, test_x, test_y = (file.values for file in files)
    return Arrays(
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        names=(str(paths[1]), str(paths[3])),
        source=str(paths[0].parent),
        note=_note(known, (len(train_x), len(test_x)), "in MNIST's file format"),
    )


def _from_png(root: Path, specs: Sequence[Spec], channels: int, pngs: Path) -> Arrays:
    train_x, train_y, test_x, test_y = load_png_folder(root, pngs, channels)
    stored: Sequence[npt.NDArray[Any]] = (train_x, train_y, test_x, test_y)
    known = [_is_known(values, spec) for values, spec in zip(stored, specs, strict=True)]
    return Arrays(
        train_x=train_x,
        train_y=train_y,
        test_x=test_x,
        test_y=test_y,
        names=(str(root / "train"), str(root / "test")),
        source=str(root),
        note=_note(known, (len(train_x), len(test_x)), "in PNG files"),
    )


def _is_known(values: npt.NDArray[Any], spec: Spec) -> bool:
    """Whether the values are those of MNIST's file, in the same order."""
    return values.size + 4 + 4 * values.ndim == spec.num_bytes and digest_of(values.astype(np.uint8)) == spec.sha256


def _note(known: Sequence[bool], counts: tuple[int, int], form: str) -> str:
    """The part of the set that is not MNIST's; "" if all of it is."""
    if all(known):
        return ""
    if not (known[0] or known[2]):
        return f"{counts[0]:,} + {counts[1]:,} images of another data set {form}: not MNIST"
    return f"{_part('training', known[0], known[1])}; {_part('test', known[2], known[3])}"


def _part(split: str, images: bool, labels: bool) -> str:
    if images and labels:
        return f"{split} set: MNIST's"
    return f"{split} {'labels' if images else 'images'}: not MNIST's"


def _absence(root: Path, specs: Sequence[Spec]) -> str:
    """The files that were searched, the places, and the content of the folder."""
    if not root.exists():
        return f"expected a folder with a data set, found no {root.absolute()}; name an existing folder"
    entries = sorted(f"{path.name}/" if path.is_dir() else path.name for path in root.iterdir())
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    found = f"{', '.join(entries[:_SHOWN])}{more}" if entries else "an empty folder"
    inside = [path for path in sorted(root.iterdir())[:_LOOKED_INTO] if path.is_dir() and _holds(path, specs)]
    hint = f"name {inside[0].absolute()}, which has one" if inside else "name a folder that has one"
    return (
        f"expected a data set in {root.absolute()}: {', '.join(spec.name for spec in specs)} (plain or .gz) there, in "
        f"raw/ or in MNIST/raw/, or PNG files in train/ and test/; found {found}; {hint}"
    )


def _holds(root: Path, specs: Sequence[Spec]) -> bool:
    whole = any(all(locate(root / layout, spec) for spec in specs) for layout in LAYOUTS)
    return whole or is_png_folder(root)
