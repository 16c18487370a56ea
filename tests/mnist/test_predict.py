"""Digits in ordinary image files: one form whatever the picture, and the network's own answer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from pbt.errors import ConfigError, DataError, MissingExtraError
from pbt.mnist.config.record import Config
from pbt.mnist.data.find import load_mnist
from pbt.mnist.files import write_arguments
from pbt.mnist.model_file import load_model
from pbt.mnist.models import Shape, network
from pbt.mnist.predict import predict, read_image
from pbt.mnist.task import PREPARE, normalize
from pbt.mnist.training import prepare
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from tests.helpers.paths import SOURCE

Draw = Callable[[Image.Image], Image.Image]


def seven(ink: int = 0, ground: int = 255, *, side: int = 120, at: tuple[int, int] = (35, 20), size: int = 1) -> Any:
    """A seven of straight strokes, 50 x 80 pixels times its size, dark on light if nothing else is said."""
    image = Image.new("L", (side, side), ground)
    x, y = at
    draw = ImageDraw.Draw(image)
    draw.rectangle([x, y, x + 50 * size - 1, y + 12 * size - 1], fill=ink)
    draw.polygon(
        [
            (x + 38 * size, y + 12 * size),
            (x + 50 * size - 1, y + 12 * size),
            (x + 22 * size, y + 80 * size - 1),
            (x + 10 * size, y + 80 * size - 1),
        ],
        fill=ink,
    )
    return image


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Any]:
    """The form of a picture that was saved in some format."""

    def read(image: Image.Image, name: str = "digit.png", **how: Any) -> Any:
        image.save(tmp_path / name, **how)
        return read_image(tmp_path / name).astype(np.int16)

    return read


def center(form: Any) -> tuple[float, float]:
    """The center of mass, pixels."""
    rows, columns = np.indices(form.shape)
    return (rows * form).sum() / form.sum(), (columns * form).sum() / form.sum()


def test_the_form_is_that_of_mnist(read: Callable[..., Any]) -> None:
    """28 x 28 bytes, light ink on a black border, the longer side 20 pixels, the center of mass in the middle."""
    form = read(seven())
    assert form.shape == (28, 28)
    assert form.max() > 250
    assert not form[[0, -1]].any()
    assert not form[:, [0, -1]].any()
    rows = np.flatnonzero(form.any(axis=1))
    assert rows[-1] - rows[0] + 1 == 20
    assert center(form) == pytest.approx((13.5, 13.5), abs=0.5)
    # It is a seven: a bar above, and a stroke that runs down to the left.
    assert form[rows[0] + 1].astype(bool).sum() > 10
    assert np.flatnonzero(form[rows[-1]]).max() < np.flatnonzero(form[rows[0]]).max() - 3


def transparent(ink: int) -> Image.Image:
    """Ink on nothing: what is transparent is black below."""
    shape = seven(255, 0)
    image = Image.new("RGBA", shape.size, (0, 0, 0, 0))
    image.paste((ink, ink, ink, 255), mask=shape)
    return image


def rounded_card() -> Image.Image:
    """A white card with transparent corners, black below."""
    image = Image.merge("RGBA", [seven()] * 3 + [Image.new("L", (120, 120), 255)])
    image.paste((0, 0, 0, 0), (0, 0, 8, 8))
    return image


SAME: dict[str, Image.Image] = {
    "light on dark": seven(255, 0),
    "gray on gray": seven(60, 190),
    "faint": seven(200, 240),
    "in another corner": seven(at=(2, 3)),
    "at the edge": seven(at=(70, 40)),
    "in a large picture": seven(side=900, at=(700, 30)),
    "color": seven().convert("RGB"),
    "palette": seven().convert("P"),
    "one bit": seven().convert("1"),
    "opaque": seven().convert("RGBA"),
    "dark ink on nothing": transparent(0),
    "light ink on nothing": transparent(255),
    "a card with round corners": rounded_card(),
    "16 bits": Image.fromarray(np.asarray(seven()).astype(np.uint16) * 257),
}


def depths() -> dict[str, tuple[Image.Image, str]]:
    """The same digit in other depths, each in a format that has them."""
    gray = np.asarray(seven())
    return {
        "12 of 16 bits": (Image.fromarray(gray.astype(np.uint16) * 16), "digit.png"),
        "32 bits": (Image.fromarray(gray.astype(np.int32) * 1000 - 100_000), "digit.tiff"),
        "floats": (Image.fromarray(gray.astype(np.float32) / 255), "digit.tiff"),
    }


@pytest.mark.parametrize("name", depths())
def test_every_depth_is_scaled_by_its_own_range(read: Callable[..., Any], name: str) -> None:
    """12 bits in 16, 32 bits and floating point give the form of 8 bits, also where the image is reduced."""
    image, file = depths()[name]
    assert np.abs(read(image, file) - read(seven())).mean() < 4


def test_a_large_image_of_16_bits_is_reduced(read: Callable[..., Any]) -> None:
    """It has the form of the same image of 8 bits."""
    large = seven(side=3000, size=25)
    deep = Image.fromarray(np.asarray(large).astype(np.uint16) * 257)
    assert np.abs(read(deep) - read(large)).mean() < 4


def test_a_float_image_with_gaps(read: Callable[..., Any]) -> None:
    """Values that are no numbers are background, not ink."""
    values = np.asarray(seven()).astype(np.float32) / 255
    light = values.copy()
    light[:3, :3], light[-1, -1] = np.nan, -np.inf
    assert np.abs(read(Image.fromarray(1 - light), "digit.tiff") - read(seven(255, 0))).mean() < 4


@pytest.mark.parametrize("name", ["digit.gif", "digit.tiff", "digit.webp"])
def test_a_blank_first_frame_is_skipped(read: Callable[..., Any], name: str) -> None:
    """Of an animation that fades in, the first frame with ink counts; of one without ink nothing does."""
    blank = Image.new("L", seven().size, int(np.asarray(seven())[0, 0]))
    settings = {"lossless": True} if name.endswith("webp") else {}
    shown = read(blank, name, save_all=True, append_images=[blank, seven()], **settings)
    assert np.abs(shown - read(seven())).mean() < 4
    with pytest.raises(DataError, match="blank image"):
        read(blank, name, save_all=True, append_images=[blank], **settings)


@pytest.mark.long
@pytest.mark.parametrize(
    "mode", ["RGB", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("L", "RGBA", "P", "1"))]
)
def test_a_large_image_takes_a_few_bytes_per_pixel(tmp_path: Path, mode: str) -> None:
    """49 million pixels in a small file take less than 10 bytes each, whatever is in them."""
    seven(side=7000, at=(3000, 3000), size=20).convert(mode).save(tmp_path / "large.png")
    code = (
        "import resource, sys; from pathlib import Path; from pbt.mnist.predict import read_image\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "read_image(Path(sys.argv[1])); before = used(); read_image(Path(sys.argv[2])); print(used() - before)"
    )
    seven().save(tmp_path / "small.png")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "small.png"), str(tmp_path / "large.png")],
        env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert int(done.stdout) < 10 * 49


def test_nothing_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PostScript file under the name of a PNG would start an interpreter; it is refused by its format."""
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "check_call", lambda *words, **_: started.append(words))
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **_: started.append(words))
    seven().convert("RGB").save(tmp_path / "digit.eps")
    (tmp_path / "digit.eps").rename(tmp_path / "digit.png")
    with pytest.raises(DataError, match=r"digit\.png: expected an image file \(BMP, GIF, JPEG, PNG, TIFF, WEBP\)"):
        read_image(tmp_path / "digit.png")
    assert started == []


