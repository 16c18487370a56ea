"""The original's layout: a folder of PNG files per split, `train/` and `test/`, with the label in each name.

The label follows the last underscore: `00012_7.png` is a 7. Files are decoded once; the arrays are cached with a digest
of their bytes, under a key of every file's name, size and time.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pbt.errors import DataError, MissingExtraError, PBTError
from pbt.store.codec import decode, encode
from pbt.store.durable import read_plain, write_durable

log = logging.getLogger("pbt")

SPLITS = ("train", "test")
_LABEL = re.compile(r"_(\d{1,6})\.png$", re.IGNORECASE)
_MOST_PIXELS = 1024 * 1024
_DIGEST = 32  # bytes of a SHA-256

_MODES = {1: "L", 3: "RGB"}  # Pillow's, by the number of channels

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def is_png_folder(root: Path) -> bool:
    """Whether the folder has PNG files in `train/` or `test/`."""
    return any(next((root / split).glob("*.[pP][nN][gG]"), None) is not None for split in SPLITS)


def load_png_folder(root: Path, cache: Path, channels: int = 1) -> tuple[Bytes, Labels, Bytes, Labels]:
    """Images uint8 and labels int64 (n,) of both splits, in the order of the file names.

    Args:
        root: The folder with `train/` and `test/`.
        cache: Cache folder of decoded arrays; not used if it cannot be written.
        channels: 1: every file is read as gray, images are (n, height, width). 3: as RGB, (n, 3, height, width).

    Raises:
        DataError: A split is empty, a file has no label or is no image, the images differ in size, or files have no
            such number of channels.
        MissingExtraError: Pillow is not installed.
    """
    if channels not in _MODES:
        raise DataError(f"num_channels: expected 1 (gray) or 3 (RGB) for PNG files, got {channels}")
    files = {split: sorted((root / split).glob("*.[pP][nN][gG]")) for split in SPLITS}
    for split, paths in files.items():
        if not paths:
            raise DataError(f"{root / split}: expected PNG files named like 00012_7.png, found none")
    kept = cache / f"{_key(root, files['train'] + files['test'], channels)}.arrays"
    arrays = _kept(kept)
    if arrays is None:
        arrays = [array for split in SPLITS for array in _decoded(files[split], channels)]
        _keep(kept, arrays)
    train_x, train_y, test_x, test_y = arrays
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DataError(f"{root}: expected images of one size, found {train_x.shape[1:]} and {test_x.shape[1:]}")
    return train_x, train_y, test_x, test_y


def _decoded(paths: Sequence[Path], channels: int) -> tuple[Bytes, Labels]:
    labels = np.array([_label(path) for path in paths], dtype=np.int64)
    first = _pixels(paths[0], channels)
    images = np.empty((len(paths), *first.shape), dtype=np.uint8)
    for i, path in enumerate(paths):
        pixels = _pixels(path, channels)
        if pixels.shape != first.shape:
            raise DataError(f"{path}: expected {first.shape} pixels as in {paths[0].name}, found {pixels.shape}")
        images[i] = pixels
    return images, labels


def _label(path: Path) -> int:
    match = _LABEL.search(path.name)
    if match is None:
        raise DataError(f"{path}: expected the label behind the last underscore, as in 00012_7.png, found none")
    return int(match[1])


def _pixels(path: Path, channels: int) -> Bytes:
    """The pixels (height, width), or of several channels (channels, height, width)."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("reading PNG files", "mnist") from error
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise DataError(
                    f"{path}: expected at most {_MOST_PIXELS:,} pixels, found {image.width} x {image.height}"
                )
            if image.mode.startswith("I"):
                # 16 bits a pixel: Pillow's own conversion cuts off everything above 255.
                gray = (np.asarray(image) >> 8).astype(np.uint8)
                return gray if channels == 1 else np.stack([gray] * channels)
            pixels = np.asarray(image.convert(_MODES[channels]), dtype=np.uint8)
            return pixels if channels == 1 else pixels.transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected a PNG image, found a file that cannot be decoded ({error})") from error


def _key(root: Path, paths: Sequence[Path], channels: int) -> str:
    words = hashlib.sha256(f"{root.resolve()} {channels}\n".encode())
    for path in paths:
        stat = path.stat()
        words.update(f"{path.parent.name}/{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return words.hexdigest()[:32]


def _kept(path: Path) -> list[Any] | None:
    """The cached arrays; None if they are missing or damaged."""
    try:
        content = read_plain(path)
    except FileNotFoundError:
        return None
    except PBTError:
        content = b""
    except OSError as error:
        log.warning("%s: cannot be read (%s); the PNG files are decoded again", path, error.strerror or error)
        return None
    digest, blob = content[:_DIGEST], content[_DIGEST:]
    if hashlib.sha256(blob).digest() != digest:
        log.warning("%s: expected the bytes that were kept, found others; the PNG files are decoded again", path)
        return None
    return list(decode(blob))


def _keep(path: Path, arrays: Sequence[Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        blob = encode(list(arrays))
        write_durable(path, hashlib.sha256(blob).digest() + blob)
    except (OSError, PBTError):
        return
