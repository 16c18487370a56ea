"""The original's folder of PNG files: order, labels, the cache of what was decoded, and what is refused."""

import hashlib
import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pbt.errors import DataError, MissingExtraError
from pbt.mnist.config.record import Config
from pbt.mnist.data import png
from pbt.mnist.data.find import load_mnist
from pbt.mnist.data.idx import SPECS
from pbt.mnist.data.png import is_png_folder, load_png_folder
from pbt.mnist.task import find_data
from pbt.mnist.training import prepare
from pbt.runs.placement import Placement
from pbt.store.codec import encode

Loaded = tuple[Any, Any, Any, Any]


def pixels(value: int, height: int = 4, width: int = 3) -> np.ndarray:
    """An image that says whose it is."""
    return (np.arange(height * width, dtype=np.uint8) + value).reshape(height, width)


FILES = {"train/b_7.png": 10, "train/a_0_3.png": 20, "train/00012_0.PNG": 30, "test/x_9.png": 40, "test/a_1.png": 50}
"""Names in an order that is not theirs, and the pixels of each."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pngs"
    for name, value in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(value)).save(root / name)
    return root


@pytest.fixture
def load(root: Path, tmp_path: Path) -> Callable[[], Loaded]:
    return lambda: load_png_folder(root, tmp_path / "cache")


class Opened:
    """Counts the images that are decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[Path] = []
        self._decode = png._pixels
        monkeypatch.setattr(png, "_pixels", self)

    def __call__(self, path: Path, channels: int) -> Any:
        self.paths.append(path)
        return self._decode(path, channels)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(monkeypatch)


def equal(one: Loaded, two: Loaded) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, two, strict=True))


# What is read


def test_images_come_in_the_order_of_their_names_with_their_labels(load: Callable[[], Loaded]) -> None:
    """Pixels are unchanged, in the order of the names; the label is behind the last underscore."""
    train_x, train_y, test_x, test_y = load()
    assert np.array_equal(train_x, [pixels(30), pixels(20), pixels(10)])
    assert np.array_equal(test_x, [pixels(50), pixels(40)])
    assert (train_y.tolist(), test_y.tolist()) == ([0, 3, 7], [1, 9])
    assert {array.dtype for array in (train_x, test_x)} == {np.dtype(np.uint8)}


def test_every_kind_of_png_becomes_gray_bytes(root: Path, load: Callable[[], Loaded]) -> None:
    """Color, palette, transparency and 16 bits a pixel are read as the same gray values."""
    gray = Image.fromarray(pixels(10))
    deep = Image.fromarray(pixels(10).astype(np.uint16) * 257)
    for i, image in enumerate([gray, gray.convert("RGB"), gray.convert("RGBA"), gray.convert("P"), deep]):
        image.save(root / "train" / f"kind{i}_5.png")
    train_x, train_y, _, _ = load()
    assert np.array_equal(train_x[train_y == 5], [pixels(10)] * 5)


def test_three_channels_are_rgb(root: Path, tmp_path: Path) -> None:
    """With three channels every kind of PNG is read as RGB, channels first; gray has three equal channels."""
    rgb = np.stack([pixels(10), pixels(90), pixels(170)], axis=2)
    deep = Image.fromarray(pixels(10).astype(np.uint16) * 257)
    for i, image in enumerate([Image.fromarray(rgb), Image.fromarray(rgb).convert("RGBA"), deep]):
        image.save(root / "train" / f"kind{i}_5.png")
    train_x, train_y, test_x, _ = load_png_folder(root, tmp_path / "cache", 3)
    assert np.array_equal(train_x[train_y == 5], [rgb.transpose(2, 0, 1)] * 2 + [[pixels(10)] * 3])
    assert np.array_equal(test_x, [[pixels(50)] * 3, [pixels(40)] * 3])


