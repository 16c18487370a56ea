"""States as bytes: the safetensors layout, readable by every program that knows it, and a digest of the content.

Tensors, arrays and bytes are entries of the file, named by their place (`model/0.weight`); everything else is one
JSON text among its metadata. Nothing in a file can run code.

The digest is SHA-256 over the sorted (name, dtype, shape, bytes) and the structure with sorted keys: it knows
neither the layout of the file nor the order in which dicts were filled. That order is kept all the same, since a
task that walks over a dict of tensors computes other bits in another order.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pbt.errors import CorruptError, StateError
from pbt.store.structure import SIZES, ArrayEntry, Parts, build, take_apart

FORMATS = PLAIN, EXTENDED = "1", "2"
"""Versions of the structure text, in the metadata of every file: a file has the lowest one that knows all its tags.

An earlier version of this package refuses a file of format 2. It reads one of format 1 with OrderedDicts, and gives
dicts in their place, as it always did.
"""

_FORMAT_KEY, _STRUCTURE_KEY, _ORDERED_KEY = "pbt.format", "pbt.structure", "pbt.ordered"
_HASH = 64
"""Characters of the SHA-256 in front of the places of OrderedDicts, which the digest of the state does not know."""
_ALIGN = 8
_MOST_HEADER = 100_000_000
"""Bytes; the library's own limit. What is read from a header takes some dozen times as much memory."""

_dump: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_dump_unicode: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_dump_sorted: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), allow_nan=False, sort_keys=True).encode


def encode(state: Any) -> bytes:
    """The state as the bytes of a safetensors file.

    Raises:
        StateError: It holds something that cannot be stored; the message names the key.
    """
    return _pack(take_apart(state))


def digest(state: Any) -> str:
    """SHA-256 of the content, hexadecimal.

    Raises:
        StateError: It holds something that cannot be stored; the message names the key.
    """
    parts = take_apart(state)
    return _hash(parts.structure, parts.entries)


def encode_with_digest(state: Any) -> tuple[bytes, str]:
    """`encode` and `digest` at once.

    Raises:
        StateError: It holds something that cannot be stored; the message names the key.
    """
    parts = take_apart(state)
    return _pack(parts), _hash(parts.structure, parts.entries)


def decode(blob: bytes) -> Any:
    """The state that `encode` made these bytes of: fresh writable copies, tensors on the CPU.

    Raises:
        CorruptError: These bytes are no state.
    """
    return _rebuild(*_parse(blob))


def digest_of(blob: bytes) -> str:
    """The digest of an encoded state, without building it.

    Raises:
        CorruptError: These bytes are no state.
    """
    structure, _, entries = _parse(blob)
    return _hash(structure, entries.values())


def decode_checked(blob: bytes, digest: str) -> Any:
    """The state, if its content hashes to `digest`.

    Raises:
        CorruptError: These bytes are no state, or another one.
    """
    structure, ordered, entries = _parse(blob)
    found = _hash(structure, entries.values())
    if found != digest:
        raise CorruptError(f"expected content with SHA-256 {digest}, found {found}")
    return _rebuild(structure, ordered, entries)


def _hash(structure: Any, entries: Iterable[ArrayEntry]) -> str:
    ordered = sorted(entries, key=lambda entry: entry.name)
    # The lengths of what follows are in this text, so that no two contents give the same stream of bytes.
    text = _dump_sorted([[[entry.name, entry.dtype, entry.shape] for entry in ordered], structure])
    sha = hashlib.sha256(text.encode())
    for entry in ordered:
        sha.update(entry.data)
    return sha.hexdigest()


def _pack(parts: Parts) -> bytes:
    # Wide types first keeps every entry aligned for programs that map the file.
    ordered = sorted(parts.entries, key=lambda entry: (-SIZES[entry.dtype], entry.name))
    metadata = {_FORMAT_KEY: EXTENDED if parts.extended else PLAIN, _STRUCTURE_KEY: _dump(parts.structure)}
    if parts.ordered:
        places = _dump(parts.ordered)
        metadata[_ORDERED_KEY] = hashlib.sha256(places.encode()).hexdigest() + places
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
    return b"".join((len(text).to_bytes(8, "little"), text, *(entry.data for entry in ordered)))


def _parse(blob: bytes) -> tuple[Any, Any, dict[str, ArrayEntry]]:
    """The structure, the places of OrderedDicts and the entries by name, all checked against the length of the file."""
    try:
        start = _data_start(blob)
        header = json.loads(bytes(blob[8:start]))
        metadata = header.pop("__metadata__")
        version = metadata[_FORMAT_KEY]
        structure = json.loads(metadata[_STRUCTURE_KEY])
        ordered = _places(metadata)
        data = memoryview(blob)[start:]
        entries = {name: _entry(name, fields, data) for name, fields in header.items()}
        _check_shared(entries, data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CorruptError(f"expected an encoded state, found {len(blob)} bytes that are none ({error!r})") from error
    if version not in FORMATS:
        raise CorruptError(
            f"expected a state of format {' or '.join(FORMATS)}, found format {version}; another version wrote it"
        )
    return structure, ordered, entries


def _places(metadata: Mapping[str, str]) -> Any:
    """The places of OrderedDicts: beside the digest of the state, and so under a hash of their own."""
    if metadata[_FORMAT_KEY] in FORMATS and not metadata.keys() <= {_FORMAT_KEY, _STRUCTURE_KEY, _ORDERED_KEY}:
        raise ValueError("metadata that no state has")
    text = metadata.get(_ORDERED_KEY)
    if text is None:
        return []
    if hashlib.sha256(text[_HASH:].encode()).hexdigest() != text[:_HASH]:
        raise ValueError("places of OrderedDicts that do not match their hash")
    return json.loads(text[_HASH:])


def _data_start(blob: bytes) -> int:
    length = int.from_bytes(blob[:8], "little")
    if length > min(_MOST_HEADER, len(blob) - 8):
        raise ValueError(f"a header of {length:,} bytes")
    return 8 + length


def _check_shared(entries: Mapping[str, ArrayEntry], data: memoryview) -> None:
    # Entries that share bytes would take more memory than the file has.
    if sum(len(entry.data) for entry in entries.values()) != len(data):
        raise ValueError("bytes that belong to no entry, or to several")


def _entry(name: str, fields: Mapping[str, Any], data: memoryview) -> ArrayEntry:
    dtype, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
    if (
        not 0 <= begin <= end <= len(data)
        or end - begin != SIZES[dtype] * math.prod(shape)
        or min(shape, default=0) < 0
    ):
        raise ValueError(f"entry '{name}' does not fit into the file")
    return ArrayEntry(name, dtype, shape, data[begin:end])


def _rebuild(structure: Any, ordered: Any, entries: Mapping[str, ArrayEntry]) -> Any:
    try:
        # Each entry is used up: one that stood in many places would take its memory as often.
        state = build(structure, ordered, left := dict(entries))
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise CorruptError(f"expected an encoded state, found a structure that is none ({error!r})") from error
    if left:
        raise CorruptError(f"expected an encoded state, found an entry '{next(iter(left))}' without a place in it")
    return state
