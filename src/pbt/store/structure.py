"""The structure of states: conversion to a JSON-ready structure and entries of plain bytes, and back.

A state consists of nested dicts (keys: strings or integers), lists and tuples of torch tensors, numpy arrays and plain
values. In its structure strings, booleans, None, finite floats, integers and lists stand for themselves; everything
else is a dict whose single key is a tag: `dict`, `tuple`, `int` (a large one), `float` (one that JSON cannot
represent), `bytes`, `array`, `tensor`. The last three name an entry. Format 2 adds `scalar` (of numpy, also an entry)
and the tags of `kinds`; format 3 adds `folder` and `file`, whose bodies are manifests (`store.folder`),
and `jax`, `node` and `static` (`store.pytrees`); format 4 adds `frozen` (`store.frozen`).

Numbers are written as in the log (`core.events`). The containers are not: the log has tuples as lists and keys as
strings, while a state keeps both.

An OrderedDict is written as a dict, and its path in a separate list: every `Module.state_dict()` is one, and the digest
of such a state stays that of plain dicts.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pbt.errors import StateError
from pbt.store.folder import Folder
from pbt.store.frozen import Frozen, Pack, content_of, node_of
from pbt.store.kinds import CONTAINERS, EXACT, KINDS, encode_number, inner, remedy
from pbt.store.manifest import FileContent, Manifest
from pbt.store.pytrees import from_jax, is_jax_array, opened, static

if TYPE_CHECKING:
    from torch import Tensor

_DEPTH = 200

ARRAYS: Mapping[str, str] = {
    "b1": "BOOL", "u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64",
    "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64",
}  # fmt: skip
TENSORS: Mapping[str, str] = {
    "bool": "BOOL", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "int8": "I8", "int16": "I16",
    "int32": "I32", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64",
    "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
# numpy lacks these types: they are stored as integers of the same size.
_CARRIERS: Mapping[str, str] = {"BF16": "int16", "F8_E4M3": "uint8", "F8_E5M2": "uint8"}

Path = tuple[str | int, ...]


class ArrayEntry(NamedTuple):
    """A tensor, an array or a byte string, as an entry of a safetensors file."""

    name: str
    dtype: str
    shape: list[int]
    data: Any
    """The bytes, as a flat buffer: the tensor's own memory."""


@dataclass(slots=True, kw_only=True)
class Parts:
    """A state, taken apart."""

    structure: Any = None
    entries: list[ArrayEntry] = field(default_factory=list)
    """Their data share the memory of the state."""
    ordered: list[Any] = field(default_factory=list)
    """Per OrderedDict: its path, and the structure and the `ordered` of its attributes (None: no attributes)."""
    extended: bool = False
    """Whether the structure uses a tag of format 2."""
    folders: list[Manifest] = field(default_factory=list)
    """The contents of the folders in the state."""
    pytrees: bool = False
    """Whether it contains JAX arrays or custom nodes."""
    nodes: int = 0
    """Number of custom nodes around the current value."""
    keep: "Callable[[Folder], Manifest]" = Folder.manifest
    keep_pack: "Callable[[Pack], FileContent] | None" = None
    packs: dict[str, int] = field(default_factory=dict)
    """The sizes of the files of frozen tensors, by SHA-256."""


def take_apart(
    state: Any,
    keep: "Callable[[Folder], Manifest]" = Folder.manifest,
    keep_pack: "Callable[[Pack], FileContent] | None" = None,
) -> Parts:
    """Split a state into its structure and its entries.

    Args:
        state: The state.
        keep: Reads (and stores) the files of a folder.
        keep_pack: Stores frozen tensors; None: they are entries like other tensors.

    Raises:
        StateError: It contains a value that cannot be stored; the message names the key.
    """
    parts = Parts(keep=keep, keep_pack=keep_pack)
    parts.structure = _flatten(state, (), parts)
    return parts


