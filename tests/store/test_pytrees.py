"""JAX arrays, dataclasses, named tuples and registered nodes in a state."""

import collections
import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch

import pbt
from pbt.errors import CorruptError, StateError
from pbt.store.codec import decode, digest, encode
from pbt.store.pytrees import StoredNode, restore

Pair = collections.namedtuple("Pair", "x y")
JAX = pytest.mark.needs("jax")


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    step: int
    weights: Any
    best: Any = None
    total: float = dataclasses.field(default=0.0, init=False)


class Registered:
    def __init__(self, weights, width):
        self.weights, self.width = weights, width


@dataclasses.dataclass
class Layers:
    parts: list


def come_back(state):
    blob = encode(state)
    found = decode(blob)
    assert digest(found) == digest(state)
    assert encode(found) == blob
    return found


def test_dataclasses_and_named_tuples_come_back_through_a_template():
    """Values are those of the state, types those of the template; the constructor is not called again."""
    stored = Progress(step=7, weights=Pair(torch.ones(2), [Progress(1, np.arange(3))]))
    object.__setattr__(stored, "total", 2.5)
    found = come_back({"p": stored})
    assert type(found["p"]) is StoredNode
    built = {"p": Progress(step=0, weights=Pair(torch.zeros(2), [Progress(0, np.zeros(3, int))]))}
    made = pbt.restore(found, like=built)["p"]
    assert (made.step, made.total, type(made.weights)) == (7, 2.5, Pair)
    assert torch.equal(made.weights.x, torch.ones(2))
    assert made.weights.y[0].weights.tolist() == [0, 1, 2]
    assert built["p"].step == 0


def test_a_stored_node_says_how_to_rebuild_it():
    """A task that forgets `restore` gets the remedy, not None or a wrong value."""
    found = come_back(Progress(1, None))
    with pytest.raises(AttributeError, match=r"Progress\.step.*pbt\.restore\(state, like="):
        _ = found.step


@pytest.mark.parametrize(
    ("like", "facts"),
    [
        ({"p": Pair(1, 2)}, r"state\['p'\]: expected .*Pair.*Progress"),
        ({"p": Progress(1, np.zeros(4))}, r"state\['p'\]\.weights: expected float64\[4\].*float64\[3\]"),
        ({"p": Progress(1, np.zeros(3, "f4"))}, r"state\['p'\]\.weights: expected float32\[3\].*float64\[3\]"),
        ({"p": Progress("1", np.zeros(3))}, None),
        ({"p": Progress([1], np.zeros(3))}, r"\.step: expected a list of length 1.*got 1"),
        ({"q": Progress(1, np.zeros(3))}, r"state: expected a dict with the keys \['q'\].*\['p'\]"),
        ({"p": [1, 2, 3, 4]}, r"expected a list of length 4.*Stored"),
    ],
)
def test_another_structure_is_refused_by_its_place(like, facts):
    """Type, keys, lengths, shapes and dtypes are compared; numbers and texts are free."""
    found = come_back({"p": Progress(1, np.ones(3))})
    if facts is None:
        assert restore(found, like)["p"].step == 1
        return
    with pytest.raises(StateError, match=facts):
        restore(found, like)


def test_functions_within_a_node_are_compared_by_name():
    """They stay those of the template; outside of a node a function is refused."""
    found = come_back(Layers([len, 2]))
    assert restore(found, Layers([len, 0])) == Layers([len, 2])
    with pytest.raises(StateError, match=r"builtins\.sum.*builtins\.len"):
        restore(found, Layers([sum, 0]))
    with pytest.raises(StateError, match=r"state\['f'\].*builtin_function"):
        encode({"f": len})


def test_containers_within_nodes_keep_their_types():
    """An OrderedDict and a deque inside a dataclass come back as such."""
    value = Progress(1, collections.OrderedDict(b=collections.deque([Pair(1, 2)], 3), a=1))
    made = restore(come_back(value), value)
    assert made == value
    assert type(made.weights) is collections.OrderedDict
    assert made.weights["b"].maxlen == 3


def test_files_with_false_nodes_are_corrupt():
    """A node of another form is damage, not code."""
    blob = encode(Pair(1, 2))
    text = b'{\\"node\\":[\\"'
    assert text in blob
    with pytest.raises(CorruptError):
        decode(blob.replace(text, b'{\\"node\\":[0,"'[:-2] + b'\\"').ljust(len(blob)))
    with pytest.raises(CorruptError):
        decode(blob.replace(b'\\"node\\"', b'\\"nodx\\"'))


@JAX
@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float32", "float16", "int32", "uint8", "bool", "complex64", "float8_e5m2"]
)
def test_jax_arrays_come_back_as_such(dtype):
    """Type, dtype, shape and bits are kept."""
    import jax
    import jax.numpy as jnp

    array = (jax.random.normal(jax.random.key(0), (3, 2)) * 3).astype(dtype)
    found = come_back({"a": array, "scalar": array[0, 0]})
    assert isinstance(found["a"], jax.Array)
    assert found["a"].dtype == array.dtype
    assert np.asarray(found["a"]).tobytes() == np.asarray(array).tobytes()
    assert found["scalar"].shape == ()
    assert jnp.array_equal(restore(found, {"a": jnp.zeros((3, 2), dtype), "scalar": array[0, 0]})["a"], array)


