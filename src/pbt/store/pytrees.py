"""Custom nodes of pytrees in a state: named tuples, dataclasses, and what JAX or optree knows as a node.

A file holds the children of a node, the name of its type and a description of its static part, as text. Nothing is
imported or built from these texts. Decoding gives a `StoredNode`; `restore` rebuilds the node from a template that the
running program has built, after comparing names, static parts, and the shapes and dtypes of arrays.
"""

import copy
import dataclasses
import functools
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pbt.errors import MissingExtraError, StateError

_CONTAINERS = frozenset({Counter, OrderedDict, bytes, defaultdict, deque, dict, list, tuple, type(None)})
"""Types that a state keeps as they are, some of which are nodes of JAX, too."""


class NodeParts(NamedTuple):
    """A node, one level of it."""

    kind: str
    """Name of its type, for comparison."""
    static: str
    """Description of its static part, for comparison."""
    children: Sequence[Any]
    rebuild: Callable[[Sequence[Any]], Any] | None = None
    """Makes such a node of other children; None for a node from a file."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StoredNode:
    """The content of a custom node from a file; `pbt.restore(state, like=...)` rebuilds the node."""

    kind: str
    static: str
    children: Sequence[Any]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{self.kind}.{name}: a stored state has the leaves of this type, not its objects; rebuild them from a "
            "newly built value, as in pbt.restore(state, like=built)"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Static:
    """A function within a node, from a file: only its name, for comparison."""

    text: str


def opened(value: Any) -> NodeParts | None:
    """One level of a custom node; None for every other value."""
    kind = type(value)
    if kind is StoredNode:
        return NodeParts(value.kind, value.static, value.children)
    if kind is Static or kind in _CONTAINERS or isinstance(value, (np.ndarray, np.generic, type)):
        return None
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return NodeParts(name, describe(kind._fields), tuple(value), kind._make)
    found = _of_jax(value, name) or _of_optree(value, name)
    if found is None and dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        children = [getattr(value, field) for field in fields]
        return NodeParts(name, describe(fields), children, functools.partial(_filled, value, fields))
    return found


def _filled(value: Any, fields: Sequence[str], children: Sequence[Any]) -> Any:
    """A copy of a dataclass with other values, without the effects of its constructor."""
    made = copy.copy(value)
    for field, child in zip(fields, children, strict=True):
        object.__setattr__(made, field, child)
    return made


def _of_jax(value: Any, name: str) -> NodeParts | None:
    # A node of JAX implies that JAX is imported.
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "tree_util"):
        return None
    found = jax.tree_util.default_registry.flatten_one_level(value)
    if found is None:
        return None
    children, static = found

    def rebuild(others: Sequence[Any]) -> Any:
        structure = jax.tree_util.tree_structure(value, is_leaf=lambda part: part is not value)
        return jax.tree_util.tree_unflatten(structure, others)

    return NodeParts(name, describe(static), list(children), rebuild)


def _of_optree(value: Any, name: str) -> NodeParts | None:
    optree = sys.modules.get("optree")
    if optree is None or optree.tree_is_leaf(value):
        return None
    children, static, _, unflatten = optree.tree_flatten_one_level(value)
    return NodeParts(name, describe(static), list(children), lambda others: unflatten(static, tuple(others)))


def describe(value: Any) -> str:
    """A static part as text: values of plain types, and the names of functions and types."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, np.generic, np.dtype)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{describe(key)}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(describe, value)) + "]"
    if isinstance(value, functools.partial):
        return f"partial({describe([value.func, *value.args, value.keywords])})"
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def is_jax_array(value: Any) -> bool:
    """Whether a value is an array of JAX."""
    jax = sys.modules.get("jax")
    return jax is not None and hasattr(jax, "Array") and isinstance(value, jax.Array)


def from_jax(value: Any) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """The content of a JAX array, and what else it needs: the name of its generator, or whether its type is weak.

    Raises:
        StateError: It has no content: it is traced, or was donated.
    """
    import jax

    try:
        if str(value.dtype).startswith("key<"):
            return np.asarray(jax.random.key_data(value)), [str(jax.random.key_impl(value))]
        return np.asarray(value), [bool(value.weak_type) and value.shape == ()]
    except Exception as error:
        raise StateError(
            f"expected a JAX array with values, got one that is traced, deleted or donated ({type(error).__name__})"
        ) from error


def to_jax(data: np.ndarray[Any, Any], more: Any) -> Any:
    """A JAX array from its content.

    Raises:
        MissingExtraError: JAX is not installed.
        StateError: Its type needs `jax_enable_x64`.
    """
    try:
        import jax
    except ImportError as error:
        raise MissingExtraError("a state with JAX arrays", "jax") from error
    (kind,) = more
    config: Any = jax.config
    if type(kind) is str:
        return jax.random.wrap_key_data(jax.numpy.array(data), impl=kind)
    if data.dtype.itemsize == 8 and data.dtype.kind in "iuf" and not config.jax_enable_x64:
        raise StateError(
            f"expected jax_enable_x64, as when the state was stored, for an array of {data.dtype}; set "
            "jax.config.update('jax_enable_x64', True) at the top of the program"
        )
    # A number of Python has a weak type, which does not decide the type of a result.
    weak = kind and jax.numpy.asarray(data.item())
    return weak if kind and weak.dtype == data.dtype else jax.numpy.array(data)