def _flatten(value: Any, path: Path, parts: Parts) -> Any:  # noqa: PLR0911 (one for each form)
    kind = type(value)  # exact: a numpy float64 is a float and a named tuple a tuple, and would return as those
    if value is None or kind is str or kind is bool:
        return value
    if kind is int or kind is float:
        return encode_number(value)
    if kind is dict or kind is OrderedDict:
        _check_depth(path)
        if kind is OrderedDict:
            parts.ordered.append(_mark(value, path))
        return {"dict": {_key(key, path): _flatten(item, (*path, key), parts) for key, item in value.items()}}
    if kind is list or kind is tuple:
        _check_depth(path)
        items = [_flatten(item, (*path, index), parts) for index, item in enumerate(value)]
        return items if kind is list else {"tuple": items}
    if kind in KINDS:
        return _extended(value, path, parts)
    if kind is Folder:
        return _folder(value, path, parts)
    if kind is Frozen:
        return _frozen(value, path, parts)
    return _of_pytree(value, path, parts) or _entry(value, path, parts)


def _of_pytree(value: Any, path: Path, parts: Parts) -> dict[str, Any] | None:
    """An array of JAX, a custom node, or a function within one; None for other values."""
    if is_jax_array(value):
        parts.pytrees = True
        try:
            array, more = from_jax(value)
        except StateError as error:
            raise StateError(f"{_shown(path)}: {error}") from error
        entry = _of_array(array, path, TENSORS.get(array.dtype.name))
        parts.entries.append(entry)
        return {"jax": [entry.name, more]}
    if (node := opened(value)) is not None:
        _check_depth(path)
        parts.pytrees = True
        parts.nodes += 1
        children = [_flatten(child, (*path, index), parts) for index, child in enumerate(node.children)]
        parts.nodes -= 1
        return {"node": [node.kind, node.static, children]}
    if parts.nodes and (found := static(value)) is not None:
        return {"static": found.text}
    return None


def _entry(value: Any, path: Path, parts: Parts) -> dict[str, str]:
    """A node that refers to an entry."""
    kind = type(value)
    if kind is np.ndarray:
        tag, entry = "array", _of_array(value, path)
    elif kind is bytes:
        tag, entry = "bytes", ArrayEntry(_name(path), "U8", [len(value)], value)
    elif isinstance(value, np.generic):
        tag, entry, parts.extended = "scalar", _of_array(np.asarray(value), path), True
    else:
        tag, entry = "tensor", _of_tensor(value, path)
    parts.entries.append(entry)
    return {tag: entry.name}


def _extended(value: Any, path: Path, parts: Parts) -> dict[str, Any]:
    kind = KINDS[type(value)]
    if getattr(value, "__dict__", None):
        raise StateError(f"{_shown(path)}: expected a {kind.tag} without attributes, got {sorted(vars(value))}")
    parts.extended = True
    try:
        return {kind.tag: kind.down(value, lambda part: _flatten(part, path, parts))}
    except StateError as error:
        text = str(error)
        raise StateError(text if text.startswith("state") else f"{_shown(path)}: {text}") from None


def _folder(value: Folder, path: Path, parts: Parts) -> dict[str, Any]:
    try:
        manifest = parts.keep(value)
    except StateError as error:
        raise StateError(f"{_shown(path)}: {error}") from None
    parts.folders.append(manifest)
    return manifest.to_plain()


def _frozen(value: Frozen, path: Path, parts: Parts) -> dict[str, Any]:
    if parts.keep_pack is None:
        return _entry(value.tensor, path, parts)
    try:
        content = parts.keep_pack(value.pack)
    except StateError as error:
        raise StateError(f"{_shown(path)} or another frozen tensor: {error}") from None
    parts.packs[content.sha256] = content.size
    return node_of(value, content)


def plain_bytes(tensor: Any) -> tuple[str, list[int], Any]:
    """The dtype, the shape and the bytes of a tensor, which share its memory if it is contiguous on the CPU.

    Raises:
        StateError: It cannot be stored.
    """
    entry = _of_tensor(tensor, ())
    return entry.dtype, entry.shape, entry.data


def _mark(value: "OrderedDict[Any, Any]", path: Path) -> list[Any]:
    """The path of an OrderedDict, in the form of keys, and its attributes, such as `_metadata` of `state_dict()`."""
    keys = [_key(part, ()) for part in path]
    if not vars(value):
        return [keys, None]
    refusal = f"{_shown(path)}: expected an OrderedDict with attributes of plain values, got {sorted(vars(value))}"
    try:
        parts = take_apart(dict(vars(value)))
    except StateError as error:
        raise StateError(f"{refusal} ({error}); make them keys") from None
    if parts.entries or parts.extended:
        raise StateError(f"{refusal}; make them keys")
    return [keys, [parts.structure, parts.ordered]]


