"""The codec: what comes back, what is refused, and what the digest knows."""

import hashlib
import json
import struct
import subprocess
import sys
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from pbt.errors import CorruptError, StateError
from pbt.store.codec import decode, decode_checked, digest, digest_of, encode
from pbt.store.encoded_bytes import InMemory

DTYPES = ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32"]
DTYPES += ["float64", "complex64"]
TORCH_ONLY = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]

plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**70), 2**70), st.floats(), st.text(), st.binary()
)
arrays = st.sampled_from(DTYPES).flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
tensors = arrays.map(torch.tensor)
keys = st.one_of(st.text(max_size=5), st.sampled_from(["a/b", "~", "#0", "##", "__metadata__", ""]), st.integers(-9, 9))
hashable = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=2)),
    max_leaves=4,
)
scalars = st.sampled_from(DTYPES).flatmap(lambda name: hnp.arrays(np.dtype(name), ())).map(lambda array: array[()])
paths = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9).map(Path)
FACTORIES = [None, int, float, str, bool, list, dict, tuple, set]


def defaulting(items: dict[Any, Any], factory: Any) -> defaultdict[Any, Any]:
    return defaultdict(factory, items)


def states_of(leaves: st.SearchStrategy[Any], *more: Any) -> st.SearchStrategy[Any]:
    """Nested states; `more`: from the parts and dicts of them, further containers."""

    def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        dicts = st.dictionaries(keys, inner, max_size=4)
        made = [make(inner, dicts) for make in more]
        return st.one_of(st.lists(inner, max_size=3), st.tuples(inner, inner), dicts, *made)

    return st.recursive(leaves, containers, max_leaves=12)


plain_states = states_of(st.one_of(plain, arrays, tensors))
states = states_of(
    st.one_of(
        plain, arrays, tensors, scalars, paths, st.frozensets(hashable, max_size=4), st.sets(hashable, max_size=4)
    ),
    lambda inner, dicts: dicts.map(OrderedDict),
    lambda inner, dicts: dicts.map(Counter),
    lambda inner, dicts: st.builds(defaulting, dicts, st.sampled_from(FACTORIES)),
    lambda inner, dicts: st.builds(deque, st.lists(inner, max_size=3), st.sampled_from([None, 0, 2, 5])),
)