@JAX
def test_keys_and_weak_types_come_back():
    """A typed key continues its stream; a number without a strong type does not change the type of a result."""
    import jax
    import jax.numpy as jnp

    key, weak = jax.random.key(5, impl="rbg"), jnp.asarray(0.1)
    assert weak.weak_type
    found = come_back([key, weak, jnp.float32(0.1)])
    assert jax.random.key_impl(found[0]) == jax.random.key_impl(key)
    assert jax.random.normal(found[0]) == jax.random.normal(key)
    assert (jnp.ones(2, "bfloat16") * found[1]).dtype == jnp.bfloat16
    assert (jnp.ones(2, "bfloat16") * found[2]).dtype == jnp.float32


@JAX
def test_arrays_without_values_are_refused_by_their_place():
    """A donated array has none left."""
    import jax.numpy as jnp

    array = jnp.ones(2)
    array.delete()
    with pytest.raises(StateError, match=r"state\['a'\]: .*donated"):
        encode({"a": array})


@JAX
def test_wide_arrays_need_wide_types():
    """A state with 64 bits is not cut to 32 in silence."""
    import jax

    with jax.enable_x64(True):
        blob = encode([jax.numpy.ones(2)])
        assert decode(blob)[0].dtype == "float64"
    with pytest.raises(StateError, match="jax_enable_x64"):
        decode(blob)


@JAX
def test_registered_nodes_come_back_through_a_template():
    """A class registered with JAX; its static part is compared."""
    import jax

    jax.tree_util.register_pytree_node(
        Registered, lambda node: ((node.weights,), node.width), lambda width, parts: Registered(*parts, width)
    )
    found = come_back(Registered(jax.numpy.ones(2), 3))
    made = restore(found, Registered(jax.numpy.zeros(2), 3))
    assert type(made) is Registered
    assert (made.weights.tolist(), made.width) == ([1, 1], 3)
    with pytest.raises(StateError, match="with 4, as newly built, got one with 3"):
        restore(found, Registered(jax.numpy.zeros(2), 4))


@pytest.mark.needs("optree")
def test_nodes_of_optree_come_back_through_a_template():
    """The same for a class that only optree knows."""
    import optree

    class Known:
        def __init__(self, weights):
            self.weights = weights

    optree.register_pytree_node(
        Known,
        lambda node: ((node.weights,), None, None),
        lambda _, parts: Known(*parts),
        namespace=optree.registry.__GLOBAL_NAMESPACE,
    )
    made = restore(come_back(Known(torch.ones(2))), Known(torch.zeros(2)))
    assert type(made) is Known
    assert torch.equal(made.weights, torch.ones(2))


@pytest.mark.long
@JAX
@pytest.mark.needs("equinox", "flax")
def test_the_usual_libraries_come_back():
    """Modules of Equinox and Flax, states of optax, a TrainState: the leaves are equal, the structures are equal."""
    import equinox as eqx
    import jax
    import optax
    from flax import nnx
    from flax.training.train_state import TrainState

    def build(seed):
        key = jax.random.key(seed)
        adam = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
        params = {"w": jax.random.normal(key, (3,))}
        return {
            "eqx": eqx.nn.MLP(2, 2, 4, 1, key=key),
            "opt": adam.init(params),
            "train": TrainState.create(apply_fn=build, params=params, tx=optax.adam(0.1)),
            "nnx": nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(seed))),
            "module": nnx.Linear(2, 3, rngs=nnx.Rngs(seed)),
        }

    first, second = build(1), build(2)
    made = restore(come_back(first), second)
    for name in ("eqx", "opt", "nnx"):
        assert jax.tree.structure(made[name]) == jax.tree.structure(first[name])
    assert eqx.tree_equal(made["eqx"], first["eqx"])
    assert jax.numpy.array_equal(made["module"].kernel[...], first["module"].kernel[...])
    assert not jax.numpy.array_equal(made["module"].kernel[...], second["module"].kernel[...])
    assert made["train"].tx is second["train"].tx
    assert digest(made) == digest(first)


@JAX
@pytest.mark.parametrize(
    "node",
    [
        {"jax": ["a", ["nonsense"]]},
        {"jax": ["a", [1, 2]]},
        {"jax": "a"},
        {"jax": ["a", [True]]},
        {"jax": ["b", [False]]},
        {"node": ["os.system", 1, ["ls"]]},
        {"node": ["os.system", "[]", "ls"]},
        {"static": ["ls"]},
    ],
)
def test_malformed_nodes_are_damage(node):
    """Whatever a file says, decoding gives a state or CorruptError."""
    import jax.numpy as jnp

    blob = encode({"a": jnp.ones((2, 2))})
    old, new = (json.dumps(json.dumps(one, separators=(",", ":"))).strip('"').encode() for one in (KNOWN, node))
    assert old in blob
    head = int.from_bytes(blob[:8], "little")
    text = blob[8 : 8 + head].replace(old, new)
    with pytest.raises(CorruptError):
        decode(len(text).to_bytes(8, "little") + text + blob[8 + head :])


KNOWN = {"jax": ["a", [False]]}


def test_a_name_in_a_file_is_not_looked_up():
    """A node with the name of something dangerous is an inert record."""
    blob = encode([Pair("ls", 1)])
    name = f"{__name__}.Pair".encode()
    assert name in blob
    (found,) = decode(blob.replace(name, b"os.system".ljust(len(name))))
    assert (type(found), found.kind.strip(), list(found.children)) == (StoredNode, "os.system", ["ls", 1])