def static(value: Any) -> Static | None:
    """A function, or one from a file; None for other values."""
    if type(value) is Static:
        return value
    return Static(describe(value)) if callable(value) else None


def node_up(body: Any, step: Callable[[Any], Any]) -> StoredNode:
    """A node from a file; malformed input raises ValueError or TypeError."""
    kind, text, children = body
    if not (type(kind) is str and type(text) is str and type(children) is list):
        raise TypeError("expected a node: the name of a type, its static part, its children")
    return StoredNode(kind, text, step(children))


def static_up(body: Any) -> Static:
    """A function within a node, from a file; malformed input raises TypeError."""
    if type(body) is not str:
        raise TypeError("expected the name of a function")
    return Static(body)


def carried(name: str) -> np.dtype[Any]:
    """The numpy type of a JAX type that numpy itself lacks, as `bfloat16`."""
    import ml_dtypes

    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return found


def restore(state: Any, like: Any) -> Any:
    """Rebuild a state that contains custom nodes: named tuples, dataclasses, modules of Equinox, states of optax.

    A stored state has the leaves of such nodes and the names of their types; code is never loaded by name. A newly
    built value of the same structure supplies the types and the static parts:

    ```python
    params, opt_state = init(hparams)
    if state is not None:
        params, opt_state = pbt.restore(state, like=(params, opt_state))
    ```

    Args:
        state: A state, as a task or `run.load_state()` gets it.
        like: A value with the structure of the state. Its arrays may be of JAX, numpy or torch, or
            `jax.ShapeDtypeStruct`; only their shapes and dtypes are used.

    Returns:
        The state, with nodes of the types in `like`; functions within nodes are those of `like`.

    Raises:
        StateError: A type, a static part, a key, a length, or the shape or dtype of an array differs; the message names
            the place.
    """
    return _restored(state, like, "state")


def _restored(state: Any, like: Any, path: str) -> Any:
    node = opened(like)
    if node is not None:
        return _restored_node(state, node, path)
    if isinstance(like, dict):
        if not isinstance(state, dict) or state.keys() != like.keys():
            raise _differs(path, f"a dict with the keys {list(like)}", _short(state))
        made = copy.copy(state)
        made.update({key: _restored(state[key], item, f"{path}[{key!r}]") for key, item in like.items()})
        return made
    if type(like) in (list, tuple, deque):
        if type(state) is not type(like) or len(state) != len(like):
            raise _differs(path, f"a {type(like).__name__} of length {len(like)}", _short(state))
        pairs = enumerate(zip(state, like, strict=True))
        items = [_restored(one, other, f"{path}[{index}]") for index, (one, other) in pairs]
        return deque(items, state.maxlen) if isinstance(state, deque) else type(like)(items)
    if is_array(like) and is_array(state):
        return _restored_array(state, like, path)
    if type(state) is Static:
        if state.text != describe(like):
            raise _differs(path, describe(like), state.text)
        return like
    # A number may have become an array in the training, and back.
    if is_array(state) or type(state) is type(like) or (_is_plain(state) and _is_plain(like)):
        return state
    raise _differs(path, _short(like), _short(state))


def _restored_node(state: Any, like: NodeParts, path: str) -> Any:
    found = opened(state)
    if found is None or found.kind != like.kind:
        raise _differs(path, like.kind, _short(state) if found is None else found.kind)
    if found.static != like.static or len(found.children) != len(like.children):
        raise _differs(path, f"{like.kind} with {like.static:.200}", f"one with {found.static:.200}")
    if like.rebuild is None:
        raise _differs(path, "`like` to be newly built", "a stored state")
    pairs = enumerate(zip(found.children, like.children, strict=True))
    return like.rebuild([_restored(one, other, f"{path}.{_named(like, index)}") for index, (one, other) in pairs])


def _named(node: NodeParts, index: int) -> str:
    """The name of a child, for messages."""
    names = node.static[2:-2].split("', '")
    return names[index] if len(names) == len(node.children) and names[index].isidentifier() else str(index)


def is_array(value: Any) -> bool:
    """Whether a value has a shape and a dtype."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)


def _restored_array(state: Any, like: Any, path: str) -> Any:
    expected, got = ((str(each.dtype).removeprefix("torch."), tuple(each.shape)) for each in (like, state))
    if expected != got:
        raise _differs(path, f"{expected[0]}{list(expected[1])}", f"{got[0]}{list(got[1])}")
    return to_jax(state, [False]) if isinstance(state, np.ndarray) and is_jax_array(like) else state


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, bytes))


def _short(value: Any) -> str:
    if is_array(value):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, dict):
        return f"a dict with the keys {list(value)}"[:200]
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"{value!r:.80}" if _is_plain(value) else f"{type(value).__module__}.{type(value).__qualname__}"


def _differs(path: str, expected: str, got: str) -> StateError:
    return StateError(
        f"{path}: expected {expected}, as newly built, got {got} in the state; build the same structure for all members"
    )