def _of_array(array: np.ndarray[Any, Any], path: Path, dtype: str | None = None) -> ArrayEntry:
    code = array.dtype.str
    dtype = dtype or ARRAYS.get(code[1:])
    if dtype is None:
        raise StateError(
            f"{_shown(path)}: expected an array of {', '.join(sorted(ARRAYS.values()))}, got one of {array.dtype}"
        )
    if code[0] == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return ArrayEntry(_name(path), dtype, list(array.shape), _flat(array))


def _of_tensor(value: Any, path: Path) -> ArrayEntry:
    # A tensor implies that torch is imported; otherwise it is not imported here.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        raise StateError(
            f"{_shown(path)}: expected dicts, lists and tuples of tensors, arrays, numbers, strings, bytes, "
            f"booleans, folders or None, got {type(value).__module__}.{type(value).__qualname__}; {remedy(value)}"
        )
    tensor: Tensor = value
    dtype = TENSORS.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise StateError(
            f"{_shown(path)}: expected a tensor of {', '.join(sorted(TENSORS.values()))}, got {tensor.dtype}"
        )
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        raise StateError(
            f"{_shown(path)}: expected a dense tensor with values, got {tensor.layout} on device {tensor.device}; "
            "store tensor.to_dense(), or its parts"
        )
    if dtype in _CARRIERS:
        tensor = tensor.detach().view(getattr(torch, _CARRIERS[dtype]))
    array: np.ndarray[Any, Any] = tensor.numpy(force=True)
    return ArrayEntry(_name(path), dtype, list(array.shape), _flat(array))


def _flat(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bytes of an array; copied only if its elements are not contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _key(key: Any, path: Path) -> str:
    """A dict key as unambiguous text: integers with a leading `#`, a leading `#` of strings doubled."""
    if type(key) is str:
        return "#" + key if key.startswith("#") else key
    if type(key) is int and -EXACT <= key <= EXACT:
        return f"#{key}"
    raise StateError(f"{_shown(path)}: expected keys that are strings or integers below 2**53, got {key!r}")


def _name(path: Path) -> str:
    """The name of an entry, unique per path."""
    # A container has either list indices or dict keys, so the two cannot collide.
    parts = [_key(part, ()) if type(part) is str else f"#{part}" for part in path]
    name = "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)
    # The layout reserves one name; no other name contains `~_`.
    return "~_metadata__" if name == "__metadata__" else name


def _shown(path: Path) -> str:
    return "state" + "".join(f"[{part!r}]" for part in path)


def _check_depth(path: Path) -> None:
    if len(path) >= _DEPTH:
        raise StateError(
            f"{_shown(path[:3])}...: expected at most {_DEPTH} levels, got more; does a container contain itself?"
        )


def folders_in(structure: Any) -> list[Manifest]:
    """The contents of the folders in a structure.

    Malformed input raises ValueError, TypeError or AttributeError.
    """
    return [Manifest.from_plain(tag, body) for tag, body in _outside(structure) if tag in ("folder", "file")]


def packs_in(structure: Any) -> dict[str, int]:
    """The sizes of the files of frozen tensors in a structure, by SHA-256.

    Malformed input raises ValueError, TypeError or AttributeError.
    """
    return {found.sha256: found.size for found in (content_of(b) for tag, b in _outside(structure) if tag == "frozen")}


def _outside(structure: Any) -> Iterator[tuple[str, Any]]:
    """The nodes whose content is in other files."""
    waiting = [structure]
    while waiting:
        node = waiting.pop()
        if type(node) is list:
            waiting += node
        elif type(node) is dict:
            ((tag, body),) = node.items()
            if tag in ("folder", "file", "frozen"):
                yield tag, body
            elif tag in ("dict", "tuple"):
                waiting += body.values() if tag == "dict" else body
            elif tag in CONTAINERS:
                waiting.append(inner(tag, body))
