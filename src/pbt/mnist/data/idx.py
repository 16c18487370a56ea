"""The IDX file format and the checksums of MNIST's four files.

One reader of streams serves plain files, gzip files and downloaded bytes. It allocates memory for bytes that have
arrived, never for the size that a header announces.
"""

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from pbt.errors import DataError

MAX_SIDE = 1024  # pixels, of the largest image that a configuration can name
MAX_ITEMS = 1_000_000  # the largest set in this layout, EMNIST, has 814,255
_CHUNK = 1 << 20  # bytes
_UNSIGNED_BYTE = 0x08  # the IDX type code of every file of this family


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Name and content of one of the four files."""

    name: str  # with dashes, without .gz
    ndim: int  # 3: images (N, height, width); 1: labels (N,)
    sha256: str  # of MNIST's uncompressed bytes
    num_bytes: int  # of MNIST's uncompressed bytes


SPECS: tuple[Spec, ...] = (
    Spec(
        name="train-images-idx3-ubyte",
        ndim=3,
        sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        num_bytes=47_040_016,
    ),
    Spec(
        name="train-labels-idx1-ubyte",
        ndim=1,
        sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        num_bytes=60_008,
    ),
    Spec(
        name="t10k-images-idx3-ubyte",
        ndim=3,
        sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        num_bytes=7_840_016,
    ),
    Spec(
        name="t10k-labels-idx1-ubyte",
        ndim=1,
        sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        num_bytes=10_008,
    ),
)
"""Training images and labels, test images and labels, in this order everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IdxFile:
    """A complete and well-formed file."""

    values: npt.NDArray[np.uint8]  # (N, height, width) or (N,), read-only
    sha256: str  # of the uncompressed bytes, hexadecimal


def locate(folder: Path, spec: Spec) -> Path | None:
    """The file in this folder, plain or `.gz`, with a dash or a dot in its name; None if it does not exist."""
    dotted = spec.name.replace("-idx", ".idx")
    for name in (spec.name, dotted, f"{spec.name}.gz", f"{dotted}.gz"):
        path = folder / name
        if path.is_file():
            return path
    return None


def digest_of(values: npt.NDArray[np.uint8]) -> str:
    """The SHA-256, hexadecimal, of these values as an IDX file."""
    digest = hashlib.sha256(bytes([0, 0, _UNSIGNED_BYTE, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape))
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


def read_idx_file(path: Path, ndim: int) -> IdxFile:
    """Read one IDX file, plain or, by its suffix, gzip.

    Args:
        path: The file.
        ndim: 3 for images, 1 for labels.

    Raises:
        DataError: It cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                return read_gzip_idx(file, ndim, str(path))
            return read_idx(file, ndim, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); {_REMEDY}") from error


def read_gzip_idx(stream: IO[bytes], ndim: int, name: str) -> IdxFile:
    """As `read_idx`, from the gzip form.

    Raises:
        DataError: The gzip stream or its content is damaged or cut short.
    """
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
            return read_idx(unpacked, ndim, name)
    except EOFError as error:
        raise DataError(f"{name}: expected a whole gzip file, found one cut short; {_REMEDY}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: expected a gzip file, found other bytes ({error}); {_REMEDY}") from error


def read_idx(stream: Readable, ndim: int, name: str) -> IdxFile:
    """Read a stream to its end as one IDX file of unsigned bytes.

    Args:
        stream: The uncompressed bytes.
        ndim: 3 for images, 1 for labels.
        name: Name of the stream in errors.

    Raises:
        DataError: Wrong magic number, wrong dimensions, too short or too long.
    """
    header = stream.read(4 + 4 * ndim)
    shape = _shape(header, ndim, name)
    body = _read_exactly(stream, math.prod(shape), name)
    digest = hashlib.sha256(header)
    digest.update(body)
    values = np.frombuffer(body, dtype=np.uint8).reshape(shape)
    return IdxFile(values=values, sha256=digest.hexdigest())


_REMEDY = "put a whole file in its place, or name another folder with data_dir"


def _shape(header: bytes, ndim: int, name: str) -> tuple[int, ...]:
    magic = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    if header[:4] != magic:
        raise DataError(f"{name}: expected IDX magic {magic.hex()}, found {header[:4].hex()!r}; {_REMEDY}")
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{name}: expected a header of {4 + 4 * ndim} bytes, found {len(header)}; {_REMEDY}")
    shape: tuple[int, ...] = struct.unpack(f">{ndim}I", header[4:])
    if not all(0 < side <= MAX_SIDE for side in shape[1:]):
        raise DataError(f"{name}: expected images of 1 to {MAX_SIDE} pixels a side, found {shape[1:]}; {_REMEDY}")
    if not 0 < shape[0] <= MAX_ITEMS:
        raise DataError(f"{name}: expected 1 to {MAX_ITEMS:,} items, found {shape[0]:,}; {_REMEDY}")
    return shape


def _read_exactly(stream: Readable, num_bytes: int, name: str) -> bytes:
    # In pieces: reading all at once would allocate memory for the length in the header, which may be wrong.
    pieces: list[bytes] = []
    left = num_bytes
    while left and (piece := stream.read(min(left, _CHUNK))):
        pieces.append(piece)
        left -= len(piece)
    if left:
        found = num_bytes - left
        raise DataError(f"{name}: expected {num_bytes:,} bytes of data, found {found:,}; {_REMEDY}")
    # Reading past the end also makes gzip check its checksum.
    if stream.read(1):
        raise DataError(f"{name}: expected {num_bytes:,} bytes of data, found more; {_REMEDY}")
    return b"".join(pieces)