def test_each_number_of_channels_has_a_cache_of_its_own(root: Path, tmp_path: Path) -> None:
    """What was decoded as RGB is not taken for gray, nor the other way round."""
    shapes = [load_png_folder(root, tmp_path / "cache", channels)[0].shape for channels in (1, 3, 1, 3)]
    assert shapes == [(3, 4, 3), (3, 3, 4, 3)] * 2


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels_are_an_error(root: Path, tmp_path: Path, channels: int) -> None:
    """PNG files are gray or RGB; the error names the key."""
    with pytest.raises(DataError, match=f"num_channels: expected 1 .* or 3 .* for PNG files, got {channels}"):
        load_png_folder(root, tmp_path / "cache", channels)


def test_other_files_are_passed_over(root: Path, load: Callable[[], Loaded]) -> None:
    """What is no PNG by its name is nobody's business."""
    whole = load()
    (root / "train" / "Thumbs.db").write_bytes(b"x")
    (root / "train" / "readme_3.txt").write_text("x")
    assert equal(load(), whole)


def test_a_png_folder_is_known_by_its_files(root: Path, tmp_path: Path) -> None:
    """A folder is one if either split has a PNG file, and not because it has folders of these names."""
    assert is_png_folder(root)
    assert not is_png_folder(root / "train")
    for split in ("train", "test"):
        (tmp_path / "other" / split).mkdir(parents=True)
    assert not is_png_folder(tmp_path / "other")
    (root / "test" / "x_9.png").rename(tmp_path / "other" / "test" / "x_9.png")
    assert is_png_folder(tmp_path / "other")


# The cache


def test_a_second_load_decodes_nothing(load: Callable[[], Loaded], opened: Opened) -> None:
    """Every image is opened by the first load alone; the second one gives the same arrays."""
    first = load()
    assert {path.name for path in opened.paths} == {Path(name).name for name in FILES}
    opened.paths.clear()
    assert equal(load(), first)
    assert not opened.paths


