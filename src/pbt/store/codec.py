"""Encoding of states as bytes in the safetensors layout, and a digest of their content.

Tensors, arrays and bytes are entries of the file, named by their path (`model/0.weight`); everything else is one
JSON text in its metadata. Decoding a file executes no code.

The digest is SHA-256 over the sorted (name, dtype, shape, bytes) and the structure with sorted keys. It depends neither
on the file layout nor on the insertion order of dicts. That order is stored all the same, because a task that
iterates over a dict of tensors computes different bits in a different order.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pbt.errors import CorruptError, StateError
from pbt.store.building import SIZES, Source, Span, build, elements
from pbt.store.encoded_bytes import PIECE, EncodedBytes, InMemory, pieces_of
from pbt.store.folder import Folder
from pbt.store.frozen import Pack
from pbt.store.manifest import FileContent, Manifest
from pbt.store.structure import ArrayEntry, Parts, folders_in, packs_in, take_apart
from pbt.store.trees import Objects

FORMATS = PLAIN, EXTENDED, WITH_FOLDERS, NEWEST = "1", "2", "3", "4"
"""Versions of the structure text, in the metadata of every file; a file has the lowest version that knows its tags.

Earlier versions of this package refuse files of formats 2 to 4. They read OrderedDicts in files of format 1 as dicts,
as they always did.
"""

_FORMAT_KEY, _STRUCTURE_KEY, _ORDERED_KEY = "pbt.format", "pbt.structure", "pbt.ordered"
_HASH = 64
"""Length of the SHA-256 in front of the paths of OrderedDicts, which the digest of the state does not cover."""
_ALIGN = 8
_MOST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library. A parsed header takes about a dozen times as much memory."""

Found = TypeVar("Found")

_dump: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_dump_unicode: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_dump_sorted: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), allow_nan=False, sort_keys=True).encode


def encode(state: Any) -> bytes:
    """Encode a state as a safetensors file.

    Raises:
        StateError: It contains a value that cannot be stored; the message names the key.
    """
    return b"".join(_pack(take_apart(state)))


def digest(state: Any) -> str:
    """Hexadecimal SHA-256 of the content of a state.

    Raises:
        StateError: It contains a value that cannot be stored; the message names the key.
    """
    parts = take_apart(state)
    return _hash(parts.structure, parts.entries)


class Encoded:
    """An encoded state, whose tensors are still in the memory of the state itself.

    Args:
        parts: The state, taken apart.

    Attributes:
        pieces: The encoded state, as buffers to be written one after the other.
        size: Their bytes.
        folders: The contents of its folders.
        packs: The sizes of the files of its frozen tensors, by SHA-256.
    """

    __slots__ = ("_parts", "folders", "packs", "pieces", "size")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.pieces: Sequence[Any] = _pack(parts)
        self.size = sum(map(len, self.pieces))
        self.folders: Sequence[Manifest] = parts.folders
        self.packs: Mapping[str, int] = parts.packs

    def digest(self) -> str:
        """The digest of the state, computed now."""
        return _hash(self._parts.structure, self._parts.entries)

    def blob(self) -> bytes:
        """The encoded state in one piece: a copy of it."""
        return b"".join(self.pieces)


def encode_whole(
    state: Any,
    keep: Callable[[Folder], Manifest] = Folder.manifest,
    keep_pack: Callable[[Pack], FileContent] | None = None,
) -> Encoded:
    """A state, encoded and hashed on request, without a copy of its tensors.

    Args:
        state: The state; it must not change as long as the result is used.
        keep: Reads (and stores) the files of a folder.
        keep_pack: Stores frozen tensors; None: they are encoded like other tensors.

    Raises:
        StateError: It contains a value that cannot be stored; the message names the key.
    """
    return Encoded(take_apart(state, keep, keep_pack))


