"""The bytes of an encoded state: in memory, or in a file of which never more than a piece is held."""

import os
from collections.abc import Iterator
from typing import Any, Protocol

from pbt.store.system import fill_at

PIECE = 8 << 20
"""Bytes that are read, written or hashed at once."""


class EncodedBytes(Protocol):
    """The bytes of an encoded state."""

    @property
    def size(self) -> int:
        """Their number."""

    def read(self, begin: int, end: int) -> bytes:
        """A copy of some of them."""

    def fill(self, begin: int, buffer: memoryview) -> None:
        """Copy them from `begin` on into a buffer.

        Raises:
            ValueError: There are fewer than the buffer holds.
        """


class InMemory:
    """Bytes in memory.

    Args:
        blob: The bytes.
    """

    def __init__(self, blob: Any) -> None:
        self._data = memoryview(blob).cast("B")
        self.size = len(self._data)

    def read(self, begin: int, end: int) -> bytes:
        """A copy of some of them."""
        return bytes(self._data[begin:end])

    def fill(self, begin: int, buffer: memoryview) -> None:
        """Copy them from `begin` on into a buffer."""
        buffer[:] = self._data[begin : begin + len(buffer)]


class InFile:
    """The bytes of an open file.

    Args:
        descriptor: The file; its owner closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, begin: int, end: int) -> bytes:
        """A copy of some of them."""
        found = bytearray(end - begin)
        self.fill(begin, memoryview(found))
        return bytes(found)

    def fill(self, begin: int, buffer: memoryview) -> None:
        """Copy them from `begin` on into a buffer.

        Raises:
            ValueError: The file has become shorter.
            OSError: It cannot be read.
        """
        done = 0
        while done < len(buffer):
            count = fill_at(self._descriptor, buffer[done:], begin + done)
            if not count:
                raise ValueError(f"expected {self.size:,} bytes, found {begin + done:,}")
            done += count


def pieces_of(buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    """A flat buffer in pieces, each with its place."""
    for begin in range(0, len(buffer), PIECE):
        yield begin, buffer[begin : begin + PIECE]
