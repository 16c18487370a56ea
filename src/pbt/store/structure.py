"""What a state may hold, taken apart into a structure that JSON can hold and entries that are plain bytes.

A state is nested dicts (keys: strings or whole numbers), lists and tuples of torch tensors, numpy arrays and plain
values. In its structure strings, booleans, None, finite floats, whole numbers and lists stand for themselves;
everything else is a dict of one key that says what it is: `dict`, `tuple`, `int` (a large one), `float` (one that
JSON does not know), `bytes`, `array`, `tensor`. The last three name an entry.
"""

import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pbt.errors import StateError

if TYPE_CHECKING:
    from torch import Tensor

_DEPTH = 200
_EXACT = 2**53
"""Up to here every reader of JSON keeps a whole number exact; larger ones are written in hexadecimal."""

_ARRAYS: Mapping[str, str] = {
    "b1": "BOOL", "u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64",
    "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64",
}  # fmt: skip
_TENSORS: Mapping[str, str] = {
    "bool": "BOOL", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "int8": "I8", "int16": "I16",
    "int32": "I32", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64",
    "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_TO_ARRAY = {name: np.dtype(f"<{code}") for code, name in _ARRAYS.items()}
_TO_TENSOR = {name: dtype for dtype, name in _TENSORS.items()}
SIZES = {name: dtype.itemsize for name, dtype in _TO_ARRAY.items()} | {"BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
# numpy does not know these: they travel as whole numbers of the same size.
_CARRIERS: Mapping[str, str] = {"BF16": "int16", "F8_E4M3": "uint8", "F8_E5M2": "uint8"}

Path = tuple[str | int, ...]


class Entry(NamedTuple):
    """A tensor, an array or a string of bytes, as a safetensors file knows it."""

    name: str
    dtype: str
    shape: list[int]
    data: Any
    """The bytes, as a flat buffer: of the tensor itself, or of the file that was read."""


def take_apart(state: Any) -> tuple[Any, list[Entry]]:
    """The structure of a state and its entries, whose data is the memory of the state itself.

    Raises:
        StateError: It holds something that cannot be stored; the message names the key.
    """
    entries: list[Entry] = []
    return _flatten(state, (), entries), entries


def _flatten(value: Any, path: Path, entries: list[Entry]) -> Any:
    kind = type(value)  # exact: a numpy float64 is a float, a named tuple a tuple, and neither would come back
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return value if -_EXACT <= value <= _EXACT else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, dict):
        _check_depth(path)
        return {"dict": {_key(key, path): _flatten(item, (*path, key), entries) for key, item in value.items()}}
    if kind is list or kind is tuple:
        _check_depth(path)
        items = [_flatten(item, (*path, index), entries) for index, item in enumerate(value)]
        return items if kind is list else {"tuple": items}
    if kind is np.ndarray:
        tag, entry = "array", _of_array(value, path)
    elif kind is bytes:
        tag, entry = "bytes", Entry(_name(path), "U8", [len(value)], value)
    else:
        tag, entry = "tensor", _of_tensor(value, path)
    entries.append(entry)
    return {tag: entry.name}


def _of_array(array: np.ndarray[Any, Any], path: Path) -> Entry:
    code = array.dtype.str
    dtype = _ARRAYS.get(code[1:])
    if dtype is None:
        raise StateError(
            f"{_place(path)}: expected an array of {', '.join(sorted(_ARRAYS.values()))}, got one of {array.dtype}"
        )
    if code[0] == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return Entry(_name(path), dtype, list(array.shape), _flat(array))


def _of_tensor(value: Any, path: Path) -> Entry:
    # A tensor can only be here if its library is; without one, nothing here imports it.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        raise StateError(_refusal(value, path))
    tensor: Tensor = value
    dtype = _TENSORS.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None:
        raise StateError(
            f"{_place(path)}: expected a tensor of {', '.join(sorted(_TENSORS.values()))}, got {tensor.dtype}"
        )
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        raise StateError(
            f"{_place(path)}: expected a dense tensor with values, got {tensor.layout} on device {tensor.device}; "
            "store tensor.to_dense(), or its parts"
        )
    if dtype in _CARRIERS:
        tensor = tensor.detach().view(getattr(torch, _CARRIERS[dtype]))
    array: np.ndarray[Any, Any] = tensor.numpy(force=True)
    return Entry(_name(path), dtype, list(array.shape), _flat(array))


def _flat(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bytes of an array; copied only where its elements do not lie in order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _key(key: Any, path: Path) -> str:
    """A dict key as text, different for different keys: whole numbers behind `#`, a leading `#` doubled."""
    if type(key) is str:
        return "#" + key if key.startswith("#") else key
    if type(key) is int and -_EXACT <= key <= _EXACT:
        return f"#{key}"
    raise StateError(f"{_place(path)}: expected keys that are strings or whole numbers below 2**53, got {key!r}")


def _name(path: Path) -> str:
    """The name of an entry, different for different places."""
    # Places in a list and keys of a dict cannot meet: one container is never both.
    parts = [_key(part, ()) if type(part) is str else f"#{part}" for part in path]
    name = "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)
    # The one name that the layout keeps for itself; no other name holds `~_`.
    return "~_metadata__" if name == "__metadata__" else name


def _place(path: Path) -> str:
    return "state" + "".join(f"[{part!r}]" for part in path)


def _check_depth(path: Path) -> None:
    if len(path) >= _DEPTH:
        raise StateError(
            f"{_place(path[:3])}...: expected at most {_DEPTH} levels, got more; does a container hold itself?"
        )


def _refusal(value: Any, path: Path) -> str:
    kind = type(value)
    remedy = "store its parts"
    if isinstance(value, np.generic):
        remedy = f"write {'bool' if kind is np.bool_ else 'int' if isinstance(value, np.integer) else 'float'}(x)"
    elif isinstance(value, np.ndarray):
        remedy = "write numpy.array(x)"
    elif isinstance(value, (str, int, float, list, tuple)):
        base = next(base for base in (str, int, float, list, tuple) if isinstance(value, base))
        remedy = f"write {base.__name__}(x)"
    elif isinstance(value, (set, frozenset)):
        remedy = "write sorted(x)"
    return (
        f"{_place(path)}: expected dicts, lists and tuples of tensors, arrays, numbers, strings, bytes, "
        f"booleans or None, got {kind.__module__}.{kind.__qualname__}; {remedy}"
    )


def build(node: Any, entries: dict[str, Entry]) -> Any:
    """The state of this structure, in fresh memory; entries are taken out as they are used.

    What is malformed raises one of KeyError, TypeError, ValueError, AttributeError, RuntimeError and OverflowError.
    """
    if type(node) is list:
        return [build(item, entries) for item in node]
    if type(node) is not dict:
        return node
    ((tag, body),) = node.items()
    if tag == "dict":
        return {_unkey(key): build(item, entries) for key, item in body.items()}
    if tag == "tuple":
        return tuple(build(item, entries) for item in body)
    return _LEAVES[tag](body, entries)


def _unkey(key: str) -> str | int:
    if not key.startswith("#"):
        return key
    return key[1:] if key.startswith("##") else int(key[1:])


def _to_array(name: str, entries: dict[str, Entry]) -> np.ndarray[Any, Any]:
    entry = entries.pop(name)
    # newbyteorder("=") is the same dtype on little-endian machines; copy() makes it writable and aligned.
    array = np.frombuffer(entry.data, _TO_ARRAY[entry.dtype]).reshape(entry.shape)
    return array.astype(array.dtype.newbyteorder("="), copy=True)


def _to_tensor(name: str, entries: dict[str, Entry]) -> "Tensor":
    import torch

    entry = entries.pop(name)
    # Memory from torch's own allocator: aligned as everything else it computes with, so that a kernel that
    # looks at the alignment takes the same path, and gives the same bits, as before the state was stored.
    raw = torch.empty(len(entry.data), dtype=torch.uint8, device="cpu")
    raw.numpy()[:] = np.frombuffer(entry.data, np.uint8)
    return raw.view(getattr(torch, _TO_TENSOR[entry.dtype])).reshape(entry.shape)


_LEAVES: Mapping[str, Callable[[Any, dict[str, Entry]], Any]] = {
    "int": lambda body, _: int(body, 16),
    "float": lambda body, _: float(body),
    "bytes": lambda body, entries: bytes(entries.pop(body).data),
    "array": _to_array,
    "tensor": _to_tensor,
}