def decode(blob: bytes, objects: Objects | None = None) -> Any:
    """Decode a state into fresh writable copies, tensors on the CPU.

    Args:
        blob: The encoded state.
        objects: The files of its folders; None: their `path` cannot be used.

    Raises:
        CorruptError: The bytes are not an encoded state.
    """
    return _rebuild(InMemory(blob), None, objects)


def digest_of(blob: bytes) -> str:
    """The digest of an encoded state, without decoding it.

    Raises:
        CorruptError: The bytes are not an encoded state.
    """
    content = InMemory(blob)
    structure, _, spans = _parse(content)
    data = memoryview(blob).cast("B")
    return _hash(
        structure,
        [ArrayEntry(span.name, span.dtype, span.shape, data[span.begin : span.end]) for span in spans.values()],
    )


def folders_of(content: EncodedBytes) -> list[Manifest]:
    """The contents of the folders in an encoded state, without decoding its tensors.

    Raises:
        CorruptError: The bytes are not an encoded state.
    """
    return _found(folders_in, content)


def packs_of(content: EncodedBytes) -> dict[str, int]:
    """The sizes of the files of frozen tensors in an encoded state, by SHA-256, without decoding its tensors.

    Raises:
        CorruptError: The bytes are not an encoded state.
    """
    return _found(packs_in, content)


def _found(search: Callable[[Any], Found], content: EncodedBytes) -> Found:
    structure, _, _ = _parse(content)
    try:
        return search(structure)
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptError(f"expected an encoded state, found an invalid structure ({error!r})") from error


def decode_checked(content: EncodedBytes, digest: str, objects: Objects | None = None) -> Any:
    """Decode a state and check its digest.

    Raises:
        CorruptError: The bytes are not an encoded state, or its digest differs.
        OSError: They cannot be read.
    """
    return _rebuild(content, digest, objects)


def _hash(structure: Any, entries: Iterable[ArrayEntry]) -> str:
    ordered = sorted(entries, key=lambda entry: entry.name)
    sha = _hash_of_outline(structure, ordered)
    for entry in ordered:
        sha.update(entry.data)
    return str(sha.hexdigest())


def _hash_of_outline(structure: Any, ordered: Iterable[ArrayEntry | Span]) -> Any:
    """The hash of everything but the bytes of the entries, which follow; `ordered` by their names."""
    # The lengths of the data are part of this text, so distinct contents give distinct byte streams.
    text = _dump_sorted([[[entry.name, entry.dtype, entry.shape] for entry in ordered], structure])
    return hashlib.sha256(text.encode())


def _pack(parts: Parts) -> list[Any]:
    # Wide types first keeps every entry aligned for programs that map the file into memory.
    ordered = sorted(parts.entries, key=lambda entry: (-SIZES[entry.dtype], entry.name))
    version = WITH_FOLDERS if parts.folders or parts.pytrees else EXTENDED if parts.extended else PLAIN
    version = NEWEST if parts.packs else version
    metadata = {_FORMAT_KEY: version, _STRUCTURE_KEY: _dump(parts.structure)}
    if parts.ordered:
        paths = _dump(parts.ordered)
        metadata[_ORDERED_KEY] = hashlib.sha256(paths.encode()).hexdigest() + paths
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for entry in ordered:
        end = offset + len(entry.data)
        header[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [offset, end]}
        offset = end
    try:
        text = _dump_unicode(header).encode()
    except UnicodeEncodeError as error:
        raise StateError(
            f"state: expected keys of valid Unicode, got {error.object[error.start : error.end]!r}"
        ) from None
    text += b" " * (-len(text) % _ALIGN)
    if len(text) > _MOST_HEADER:
        raise StateError(
            f"state: expected at most {_MOST_HEADER:,} bytes beside tensors and arrays, got {len(text):,}; "
            "store long lists of numbers as arrays"
        )
    return [len(text).to_bytes(8, "little") + text, *(entry.data for entry in ordered)]


