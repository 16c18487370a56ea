"""Readers of what others wrote: any bytes give a value or the documented error, and memory is bounded by them."""

import contextlib
import gzip
import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pbt.core.events import Event
from pbt.core.schedule import Schedule
from pbt.errors import ConfigError, CorruptError, DataError, UsageError
from pbt.mnist.config.record import load_config
from pbt.mnist.data.idx import read_gzip_idx, read_idx
from pbt.runs.schedule_io import FORMATS, read_schedule, schedule_of
from pbt.store.codec import decode, digest_of, encode
from pbt.store.event_rows import from_json, to_event

bounded = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
EVENT = {
    "kind": "reported", "member": 1, "round": 2, "step": 3, "scores": [0.5], "series": [], "state": [1, 2],
    "digest": "0" * 64, "reported": {},
}  # fmt: skip
STATE = {"model": {"w": np.arange(6, dtype="f4"), "b": np.zeros(2)}, "step": 3, "t": (1, b"xy"), "nan": float("nan")}
CONFIG = {"general": {"model": "fc", "seed": 1}, "train": {"lr": "0.1", "PBT_lr": "0.1,0.01"}, "test": {}}


def mutated(blob):
    """These bytes with some cut, doubled or changed."""
    edits = st.lists(st.tuples(st.integers(0, len(blob)), st.integers(0, 40), st.binary(max_size=8)), max_size=4)

    def edit(changes):
        content = blob
        for place, gone, new in changes:
            content = content[:place] + new + content[place + gone :]
        return content

    return edits.map(edit)


def peak(call):
    """Bytes that Python took at most."""
    tracemalloc.start()
    try:
        call()
    except (CorruptError, DataError, UsageError):
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return most


def header(structure, **entries):
    """A file whose header says just this."""
    meta = {"__metadata__": {"pbt.format": "1", "pbt.structure": json.dumps(structure)}, **entries}
    text = json.dumps(meta).encode()
    return len(text).to_bytes(8, "little") + text


@bounded
@given(st.one_of(st.binary(max_size=200), mutated(encode(STATE))))
def test_any_bytes_are_a_state_or_damage(blob) -> None:
    """Nothing but CorruptError."""
    for read in (decode, digest_of):
        with contextlib.suppress(CorruptError):
            read(blob)


@bounded
@given(values, st.lists(st.one_of(st.integers(-3, 9), st.floats(), st.text(max_size=3)), max_size=3), values)
def test_any_header_is_a_state_or_damage(structure, shape, offsets) -> None:
    """A header that is JSON, and says nonsense."""
    entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    for tree in (structure, {"array": "a"}, {"tensor": "a"}, {"dict": {"x": {"bytes": "a"}}}):
        for fields in (entry, {**entry, "data_offsets": [0, 4]}, structure):
            with contextlib.suppress(CorruptError):
                decode(header(tree, a=fields) + bytes(4))


def test_a_header_that_promises_much_takes_no_memory() -> None:
    """Lengths, shapes and offsets are held against the bytes that are there."""
    lies = [
        (1 << 62).to_bytes(8, "little") + b"{}",
        header({"array": "a"}, a={"dtype": "F64", "shape": [1 << 40], "data_offsets": [0, 1 << 43]}),
        header({"array": "a"}, a={"dtype": "F64", "shape": [1 << 40, 0], "data_offsets": [0, 0]}),
    ]
    for blob in lies:
        assert peak(lambda blob=blob: decode(blob)) < 1 << 20


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "shape", [[2**62] * 200_000, [3] * 1_000_000, [10**4000], [True], [1.0], ["1"], [[1]], "1", {}]
)
def test_a_shape_whose_product_takes_forever_is_refused(shape) -> None:
    """Dimensions are few, and each fits into a machine's integer."""
    entry = {"dtype": "U8", "shape": shape, "data_offsets": [0, 1]}
    for structure in ({"array": "a"}, {"tensor": "a"}):
        blob = header(structure, a=entry) + bytes(1)
        for read in (decode, digest_of):
            with pytest.raises(CorruptError):
                read(blob)


@pytest.mark.parametrize(
    "text", ["1" * 4000, "[" + "1" * 400 + "]", "-" + "9" * 5000, '{"a": ' + "[" * 80 + "]" * 80 + "}"]
)
def test_numbers_and_nesting_that_no_run_writes_are_refused(text) -> None:
    """Other code computes with floats, and may recurse."""
    with pytest.raises(CorruptError):
        from_json(text)
    with pytest.raises(CorruptError):
        to_event(json.dumps(EVENT).replace('"reported": {}', f'"reported": {{"x": {text}}}'), 1)
    assert from_json("9" * 300) == int("9" * 300)


def test_one_entry_in_many_places_is_refused() -> None:
    """A million copies of a megabyte would be a terabyte."""
    entry = {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]}
    many = header([{"array": "a"}] * 300, a=entry) + bytes(1 << 20)
    shared = header([{"array": str(i)} for i in range(300)], **{str(i): entry for i in range(300)}) + bytes(1 << 20)
    for blob in (many, shared):
        with pytest.raises(CorruptError):
            decode(blob)
        assert peak(lambda blob=blob: decode(blob)) < 8 << 20