def same(found: Any, expected: Any) -> bool:  # noqa: PLR0911 (one for each kind)
    """Equality to the bit, with types and the order of dicts."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, (np.ndarray, np.generic)):
        return (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
    if isinstance(expected, torch.Tensor):
        raw = [bytes(tensor.clone().untyped_storage()) if tensor.numel() else b"" for tensor in (found, expected)]
        return (found.dtype, found.shape) == (expected.dtype, expected.shape) and raw[0] == raw[1]
    if isinstance(expected, (defaultdict, deque)):
        name = "maxlen" if isinstance(expected, deque) else "default_factory"
        if getattr(found, name) is not getattr(expected, name):
            return False
    if isinstance(expected, (set, frozenset)):
        return len(found) == len(expected) and all(any(same(one, other) for one in found) for other in expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple, deque)):
        return len(found) == len(expected) and all(map(same, found, expected))
    # repr tells -0.0 from 0.0 and finds NaN equal to itself.
    return repr(found) == repr(expected)


@settings(max_examples=150, deadline=None)
@given(states)
def test_every_state_comes_back_to_the_bit(state: Any) -> None:
    """What is encoded is decoded, types, order and all; the digest can be told from the bytes alone."""
    blob, found = encode(state), digest(state)
    assert same(decode(blob), state)
    assert same(decode_checked(InMemory(blob), found), state)
    assert found == digest(state) == digest_of(blob) == digest(decode(blob))
    assert blob == encode(state)


@pytest.mark.parametrize("name", DTYPES + TORCH_ONLY)
def test_every_type_of_tensor_is_read_alike_by_the_safetensors_library(name: str, tmp_path: Path) -> None:
    """A file is a safetensors file to every other program: same names, types, shapes and bytes."""
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
    path = tmp_path / "state.safetensors"
    path.write_bytes(encode({"model": {"0.weight": tensor, "flag": torch.tensor([True])}, "empty": torch.ones(0, 2)}))
    with safe_open(path, "pt") as file:
        assert sorted(file.keys()) == ["empty", "model/0.weight", "model/flag"]
        assert same(file.get_tensor("model/0.weight"), tensor)
        assert file.get_tensor("empty").shape == (0, 2)


def test_a_state_without_tensors_is_a_safetensors_file(tmp_path: Path) -> None:
    """Plain values alone make a file that others open and find empty."""
    path = tmp_path / "state.safetensors"
    path.write_bytes(encode({"step": 3}))
    with safe_open(path, "np") as file:
        assert list(file.keys()) == []
        assert json.loads(file.metadata()["pbt.structure"]) == {"dict": {"step": 3}}


def test_the_shape_of_memory_does_not_matter() -> None:
    """Views, transposes, steps, gradients and foreign byte orders are stored by their values."""
    base = torch.arange(24.0).reshape(4, 6)
    views = [base.T, base[::2, 1::2], base[::5, ::7], base[1], base[:1, :1].expand(2, 3)]
    for view in (*views, base.clone().requires_grad_(), torch.nn.Parameter(base)):
        assert torch.equal(decode(encode([view]))[0], view)
        assert digest([view]) == digest([view.detach().clone()])
    for array in (base.numpy()[::5, ::7], base.numpy()[::-1], np.broadcast_to(np.float32(3), (2, 2))):
        assert same(decode(encode([array]))[0], array.copy())
    swapped = np.arange(3, dtype=">i4")
    assert digest([swapped]) == digest([np.arange(3, dtype="<i4")])
    assert decode(encode([swapped]))[0].tolist() == [0, 1, 2]
    conjugate = torch.tensor([1 + 2j], dtype=torch.complex64).conj()
    assert decode(encode([conjugate]))[0].tolist() == [1 - 2j]


def test_decoded_memory_is_writable_and_shared_with_nobody() -> None:
    """Even what was one tensor in two places, or a part of the bytes, can be changed alone."""
    tensor, array = torch.zeros(3), np.zeros(3)
    blob = encode({"a": tensor, "b": tensor, "c": array, "d": array})
    kept = bytes(blob)
    state = decode(blob)
    state["a"] += 1
    state["c"] += 1
    assert state["b"].tolist() == state["d"].tolist() == [0, 0, 0]
    assert blob == kept
    assert same(decode(blob)["a"], tensor)


def test_the_digest_knows_content_and_nothing_else() -> None:
    """The order of a dict does not change it; a name, a type, a shape, a bit, a key's type does."""
    state = {"a": np.zeros(4, "f4"), "b": {0: 1, 1: 2.0}}
    assert digest(state) == digest({"b": {1: 2.0, 0: 1}, "a": np.zeros(4, "f4")})
    others = [
        {"x": state["a"], "b": state["b"]},
        {"a": np.zeros(4, "i4"), "b": state["b"]},
        {"a": np.zeros((2, 2), "f4"), "b": state["b"]},
        {"a": np.array([0, 0, 0, -0.0], "f4"), "b": state["b"]},
        {"a": torch.zeros(4), "b": state["b"]},
        {"a": state["a"], "b": {"0": 1, 1: 2.0}},
        {"a": state["a"], "b": {0: True, 1: 2.0}},
        {"a": state["a"], "b": {0: 1, 1: 2}},
        {"a": state["a"], "b": [1, 2.0]},
    ]
    assert len({digest(other) for other in [state, *others]}) == len(others) + 1


