"""Memory-mapped arrays: a tensor on their pages, and the file that they are found in by another process."""

import mmap
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pbt.errors import DataError, TaskError

_HELD = 32 << 20
"""Bytes that are read through a mapping before its pages are given back."""
_AROUND = 64 << 10
"""Bytes that Linux maps around each place that is read."""


@dataclass(frozen=True, slots=True)
class FilePlace:
    """The place of an array in a file."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]

    def open(self) -> "np.ndarray[Any, Any]":
        """Map the file, read-only.

        Raises:
            DataError: The file is missing or shorter than the array.
        """
        try:
            pages = np.memmap(self.file, dtype=np.uint8, mode="r")
            found: np.ndarray[Any, Any] = np.ndarray(self.shape, np.dtype(self.dtype), pages, self.offset, self.strides)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"{self.file}: expected the array of shape {self.shape} and type {self.dtype} that was mapped before "
                f"({error}); put the file back"
            ) from error
        return found


@dataclass(eq=False, slots=True)
class MemoryMap:
    """A memory mapping that an array reads from."""

    place: FilePlace
    pages: mmap.mmap
    returns: bool
    """Whether its pages may be given back: not those of a private copy, which hold changes."""
    _read: int = field(default=0, init=False)

    def count(self, examples: int, nbytes: int) -> None:
        """Count what was read; give the pages back from time to time, which leaves them in the system's cache.

        Pages that were read count as memory of this process otherwise, up to the whole file.
        """
        self._read += nbytes + examples * _AROUND
        if self.returns and self._read >= _HELD:
            self._read = 0
            self.pages.madvise(mmap.MADV_DONTNEED)


def memory_map_of(array: "np.ndarray[Any, Any]") -> MemoryMap | None:
    """The mapping behind a numpy memory map or a view of one; None for an array in memory."""
    base: Any = array
    root: Any = None
    while base is not None and not isinstance(base, mmap.mmap):
        root = base if isinstance(base, np.memmap) else root
        base = getattr(base, "base", None)
    if not isinstance(base, mmap.mmap) or root is None or root.filename is None:
        return None
    start = root.__array_interface__["data"][0] - root.offset
    place = FilePlace(
        file=str(root.filename),
        dtype=array.dtype.str,
        shape=array.shape,
        offset=array.__array_interface__["data"][0] - start,
        strides=array.strides,
    )
    return MemoryMap(place, base, root.mode != "c" and hasattr(mmap, "MADV_DONTNEED"))


def tensor_of(array: Any, name: str) -> tuple[Tensor, MemoryMap | None]:
    """A tensor of a tensor or of a numpy array, without a copy, and its mapping; None: not known to be a mapping.

    Raises:
        TaskError: It is neither, or torch has no such type.
    """
    if isinstance(array, Tensor):
        return array, None
    if not isinstance(array, np.ndarray):
        raise TaskError(
            f"expected {name} to be a tensor or a numpy array, got a {type(array).__name__}; use torch.as_tensor, and "
            "a tuple of them for several inputs"
        )
    try:
        with warnings.catch_warnings():
            # A read-only array: examples are copied out of it, and nothing writes into it.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array), memory_map_of(array)
    except (TypeError, ValueError) as error:
        raise TaskError(f"{name}: torch has no tensors of this array ({error}); convert it with astype") from error


def is_mapped(tensor: Tensor) -> bool:
    """Whether torch knows that a tensor is mapped from a file, as those of `torch.from_file` are."""
    return tensor.device.type == "cpu" and tensor.untyped_storage().filename is not None