def test_a_cached_folder_needs_no_pillow(load: Callable[[], Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decoded once is read where Pillow is not installed; what was not needs it, and the error says so."""
    first = load()
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert equal(load(), first)


def test_without_pillow_the_error_names_the_extra(load: Callable[[], Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding without Pillow is an error that says what to install."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"reading PNG files .*mnist"):
        load()


def _touch(root: Path) -> None:
    os.utime(root / "train" / "b_7.png", ns=(1, 1))


def _repaint(root: Path) -> None:
    Image.fromarray(pixels(99)).save(root / "train" / "b_7.png")


def _relabel(root: Path) -> None:
    (root / "train" / "b_7.png").rename(root / "train" / "b_8.png")


def _add(root: Path) -> None:
    Image.fromarray(pixels(60)).save(root / "test" / "new_2.png")


def _remove(root: Path) -> None:
    (root / "test" / "x_9.png").unlink()


@pytest.mark.parametrize("change", [_touch, _repaint, _relabel, _add, _remove])
def test_a_changed_folder_is_decoded_anew(
    root: Path, tmp_path: Path, load: Callable[[], Loaded], opened: Opened, change: Callable[[Path], None]
) -> None:
    """A file that is changed, touched, renamed, new or gone makes the cache another one."""
    load()
    opened.paths.clear()
    change(root)
    found = load()
    assert opened.paths
    assert equal(found, load_png_folder(root, tmp_path / "nothing kept"))


def _flipped(whole: bytes, at: int) -> bytes:
    return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


CACHES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "nonsense": lambda whole: b"nonsense",
    "cut": lambda whole: whole[:-5],
    "longer": lambda whole: whole + b"x",
    "a bit of a pixel": lambda whole: _flipped(whole, len(whole) - 1),
    "a bit of the structure": lambda whole: _flipped(whole, 60),
    "a bit of the digest": lambda whole: _flipped(whole, 3),
    "other arrays": lambda whole: encode([np.zeros((1, 4, 3), dtype=np.uint8)] * 4),
    "no arrays": lambda whole: encode({"images": 3}),
}


@pytest.mark.parametrize("damage", CACHES)
def test_a_damaged_cache_is_noticed(
    tmp_path: Path, load: Callable[[], Loaded], opened: Opened, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """A cache with other bytes than were kept is never trusted: a line says so, and it is decoded anew and mended."""
    first = load()
    (kept,) = (tmp_path / "cache").iterdir()
    whole = kept.read_bytes()
    load()
    assert not caplog.text
    kept.write_bytes(CACHES[damage](whole))
    opened.paths.clear()
    assert equal(load(), first)
    assert len(opened.paths) > len(FILES)  # the first of each split is looked at for its size, too
    assert f"{kept.name}: expected the bytes that were kept, found others; the PNG files are decoded" in caplog.text
    assert kept.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(root: Path, tmp_path: Path) -> None:
    """Where the cache cannot be, the images are decoded all the same."""
    (tmp_path / "file").write_text("in the way")
    blocked = load_png_folder(root, tmp_path / "file" / "cache")
    assert equal(blocked, load_png_folder(root, tmp_path / "cache"))


# What is refused


@pytest.mark.parametrize("name", ["7.png", "digit.png", "a_x.png", "a_.png", "a_7 .png", "a_-1.png"])
def test_one_file_without_a_label_is_an_error(root: Path, load: Callable[[], Loaded], name: str) -> None:
    """A single PNG file without a label stops the load with its name: none is left out, none is guessed."""
    Image.fromarray(pixels(1)).save(root / "train" / name)
    with pytest.raises(DataError, match="expected the label behind the last underscore") as raised:
        load()
    assert str(raised.value).startswith(f"{root / 'train' / name}: ")


def test_labels_may_be_as_many_as_num_classes(root: Path, load: Callable[[], Loaded]) -> None:
    """A label above 255 is not cut down to a byte; one that is no class is refused."""
    Image.fromarray(pixels(1)).save(root / "test" / "a_256.png")
    assert load()[3].tolist() == [1, 256, 9]
    assert load_mnist(root, num_val=1, num_classes=257).test_y.tolist() == [1, 256, 9]
    with pytest.raises(DataError, match="test: expected labels below num_classes = 256, found 256"):
        load_mnist(root, num_val=1, num_classes=256)


def test_images_of_different_sizes_are_an_error(root: Path, load: Callable[[], Loaded]) -> None:
    """One image of another size stops the load with its name and both sizes."""
    Image.fromarray(pixels(1, height=5)).save(root / "train" / "c_1.png")
    with pytest.raises(DataError, match=r"c_1\.png: expected \(4, 3\) pixels .*, found \(5, 3\)"):
        load()


def test_splits_of_different_sizes_are_an_error(root: Path, load: Callable[[], Loaded]) -> None:
    """Test images of another size than the training images are refused, from the files and from the cache."""
    for path in (root / "test").iterdir():
        Image.fromarray(pixels(1, width=5)).save(path)
    for _ in range(2):
        with pytest.raises(DataError, match=r"images of one size, found \(4, 3\) and \(4, 5\)"):
            load()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def _jpeg(path: Path) -> None:
    Image.fromarray(pixels(1)).save(path, format="JPEG")


def _huge(path: Path) -> None:
    """A header that announces more pixels than there is memory for."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def _large(path: Path) -> None:
    Image.new("L", (1025, 1024)).save(path)


DAMAGE: list[Callable[[Path], Any]] = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("a picture of a seven"),
    _cut,
    _jpeg,
    _huge,
    _large,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=["empty", "text", "cut", "jpeg", "huge", "large"])
def test_a_file_that_is_no_small_png_is_an_error(
    root: Path, load: Callable[[], Loaded], damage: Callable[[Path], Any]
) -> None:
    """A file that only has the name of a PNG image, or is far too large, is named in one error."""
    path = root / "train" / "b_7.png"
    damage(path)
    with pytest.raises(DataError) as raised:
        load()
    assert str(raised.value).startswith(f"{path}: expected ")


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_an_error(root: Path, load: Callable[[], Loaded], split: str) -> None:
    """Both splits are needed; the one that has no image is named."""
    for path in (root / split).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=f"{split}: expected PNG files named like 00012_7.png, found none"):
        load()