def test_the_digest_stays_what_it_is() -> None:
    """Runs of earlier versions stay readable: the digest of this state has been the same since format 1."""
    state = {"w": np.arange(3, dtype="f4"), "step": 3, "lr": [0.1, float("nan")], 4: (None, 2**60, b"x")}
    assert digest(state) == "f829598ff2c2d48d32bf62d3ac0c69c611ba18972161bd1c610199494bef1a7b"


Pair = namedtuple("Pair", "x y")


class Level(IntEnum):
    LOW = 1


class Own(dict[str, int]):
    pass


class OwnCounter(Counter[str]):
    pass


class OwnOrdered(OrderedDict[str, int]):
    pass


def with_attribute(container: Any, note: Any) -> Any:
    container.note = note
    return container


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.Size([1]), ["torch.Size", "tuple(x)"]),
        (Level.LOW, ["Level", "x.value"]),
        ({b"bytes"}, ["set", "bytes", "list(x)"]),
        ({(1, Pair(1, 2))}, ["set", "Pair"]),
        (Own(a=1), ["Own", "dict(x)"]),
        (OwnCounter(a=1), ["OwnCounter", "dict(x)"]),
        (OwnOrdered(a=1), ["OwnOrdered", "dict(x)"]),
        (MappingProxyType({}), ["mappingproxy", "dict(x)"]),
        (UserDict(), ["UserDict", "dict(x)"]),
        (ChainMap(), ["ChainMap", "dict(x)"]),
        (torch.nn.ParameterDict(), ["ParameterDict", "x.state_dict()"]),
        (defaultdict(lambda: 0), ["defaultdict", "lambda", "dict(x)"]),
        (with_attribute(OrderedDict(), torch.ones(1)), ["OrderedDict", "note"]),
        (with_attribute(OrderedDict(), object()), ["OrderedDict", "note", "object"]),
        (with_attribute(Counter(), 1), ["counter", "note"]),
        (datetime(2020, 1, 1, tzinfo=UTC), ["datetime", "isoformat"]),
        (timedelta(1), ["timedelta", "total_seconds"]),
        (bytearray(1), ["bytearray", "bytes(x)"]),
        (np.str_("a"), ["array", "<U1"]),
        (object(), ["object"]),
        (lambda: 0, ["function"]),
        (np.array(["a"]), ["array", "<U1"]),
        (np.array([object()]), ["array", "object"]),
        (np.zeros(1, np.complex128), ["complex128"]),
        (np.ma.masked_array([1]), ["MaskedArray", "numpy.array(x)"]),
        (torch.zeros(1, dtype=torch.complex128), ["torch.complex128"]),
        (torch.zeros(1, device="meta"), ["meta", "dense"]),
        (torch.eye(2).to_sparse(), ["sparse", "to_dense"]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
def test_what_cannot_come_back_is_refused_by_its_place(value: Any, words: list[str]) -> None:
    """An error names the key path, what was found, and the remedy."""
    with pytest.raises(StateError) as caught:
        encode({"model": {"layers": [0, (value,)]}})
    assert "state['model']['layers'][1][0]: expected" in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("key", [None, 1.5, True, (1, 2), 2**60, np.int64(1)])
def test_keys_are_strings_or_whole_numbers(key: Any) -> None:
    """Any other key would come back as something else, so it is refused."""
    with pytest.raises(StateError, match=r"state\['a'\]: expected keys"):
        encode({"a": {key: 1}})


def test_a_container_that_holds_itself_is_refused() -> None:
    """Endless states end in an error that says so."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(StateError, match="contain itself"):
        encode(endless)


def test_keys_that_no_file_can_hold_are_refused() -> None:
    """Half a surrogate pair is no Unicode: an error, not a file that others cannot read."""
    with pytest.raises(StateError, match="Unicode"):
        encode({"\ud800": np.zeros(1)})


@settings(max_examples=50, deadline=None)
@given(plain_states)
def test_an_ordered_dict_has_the_digest_of_a_dict(state: Any) -> None:
    """What an OrderedDict adds to a dict is beside the digest, so that states of earlier versions keep theirs."""

    def ordered(value: Any) -> Any:
        if type(value) is dict:
            return OrderedDict((key, ordered(item)) for key, item in value.items())
        return type(value)(map(ordered, value)) if type(value) in (list, tuple) else value

    blob, found = encode(ordered(state)), digest(ordered(state))
    assert found == digest(state) == digest_of(blob)
    assert same(decode(blob), ordered(state))


def test_a_module_keeps_the_versions_of_its_layers() -> None:
    """`Module.state_dict()` comes back with `_metadata`, without which a layer migrates a state of its own version."""

    class Migrating(torch.nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *args: Any) -> None:
            if local_metadata.get("version") != 2:
                state_dict[prefix + "weight"] = state_dict[prefix + "weight"].T
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    model = torch.nn.Sequential(Migrating(2, 2), torch.nn.BatchNorm1d(2))
    state = model.state_dict()
    found = decode(encode({"model": state}))["model"]
    assert same(found, state)
    assert same(vars(found), vars(state))
    fresh = torch.nn.Sequential(Migrating(2, 2), torch.nn.BatchNorm1d(2))
    fresh.load_state_dict(found)
    assert torch.equal(fresh[0].weight, model[0].weight)


@pytest.mark.parametrize("milestones", [[2, 2, 4], [1]])
def test_a_scheduler_keeps_its_counter(milestones: list[int]) -> None:
    """MultiStepLR counts its milestones in a Counter, which is one again after a round."""
    made = [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0) for _ in range(2)]
    first, second = (torch.optim.lr_scheduler.MultiStepLR(one, milestones) for one in made)
    second.load_state_dict(decode(encode(first.state_dict())))
    assert type(second.milestones) is Counter
    assert second.milestones == first.milestones
    assert list(second.milestones.elements()) == milestones


@given(st.lists(hashable, max_size=6, unique_by=repr), st.randoms())
def test_the_order_of_a_set_does_not_matter(items: list[Any], random: Any) -> None:
    """The digest and the bytes of a set do not depend on the order in which it was filled."""
    shuffled = list(items)
    random.shuffle(shuffled)
    assert encode(set(items)) == encode(set(shuffled))
    assert digest(set(items)) == digest(set(shuffled))


def test_the_digest_knows_the_kind_of_a_container() -> None:
    """Containers of other kinds with the same items have other digests, an OrderedDict excepted."""
    alike = [{"a": 1}, Counter(a=1), defaultdict(None, a=1), defaultdict(int, a=1), defaultdict(dict, a=1)]
    alike += [[1, 2], (1, 2), {1, 2}, frozenset({1, 2}), deque([1, 2]), deque([1, 2], 2), deque([1, 2], 3)]
    alike += ["a", Path("a"), 1.0, np.float64(1), np.float32(1), np.array(1.0)]
    assert len({digest(value) for value in alike}) == len(alike)


def format_of(blob: bytes) -> str:
    (length,) = struct.unpack("<Q", blob[:8])
    return str(json.loads(blob[8 : 8 + length])["__metadata__"]["pbt.format"])


@pytest.mark.parametrize("value", [Counter(), defaultdict(int), deque(), set(), frozenset(), np.int8(1), Path("a")])
def test_a_file_has_the_lowest_format_that_knows_its_kinds(value: Any) -> None:
    """What format 1 does not know is written as format 2, which an earlier version refuses; all else as format 1."""
    assert format_of(encode({"a": [value]})) == "2"
    assert format_of(encode({"a": [np.zeros(1), (1, b"x")], "b": OrderedDict(a=torch.ones(1))})) == "1"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_are_noticed(data: st.DataObject) -> None:
    """Any one byte changed, or the end cut off: an error or the very same content, and never anything else."""
    state = {"a": np.arange(5), "b": OrderedDict(x=[1.5, "x"]), "c": torch.ones(2), "d": deque([{1, 2}], 3)}
    blob, found = encode(state), digest(state)
    place = data.draw(st.integers(0, len(blob) - 1))
    if data.draw(st.booleans()):
        broken = blob[:place]
    else:
        broken = bytearray(blob)
        broken[place] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_checked(InMemory(bytes(broken)), found)
    except CorruptError:
        return
    assert same(decoded, state)


OTHER = b'{"__metadata__": {"pbt.format": "1", "pbt.structure": "null"}, '


@pytest.mark.parametrize(
    "header",
    [
        b"", b"[]", b"{}", b'{"__metadata__": 3}', b"\xff" * 9, b"[" * 100000,
        b'{"__metadata__": {"pbt.format": "1", "pbt.structure": "{\\"tensor\\":\\"x\\"}"}}',
        b'{"__metadata__": {"pbt.format": "1", "pbt.structure": "{\\"run\\":\\"x\\"}"}}',
        *(
            b'{"__metadata__": {"pbt.format": "2", "pbt.structure": "' + text.replace(b'"', b'\\"') + b'"}}'
            for text in (
                b'{"counter":[1]}', b'{"counter":{"list":1}}', b'{"defaultdict":["os.system",{"dict":{}}]}',
                b'{"defaultdict":["int",[1]]}', b'{"defaultdict":["int"]}', b'{"deque":[1,[1,2]]}',
                b'{"deque":[-1,[]]}',
                b'{"deque":[true,[]]}', b'{"set":[1,1]}', b'{"set":[[]]}', b'{"set":{"dict":{}}}', b'{"path":1}',
                b'{"scalar":"x"}', b'{"an OrderedDict":[{},null]}',
            )
        ),
        *(
            b'{"__metadata__": {"pbt.format": "1", "pbt.structure": "{\\"dict\\":{\\"a\\":[1]}}", "pbt.ordered": "'
            + hashlib.sha256(text).hexdigest().encode() + text.replace(b'"', b'\\"') + b'"}}'
            for text in (
                b"1", b"[1]", b"[[1]]", b'[["b",null]]', b'[[["b"],null]]', b'[[["a"],null]]', b'[[["a","#0"],null]]',
                b'[[["a","#9"],null]]', b"[[[],null],[[],null]]", b"[[[],1]]", b'[[[],[{"dict":{}},[[["x"],null]]]]]',
            )
        ),
        b'{"__metadata__": {"pbt.format": "1", "pbt.structure": "1", "pbt.ordered": "' + b"0" * 64 + b'[]"}}',
        b'{"__metadata__": {"pbt.format": "1", "pbt.structure": "1", "qbt.ordered": "[]"}}',
        OTHER + b'"a": {"dtype": "F32", "shape": [1000000000], "data_offsets": [0, 4000000000]}}',
        OTHER + b'"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}',
    ],
)  # fmt: skip
def test_hostile_headers_are_refused(header: bytes) -> None:
    """A file made by somebody else can only be refused: it runs nothing and reserves no memory it does not fill."""
    with pytest.raises(CorruptError):
        decode(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CorruptError):
        decode(b"\xff" * 8 + header)


def test_another_format_is_named() -> None:
    """A file of a later version is refused with its number."""
    blob = encode(1).replace(b'"pbt.format":"1"', b'"pbt.format":"9"')
    with pytest.raises(CorruptError, match="format 9"):
        decode(blob)


def test_a_state_without_tensors_never_imports_torch() -> None:
    """A task that does not use torch starts and stores without it."""
    code = (
        "import sys, numpy as np; import pbt.store.memory, pbt.store.sqlite\n"
        "from pbt.store.codec import encode, decode\n"
        "state = {'a': np.ones(3), 'b': [1, 'x', None, b'y']}\n"
        "assert decode(encode(state))['b'] == state['b']\n"
        "try: encode({'a': object()})\n"
        "except Exception as error: assert 'object' in str(error)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