@pytest.mark.parametrize("name", SAME)
def test_the_same_digit_has_the_same_form(read: Callable[..., Any], name: str) -> None:
    """Colors, ground, place and kind of picture do not change the form."""
    assert np.abs(read(SAME[name]) - read(seven())).max() <= 4


def test_a_larger_digit_has_the_same_form(read: Callable[..., Any]) -> None:
    """A digit drawn ten times as large gives nearly the same form, but for the edges of its strokes."""
    large = read(seven(side=1000, at=(100, 100), size=10))
    assert np.abs(large - read(seven())).mean() < 4


def test_a_jpeg_has_the_same_form(read: Callable[..., Any]) -> None:
    """What a JPEG file loses does not matter."""
    assert np.abs(read(seven(), "digit.jpg", quality=70) - read(seven())).mean() < 4


def test_a_photo_that_was_taken_sideways_is_turned(read: Callable[..., Any]) -> None:
    """The note in a camera's file that says which way is up is followed."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    sideways = seven().transpose(Image.Transpose.ROTATE_90)
    assert np.abs(read(sideways, "photo.jpg", quality=95, exif=exif) - read(seven())).mean() < 4


def test_another_digit_has_another_form(read: Callable[..., Any]) -> None:
    """A mirror image is not taken for the same."""
    assert np.abs(read(ImageOps.mirror(seven())) - read(seven())).mean() > 20


@pytest.mark.parametrize(("height", "width"), [(14, 14), (32, 20), (1, 1)])
def test_other_sizes_are_filled_in_proportion(tmp_path: Path, height: int, width: int) -> None:
    """A network for images of another size gets the digit in that size."""
    seven().save(tmp_path / "digit.png")
    form = read_image(tmp_path / "digit.png", height, width)
    assert form.shape == (height, width)
    assert form.any()
    if height > 1:
        rows = np.flatnonzero(form.any(axis=1))
        assert rows[-1] - rows[0] + 1 == min(height, width) * 20 // 28


# What is refused


@pytest.mark.parametrize(
    "image",
    [Image.new("L", (50, 50), 255), Image.new("L", (50, 50), 0), Image.new("RGBA", (9, 9)), seven(240, 250)],
    ids=["white", "black", "transparent", "invisible"],
)
def test_a_blank_image_is_refused(tmp_path: Path, image: Image.Image) -> None:
    """An image without ink is an error that names it, not some digit."""
    image.save(tmp_path / "blank.png")
    with pytest.raises(DataError, match=r"blank\.png: expected a digit on a plain ground, found a blank image"):
        read_image(tmp_path / "blank.png")


@pytest.mark.parametrize("content", [b"", b"7", b"\x89PNG\r\n\x1a\n", None], ids=["empty", "text", "cut", "absent"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A file that is no image, or is not there, is named in one error."""
    path = tmp_path / "digit.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"digit\.png: expected an image file"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_000, 20_000])
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    """A small file that announces hundreds of millions of pixels costs no memory."""
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match=r"huge\.png: expected"):
        read_image(tmp_path / "huge.png")