def _parse(content: EncodedBytes) -> tuple[Any, Any, dict[str, Span]]:
    """The structure, the paths of OrderedDicts and the entries by name, all checked against the length of the file."""
    try:
        start = _data_start(content)
        header = json.loads(content.read(8, start))
        metadata = header.pop("__metadata__")
        version = metadata[_FORMAT_KEY]
        structure = json.loads(metadata[_STRUCTURE_KEY])
        ordered = _ordered_paths(metadata)
        spans = {name: _span(name, fields, start, content.size) for name, fields in header.items()}
        _check_shared(spans, content.size - start)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CorruptError(f"expected an encoded state, found {content.size} other bytes ({error!r})") from error
    if version not in FORMATS:
        raise CorruptError(
            f"expected a state of format {' or '.join(FORMATS)}, found format {version}; another version wrote it"
        )
    return structure, ordered, spans


def _ordered_paths(metadata: Mapping[str, str]) -> Any:
    """The paths of OrderedDicts. The digest of the state does not cover them, so they have a hash of their own."""
    if metadata[_FORMAT_KEY] in FORMATS and not metadata.keys() <= {_FORMAT_KEY, _STRUCTURE_KEY, _ORDERED_KEY}:
        raise ValueError("unknown metadata")
    text = metadata.get(_ORDERED_KEY)
    if text is None:
        return []
    if hashlib.sha256(text[_HASH:].encode()).hexdigest() != text[:_HASH]:
        raise ValueError("the paths of OrderedDicts do not match their hash")
    return json.loads(text[_HASH:])


def _data_start(content: EncodedBytes) -> int:
    length = int.from_bytes(content.read(0, min(8, content.size)), "little")
    if length > min(_MOST_HEADER, content.size - 8):
        raise ValueError(f"a header of {length:,} bytes")
    return 8 + length


def _check_shared(spans: Mapping[str, Span], size: int) -> None:
    # Overlapping entries would take more memory than the file has bytes.
    if sum(span.size for span in spans.values()) != size:
        raise ValueError("bytes outside of all entries, or in several")


def _span(name: str, fields: Mapping[str, Any], start: int, size: int) -> Span:
    dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not 0 <= begin <= end <= size - start or end - begin != SIZES[dtype] * elements(shape):
        raise ValueError(f"entry '{name}' exceeds the file")
    return Span(name, dtype, shape, start + begin, start + end)


def _rebuild(content: EncodedBytes, digest: str | None, objects: Objects | None) -> Any:
    """Build a state, then read the bytes of its tensors into their memory and hash them there."""
    structure, ordered, spans = _parse(content)
    sha = None if digest is None else _hash_of_outline(structure, [spans[name] for name in sorted(spans)])
    left = Source(spans, content, objects)
    try:
        # Each entry is used once: repeated references would multiply its memory.
        state = build(structure, ordered, left)
        if left:
            raise CorruptError(f"expected an encoded state, found an entry '{next(iter(left))}' without a place in it")
        for piece in _filled(left, spans, content):
            if sha is not None:
                sha.update(piece)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise CorruptError(f"expected an encoded state, found an invalid structure ({error!r})") from error
    if sha is not None and sha.hexdigest() != digest:
        raise CorruptError(f"expected content with SHA-256 {digest}, found {sha.hexdigest()}")
    return state


def _filled(source: Source, spans: Mapping[str, Span], content: EncodedBytes) -> Iterator[memoryview]:
    """Read the bytes of the entries in the order of the digest, of a large state a piece ahead of the caller."""
    if content.size <= PIECE:
        for name in sorted(spans):
            if name in source.unread:
                content.fill(spans[name].begin, source.filled[name])
            yield source.filled[name]
        return

    def fill(name: str, begin: int, piece: memoryview) -> memoryview:
        if name in source.unread:
            content.fill(spans[name].begin + begin, piece)
        return piece

    pieces = [(name, *piece) for name in sorted(spans) for piece in pieces_of(source.filled[name])]
    with ThreadPoolExecutor(1) as reader:
        yield from reader.map(fill, *zip(*pieces, strict=True))
