"""States from their structure (`store.structure`) and the bytes of their entries, in fresh memory."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pbt.store.encoded_bytes import EncodedBytes, InMemory
from pbt.store.folder import Folder
from pbt.store.frozen import Packs, content_of
from pbt.store.kinds import BY_TAG, inner
from pbt.store.manifest import Manifest
from pbt.store.pytrees import carried, node_up, static_up, to_jax
from pbt.store.structure import ARRAYS, TENSORS
from pbt.store.trees import Objects

if TYPE_CHECKING:
    from torch import Tensor

_TO_ARRAY = {name: np.dtype(f"<{code}") for code, name in ARRAYS.items()}
_TO_TENSOR = {name: dtype for dtype, name in TENSORS.items()}
SIZES = {name: dtype.itemsize for name, dtype in _TO_ARRAY.items()} | {"BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


class Span(NamedTuple):
    """The place of an entry in an encoded state."""

    name: str
    dtype: str
    shape: list[int]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of the entry."""
        return self.end - self.begin


class Source(dict[str, Span]):
    """The entries of an encoded state that are not used yet, by name.

    Args:
        spans: The entries by name.
        content: The bytes.
        objects: The files of its folders and frozen tensors.
    """

    def __init__(self, spans: Mapping[str, Span], content: EncodedBytes, objects: Objects | None) -> None:
        super().__init__(spans)
        self.objects = objects
        self.packs = Packs(objects)
        self.filled: dict[str, memoryview] = {}
        """By the name of a used entry: its bytes, or the memory that will hold them."""
        self.unread: set[str] = set()
        """The used entries whose bytes are not read yet."""
        self._content = content

    def read(self, name: str) -> tuple[Span, bytes]:
        """Use an entry of which a converted copy is built, and read it."""
        span = self.pop(name)
        data = self._content.read(span.begin, span.end)
        self.filled[name] = memoryview(data)
        return span, data

    def fill(self, span: Span, buffer: np.ndarray[Any, Any]) -> None:
        """Have an entry, already taken, read into this flat memory of the state later, in the order of the digest."""
        self.filled[span.name] = buffer.data
        self.unread.add(span.name)


def build(structure: Any, ordered: Any, entries: Source) -> Any:
    """Build a state from its structure, in fresh memory; entries are removed as they are used.

    The memory of arrays and tensors is filled afterwards: see `Source.fill`.

    Malformed input raises one of KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError and
    OverflowError.
    """
    nodes = [(_at(structure, path), attributes) for path, attributes in ordered]
    for node, attributes in nodes:
        node[_ORDERED] = [node.pop("dict"), attributes]
    return _build(structure, entries)


_ORDERED: Any = object()
"""A tag that cannot occur in a file."""


def _at(node: Any, path: Any) -> Any:
    """The node at this path."""
    for step in path:
        while type(node) is dict:
            ((tag, body),) = node.items()
            if tag in ("dict", "tuple"):
                node = body
                break
            node = inner(tag, body)
        node = node[int(step[1:]) if type(node) is list else step]
    return node


def _build(node: Any, entries: Source) -> Any:  # noqa: PLR0911 (one for each form)
    if type(node) is list:
        return [_build(item, entries) for item in node]
    if type(node) is not dict:
        return node
    ((tag, body),) = node.items()
    if tag == "dict":
        return {_unkey(key): _build(item, entries) for key, item in body.items()}
    if tag == "tuple":
        return tuple(_build(item, entries) for item in body)
    if tag in _LEAVES:
        return _LEAVES[tag](body, entries)
    if tag == "node":
        return node_up(body, lambda part: _build(part, entries))
    if tag != _ORDERED:
        return BY_TAG[tag].up(body, lambda part: _build(part, entries))
    items, attributes = body
    value = OrderedDict((_unkey(key), _build(item, entries)) for key, item in items.items())
    if attributes is not None:
        structure, ordered = attributes
        vars(value).update(build(structure, ordered, Source({}, InMemory(b""), None)))
    return value


def _unkey(key: str) -> str | int:
    if not key.startswith("#"):
        return key
    return key[1:] if key.startswith("##") else int(key[1:])


def _to_array(name: str, entries: Source) -> np.ndarray[Any, Any]:
    span = entries.pop(name)
    array = np.empty(span.shape, _TO_ARRAY[span.dtype])
    entries.fill(span, array.reshape(-1).view(np.uint8))
    return array


def _to_jax(body: Any, entries: Source) -> Any:
    name, more = body
    span, data = entries.read(name)
    dtype = _TO_ARRAY.get(span.dtype) or carried(_TO_TENSOR[span.dtype])
    return to_jax(np.frombuffer(data, dtype).reshape(span.shape), more)


def _to_scalar(name: str, entries: Source) -> Any:
    span, data = entries.read(name)
    if span.shape != []:
        raise ValueError("expected an array of one number")
    return np.frombuffer(data, _TO_ARRAY[span.dtype])[0]


def _to_tensor(name: str, entries: Source) -> "Tensor":
    span = entries.pop(name)
    raw, tensor = _fresh(span.size, span.dtype, span.shape)
    entries.fill(span, raw)
    return tensor


def _to_frozen(body: Any, entries: Source) -> "Tensor":
    _, _, begin, dtype, shape = body
    if type(begin) is not int:
        raise ValueError("expected a place in a file")
    data = entries.packs.bytes_of(content_of(body), begin, SIZES[dtype] * elements(shape))
    raw, tensor = _fresh(len(data), dtype, shape)
    raw[:] = data
    return tensor


def elements(shape: Any) -> int:
    """The number of elements of a shape from a file.

    Raises:
        ValueError: It is the shape of no tensor: its product would take longer than its file.
    """
    if type(shape) is not list or len(shape) > _MOST_DIMS:
        raise ValueError(f"expected a shape of at most {_MOST_DIMS} dimensions")
    if not all(type(size) is int and 0 <= size < _LARGEST_DIM for size in shape):
        raise ValueError("expected the sizes of dimensions")
    return math.prod(shape)


_MOST_DIMS, _LARGEST_DIM = 64, 1 << 63
"""Bounds of NumPy and torch."""


def _fresh(size: int, dtype: str, shape: list[int]) -> tuple[np.ndarray[Any, Any], "Tensor"]:
    """The memory of a new tensor as bytes, and the tensor."""
    import torch

    # Memory from torch's allocator is aligned like that of other tensors, so that kernels that depend on alignment
    # take the same path, and give the same bits, as before the state was stored.
    raw = torch.empty(size, dtype=torch.uint8, device="cpu")
    return raw.numpy(), raw.view(getattr(torch, _TO_TENSOR[dtype])).reshape(shape)


_LEAVES: Mapping[str, Callable[[Any, Source], Any]] = {
    "int": lambda body, _: int(body, 16),
    "float": lambda body, _: float(body),
    "bytes": lambda body, entries: entries.read(body)[1],
    "array": _to_array,
    "scalar": _to_scalar,
    "tensor": _to_tensor,
    "frozen": _to_frozen,
    "jax": _to_jax,
    "static": lambda body, _: static_up(body),
    "folder": lambda body, entries: Folder.stored(Manifest.from_plain("folder", body), entries.objects),
    "file": lambda body, entries: Folder.stored(Manifest.from_plain("file", body), entries.objects),
}