def test_without_pillow_images_need_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Pillow is not installed the error says what to install."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"reading images .*mnist"):
        read_image(tmp_path / "digit.png")


# What the network says


@pytest.fixture(scope="module")
def network_of(
    configured: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Run, Config]]:
    """A small network that was trained on the small set."""

    def train(model: str) -> tuple[Run, Config]:
        config = configured(PBT_lr=None, PBT_keep_prob=None, model=model, num_epochs=2, num_iters_for_ckpt=10)
        prepared = prepare(config, Placement(executor="inline", threads=1, device="cpu"))
        return prepared.train(tmp_path_factory.mktemp(model) / "run", resume=False), config

    return train


@pytest.mark.parametrize("model", ["fc", "conv"])
def test_a_prediction_is_the_networks_own_output(network_of: Callable[[str], tuple[Run, Config]], model: str) -> None:
    """Digit and confidence are the largest of the network's probabilities in evaluation, image by image."""
    run, config = network_of(model)
    state = run.load_state()
    images = load_mnist(config.train.data_dir, num_val=100, download=False).test_x[:30]
    direct = network(Shape.of(config.train))
    direct.load_state_dict(state["model"])
    direct.eval()
    with torch.no_grad():
        chances = direct(normalize(images[:, None])).softmax(dim=1)
    seen = [predict(state, config, image.numpy()) for image in images]
    assert [one.digit for one in seen] == chances.argmax(dim=1).tolist()
    assert [one.confidence for one in seen] == pytest.approx(chances.max(dim=1).values.tolist(), abs=1e-5)
    assert len({one.digit for one in seen}) > 3


OTHERS: dict[str, dict[str, Any]] = {
    "units": {"n_hiddens": "17"},
    "layers": {"n_hiddens": "16,16"},
    "classes": {"num_classes": 11},
    "batch norm": {"batch_norm": 0},
    "kind": {"model": "conv"},
}


@pytest.mark.parametrize("other", OTHERS)
def test_the_state_of_another_network_is_one_clear_error(
    network_of: Callable[[str], tuple[Run, Config]], configured: Callable[..., Config], other: str
) -> None:
    """A state that does not fit the configuration says what was expected, what was found and what to do, in a line."""
    run, _ = network_of("fc")
    with pytest.raises(ConfigError, match=r"^model: expected a .* as configured, found another: ") as raised:
        predict(run.load_state(), configured(**OTHERS[other]), np.zeros((28, 28), dtype=np.uint8))
    assert "use the configuration that it was trained with" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("state", [{}, *({"model": model} for model in (None, [1], {3: 4}, {"1.weight": 2.0}))])
def test_a_state_that_is_no_network_is_the_same_error(
    network_of: Callable[[str], tuple[Run, Config]], state: dict[str, Any]
) -> None:
    """What has no weights at all, or no tensors for them, is refused like another network."""
    _, config = network_of("fc")
    with pytest.raises(ConfigError, match="as configured, found another"):
        predict(state, config, np.zeros((28, 28), dtype=np.uint8))


