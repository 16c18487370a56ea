"""Tensors of a state that training does not change, stored by content: once for all states that contain them.

In an encoded state, the hash of a file and a place in it stand for such a tensor, so that the digest of a state covers
its content; the files are stored beside those of `Folder`s (`store.objects`). A decoded state has the tensor itself.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pbt.errors import CorruptError
from pbt.store.manifest import FileContent, file_content
from pbt.store.system import fill_at
from pbt.store.trees import PIECE, Objects

Convert = Callable[[Any], tuple[str, list[int], Any]]
"""`tensor -> (dtype, shape, bytes)`, the bytes as a flat buffer."""

_OWN_FILE = 1 << 20
"""Bytes from which a tensor has a file of its own, so that it is not stored again if others are unfrozen."""


class PackEntry(NamedTuple):
    """The place of a tensor in a file."""

    begin: int
    dtype: str
    shape: list[int]


class Pack:
    """Tensors that are stored in one file.

    Hashed once: the tensors must not change as long as the pack is used.

    Args:
        tensors: The tensors in their order.
    """

    def __init__(self, tensors: Sequence[Any]) -> None:
        self.tensors = tensors
        self._places: list[PackEntry] = []
        self._content: FileContent | None = None

    def buffers(self, convert: Convert) -> list[Any]:
        """The bytes of each tensor, in order."""
        return [convert(tensor)[2] for tensor in self.tensors]

    def content(self, convert: Convert) -> FileContent:
        """The size and the hash of the file."""
        if self._content is None:
            sha, size, places = hashlib.sha256(), 0, []
            for tensor in self.tensors:
                dtype, shape, data = convert(tensor)
                places.append(PackEntry(size, dtype, shape))
                sha.update(data)
                size += len(data)
            self._places, self._content = places, FileContent(size, sha.hexdigest())
        return self._content

    def place(self, index: int) -> PackEntry:
        """The place of a tensor, after `content`."""
        return self._places[index]


class Frozen:
    """A tensor of a state that is stored in the file of its pack.

    Args:
        pack: The pack.
        index: The number of the tensor in it.
    """

    __slots__ = ("index", "pack")

    def __init__(self, pack: Pack, index: int) -> None:
        self.pack = pack
        self.index = index

    @property
    def tensor(self) -> Any:
        """The tensor itself."""
        return self.pack.tensors[self.index]


def packed(tensors: Mapping[str, Any], known: Mapping[str, Frozen] | None = None) -> dict[str, Frozen]:
    """The tensors by name, as parts of a state: a large one in a file of its own, small ones in one file.

    Args:
        tensors: The tensors.
        known: Some of them in an earlier result, whose hashes are used again.
    """
    large = {name: mark for name, mark in (known or {}).items() if mark.tensor.nbytes >= _OWN_FILE}
    small = sorted(name for name, tensor in tensors.items() if tensor.nbytes < _OWN_FILE)
    together = Pack([tensors[name] for name in small])
    places = {name: Frozen(together, index) for index, name in enumerate(small)}
    places |= {name: large.get(name) or Frozen(Pack([tensors[name]]), 0) for name in tensors.keys() - places.keys()}
    return {name: places[name] for name in tensors}


def node_of(value: Frozen, content: FileContent) -> dict[str, Any]:
    """The node of a structure that stands for the tensor."""
    begin, dtype, shape = value.pack.place(value.index)
    return {"frozen": [content.sha256, content.size, begin, dtype, shape]}


def content_of(body: Any) -> FileContent:
    """The file that a node names.

    Raises:
        ValueError: It is no such node.
        TypeError: It is no such node.
    """
    sha256, size, _, _, _ = body
    return file_content(size, sha256)


class Packs:
    """The files of a state, each read and checked once.

    Args:
        objects: The files by content; None: the state cannot be decoded.
    """

    def __init__(self, objects: Objects | None) -> None:
        self._objects = objects
        self._read: dict[str, Any] = {}

    def bytes_of(self, content: FileContent, begin: int, count: int) -> Any:
        """A piece of a file, as a flat array of bytes.

        Raises:
            CorruptError: The file is missing or has changed.
            ValueError: It has no such piece.
        """
        if not 0 <= begin <= begin + count <= content.size:
            raise ValueError("expected a place inside the file")
        if count == content.size:
            return self._file(content)
        if content.sha256 not in self._read:
            self._read[content.sha256] = self._file(content)
        return self._read[content.sha256][begin : begin + count]

    def _file(self, content: FileContent) -> Any:
        if self._objects is None:
            raise CorruptError("expected the files of frozen tensors, found only their hashes; load it from its run")
        descriptor = self._objects.open_file(content.sha256)
        try:
            if os.fstat(descriptor).st_size != content.size:
                raise CorruptError(f"expected {content.size:,} bytes in the file {content.sha256}, found others")
            import numpy as np  # a command that reads only the log starts without it

            data: Any = np.empty(content.size, np.uint8)
            sha, done = hashlib.sha256(), 0
            while done < content.size:
                piece = memoryview(data)[done : done + PIECE]
                count = fill_at(descriptor, piece, done)
                if not count:
                    break
                sha.update(piece[:count])
                done += count
        finally:
            os.close(descriptor)
        if sha.hexdigest() != content.sha256:
            raise CorruptError(f"expected a file with SHA-256 {content.sha256}, found {sha.hexdigest()}")
        return data