@pytest.mark.parametrize("depth", [300, 100_000])
def test_what_is_nested_without_end_is_refused(depth) -> None:
    """No stack overflows."""
    deep = "[" * depth + "]" * depth
    blob = header(0).replace(b'"pbt.structure": "0"', f'"pbt.structure": "{deep}"'.encode())
    blob = (len(blob) - 8).to_bytes(8, "little") + blob[8:]
    if depth > 1000:
        for read in (lambda: decode(blob), lambda: to_event(deep, 1), lambda: from_json(deep)):
            with pytest.raises(CorruptError):
                read()
        for format_, text in (("toml", f"a = {deep}"), ("json", deep)):
            with pytest.raises(UsageError):
                schedule_of(text, format_)
        assert schedule_of(f"start,stop,lr\n0,1,{'[' * 9000}", "csv").at(0) == {"lr": "[" * 9000}
    else:
        with contextlib.suppress(CorruptError):
            decode(blob)


@bounded
@given(
    st.one_of(
        st.text(max_size=60),
        mutated(json.dumps(EVENT).encode()).map(lambda blob: blob.decode(errors="replace")),
        st.dictionaries(st.sampled_from([*EVENT, "how", "start", "x"]), values, max_size=6).map(json.dumps),
        st.tuples(st.sampled_from(sorted(EVENT)), values).map(lambda pair: json.dumps({**EVENT, pair[0]: pair[1]})),
    )
)
def test_any_text_is_an_event_or_damage(text) -> None:
    """A row of the log is an event or a CorruptError, and so is a value of meta."""
    with contextlib.suppress(CorruptError):
        assert isinstance(to_event(text, 1), Event)
    with contextlib.suppress(CorruptError):
        from_json(text)


IDX = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + bytes(2 * 28 * 28)
LABELS = struct.pack(">4BI", 0, 0, 8, 1, 3) + b"\1\2\3"


@bounded
@given(st.one_of(st.binary(max_size=100), mutated(IDX), mutated(LABELS)), st.sampled_from([1, 3]))
def test_any_bytes_are_a_data_set_or_damage(blob, ndim) -> None:
    """Nothing but DataError, plain or packed."""
    for read in (
        lambda: read_idx(io.BytesIO(blob), ndim, "x"),
        lambda: read_gzip_idx(io.BytesIO(blob), ndim, "x"),
        lambda: read_gzip_idx(io.BytesIO(gzip.compress(blob)), ndim, "x"),
    ):
        with contextlib.suppress(DataError):
            read()


@bounded
@given(mutated(gzip.compress(LABELS)))
def test_any_packed_bytes_are_a_data_set_or_damage(blob) -> None:
    """Also where the packing itself is damaged."""
    with contextlib.suppress(DataError):
        read_gzip_idx(io.BytesIO(blob), 1, "x")


def test_a_bomb_takes_no_memory() -> None:
    """A hundred megabytes of zeros behind a small header are not unpacked, and a header's number is not believed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(struct.pack(">4BI", 0, 0, 8, 1, 10))
    bomb += b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    assert len(bomb) < 1 << 18
    assert peak(lambda: read_gzip_idx(io.BytesIO(bomb), 1, "x")) < 8 << 20
    with pytest.raises(DataError, match="found more"):
        read_gzip_idx(io.BytesIO(bomb), 1, "x")
    promise = struct.pack(">4B3I", 0, 0, 8, 3, 1_000_000, 28, 28)
    assert peak(lambda: read_idx(io.BytesIO(promise), 3, "x")) < 8 << 20


@bounded
@given(
    st.one_of(
        st.binary(max_size=60),
        mutated(json.dumps(CONFIG).encode()),
        st.dictionaries(
            st.sampled_from(["general", "train", "test", "val", "x"]),
            st.one_of(
                values,
                st.dictionaries(
                    st.sampled_from(["lr", "model", "n_hiddens", "PBT_lr", "PBT_", "seed", "gpus"]), values
                ),
            ),
        ).map(lambda tables: json.dumps(tables).encode()),
    )
)
def test_any_bytes_are_a_configuration_or_wrong(tmp_path, blob) -> None:
    """Nothing but ConfigError."""
    path = tmp_path / "config.json"
    path.write_bytes(blob)
    with contextlib.suppress(ConfigError):
        load_config(path)


def test_a_configuration_without_end_is_refused(tmp_path) -> None:
    """It is read up to a bound, also from a device that never ends."""
    with pytest.raises(ConfigError, match="at most"):
        load_config("/dev/zero")
    path = tmp_path / "config.json"
    path.write_text("[" * 500_000)
    with pytest.raises(ConfigError):
        load_config(path)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_schedule_without_end_is_refused(format_, tmp_path) -> None:
    """It is read up to a bound."""
    path = tmp_path / f"schedule.{format_}"
    path.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="at most"):
        read_schedule(path)


SCHEDULE = {"segments": [{"start": 0, "stop": 5, "hparams": {"lr": 0.1, "opt": "adam"}}]}


@bounded
@given(
    st.sampled_from(FORMATS),
    st.one_of(
        st.text(max_size=60),
        mutated(json.dumps(SCHEDULE).encode()).map(lambda blob: blob.decode(errors="replace")),
        mutated(b"start,stop,lr\n0,5,0.1\n5,9,0.2\n").map(lambda blob: blob.decode(errors="replace")),
        mutated(b"[[segments]]\nstart = 0\nstop = 5\n[segments.hparams]\nlr = 0.1\n").map(
            lambda blob: blob.decode(errors="replace")
        ),
        values.map(json.dumps),
        values.map(lambda value: json.dumps({"segments": [{"start": 0, "stop": 1, "hparams": value}]})),
    ),
)
def test_any_text_is_a_schedule_or_wrong(format_, text) -> None:
    """Nothing but UsageError."""
    with contextlib.suppress(UsageError):
        assert isinstance(schedule_of(text, format_), Schedule)