@pytest.mark.parametrize("shape", [(28, 27), (14, 14), (784,)])
def test_an_image_of_another_shape_is_refused(
    network_of: Callable[[str], tuple[Run, Config]], shape: tuple[int, ...]
) -> None:
    """An image that the network cannot read is an error that says which shape it reads."""
    run, config = network_of("fc")
    with pytest.raises(DataError, match=r"image: expected \(1, 28, 28\)"):
        predict(run.load_state(), config, np.zeros(shape, dtype=np.uint8))


def greedy(train: dict[str, Any]) -> bytes:
    """A model file without a tensor, for a network of any size."""
    structure = {"dict": {"model": {"dict": {}}, "config": {"dict": {"train": {"dict": train}}}, "card": {"dict": {}}}}
    header = {"__metadata__": {"pbt.format": "1", "pbt.structure": json.dumps(structure)}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "train",
    [
        {"model": "fc", "n_hiddens": ",".join(["65536"] * 64)},
        {"model": "conv", "n_filters": "65536,65536", "height": 1024, "width": 1024},
    ],
    ids=["wide", "large images"],
)
def test_a_model_file_that_asks_for_much_takes_nothing(
    train: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tensors in the file are compared with the configuration before a network of that size is built."""
    (tmp_path / "model.safetensors").write_bytes(greedy(train))
    state, config = load_model(tmp_path / "model.safetensors")
    layers = []
    monkeypatch.setattr("torch.nn.Linear.reset_parameters", lambda self: layers.append(self.weight.device.type))
    with pytest.raises(ConfigError, match="as configured, found another"):
        predict(state, config, np.zeros((config.train.height, config.train.width), dtype=np.uint8))
    assert set(layers) <= {"meta"}
    assert len(layers) <= 65


@pytest.mark.long
def test_a_doubtful_guess_says_so(
    network_of: Callable[[str], tuple[Run, Config]], program: Any, tmp_path: Path
) -> None:
    """Below a probability of 0.8 the line says so; the JSON has the probability itself."""
    run, _ = network_of("fc")
    random = np.random.default_rng(1)
    for i in range(20):
        Image.fromarray(random.integers(0, 256, (28, 28)).astype(np.uint8)).save(tmp_path / f"{i:02}.png")
    words = ["mnist", "predict", *(f"{i:02}.png" for i in range(20)), "--model", str(run.path)]
    lines = program(*words, script="pbt").stdout.splitlines()
    values = [one["confidence"] for one in json.loads(program(*words, "--json", script="pbt").stdout)]
    assert ["not sure" in line for line in lines] == [value < 0.8 for value in values]
    assert sum("not sure" in line for line in lines) > 0


@pytest.mark.long
def test_the_command_says_it_in_one_line(
    network_of: Callable[[str], tuple[Run, Config]], configured: Callable[..., Config], program: Any, tmp_path: Path
) -> None:
    """`pbt mnist predict` of a checkpoint that lies beside the arguments of another network exits with 2."""
    run, _ = network_of("fc")
    assert run.path is not None
    (tmp_path / "run" / "ckpts").mkdir(parents=True)
    ckpt = tmp_path / "run" / "ckpts" / "latest.safetensors"
    ckpt.write_bytes((run.path / "ckpts" / "latest.safetensors").read_bytes())
    write_arguments(tmp_path / "run", configured(n_hiddens="17", PBT_lr=None, PBT_keep_prob=None))
    seven().save(tmp_path / "digit.png")
    done = program("mnist", "predict", "digit.png", "--model", str(ckpt), script="pbt", code=2)
    (line,) = done.stderr.splitlines()
    assert "model: expected a fc network of 17 as configured, found another: size mismatch" in line


def test_a_network_of_colored_images_reads_a_gray_one(configured: Callable[..., Config]) -> None:
    """With `num_channels` 3 every channel is the gray image, and the inputs are scaled as the network's were."""
    for pixels, scaled in PREPARE.items():
        config = configured(num_channels=3, pixels=pixels)
        model = network(Shape.of(config.train)).eval()
        image = np.random.default_rng(3).integers(0, 256, (28, 28)).astype(np.uint8)
        with torch.no_grad():
            expected = model(scaled(torch.from_numpy(image)[None, None].repeat(1, 3, 1, 1))).softmax(1)[0]
        seen = predict({"model": model.state_dict()}, config, image)
        assert (seen.digit, seen.confidence) == (int(expected.argmax()), pytest.approx(float(expected.max())))