# In the application


@pytest.fixture
def digits_as_png(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small set as the original had it, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = load_mnist(digits, num_val=0, download=False)
    root = tmp_path / "as png"
    for split, images, labels in (("train", found.train_x, found.train_y), ("test", found.test_x, found.test_y)):
        (root / split).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(images.numpy(), labels.tolist(), strict=True)):
            Image.fromarray(image).save(root / split / f"{i:05}_{label}.png")
    return root


def test_the_same_images_train_the_same_network_from_either_layout(
    configured: Callable[..., Config], digits_as_png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PNG folder gives the splits and the trained bits that IDX files give; training opens no image a second time."""
    place = Placement(executor="inline", threads=1, device="cpu")
    keys = {"PBT_lr": None, "PBT_keep_prob": None, "num_epochs": 1, "num_iters_for_ckpt": 10}
    from_idx = prepare(configured(**keys), place)
    from_png = prepare(configured(**keys, data_dir=str(digits_as_png)), place)
    for name in ("train_x", "train_y", "val_x", "val_y", "test_x", "test_y"):
        assert getattr(from_idx.data, name).equal(getattr(from_png.data, name)), name
    assert "PNG" in from_png.data.note

    def refuse(*_: Any) -> None:
        raise AssertionError("an image was opened again")

    monkeypatch.setattr(png, "_pixels", refuse)
    one, two = (run.train(tmp_path / name, resume=False) for name, run in (("a", from_idx), ("b", from_png)))
    assert [r.digest for r in one.tree.reports.values()] == [r.digest for r in two.tree.reports.values()]


def test_mnist_in_png_files_is_known(digits: Path, digits_as_png: Path) -> None:
    """PNG files in the order of MNIST's own files are recognized as MNIST's, part by part."""
    specs = tuple(
        replace(spec, sha256=hashlib.sha256(blob).hexdigest(), num_bytes=len(blob))
        for spec in SPECS
        for blob in [(digits / spec.name).read_bytes()]
    )
    assert load_mnist(digits_as_png, num_val=1, specs=specs).note == ""
    (digits_as_png / "train" / "00003_3.png").rename(digits_as_png / "train" / "00003_4.png")
    found = load_mnist(digits_as_png, num_val=1, specs=specs)
    assert found.note == "training labels: not MNIST's; test set: MNIST's"
    assert "600 + 100 images of another data set in PNG files: not MNIST" in load_mnist(digits_as_png).note


def test_a_network_of_three_channels_is_trained_on_rgb(
    configured: Callable[..., Config], digits_as_png: Path, tmp_path: Path
) -> None:
    """`num_channels` 3 trains on RGB files, both networks, with crops and mirror images."""
    for path in digits_as_png.glob("*/*.png"):
        with Image.open(path) as image:
            gray = image.copy()
        Image.merge("RGB", [gray, gray.rotate(90), gray.rotate(180)]).save(path)
    keys = {"PBT_lr": None, "PBT_keep_prob": None, "num_epochs": 1, "num_iters_for_ckpt": 10, "num_channels": 3}
    place = Placement(executor="inline", threads=1, device="cpu")
    for model in ("fc", "conv"):
        config = configured(**keys, data_dir=str(digits_as_png), model=model, crop=1, crop_shift=2, hflip=1)
        run = prepare(config, place).train(tmp_path / model, resume=False)
        assert run.best.reported["train_loss"] > 0
        assert find_data(config.train).train_x.shape == (500, 3, 28, 28)


def test_a_label_beyond_num_classes_is_an_error_of_the_split(
    configured: Callable[..., Config], digits_as_png: Path
) -> None:
    """Labels that the network has no output for are refused before the start."""
    (digits_as_png / "train" / "00003_3.png").rename(digits_as_png / "train" / "00003_12.png")
    with pytest.raises(DataError, match="train: expected labels below num_classes = 10, found 12"):
        load_mnist(configured(data_dir=str(digits_as_png)).train.data_dir, num_val=100)
