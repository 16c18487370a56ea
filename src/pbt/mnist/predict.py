"""Classify digits in image files, after converting them to the form of MNIST's images."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pbt.errors import DataError, MissingExtraError
from pbt.mnist.config.record import Config
from pbt.mnist.models import restored
from pbt.mnist.task import PREPARE

BOX, FRAME = 20, 28
"""MNIST's digits fill a box of 20 x 20 pixels, centered by mass in 28 x 28; in other sizes in proportion."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The formats that are read; Pillow starts another program for some others."""
_MOST_PIXELS = 50_000_000
_SIDE = 2_000
"""Pixels on the longer side; a larger image is reduced first, so that memory is bounded by its own pixels."""
_FRAMES = 16
"""The most frames that are searched for one that is not blank."""
_FAINT = 32
"""The contrast, out of 255, below which an image is blank."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The classification of an image."""

    digit: int
    confidence: float
    """Probability of that digit, 0 to 1."""


def predict(state: Mapping[str, Any], config: Config, image: Bytes) -> Prediction:
    """Classify one image (height, width) in the form of MNIST's.

    Raises:
        ConfigError: The state is of another network than the configured one.
        DataError: The image does not have the height and width of the network's images.
    """
    train = config.train
    model = restored(train, state.get("model"), "model")
    if (1, *image.shape) != (wanted := (1, train.height, train.width)):
        raise DataError(f"image: expected {wanted} (channels, height, width) as configured, found {(1, *image.shape)}")
    # A network for color images gets the gray image in every channel.
    pixels = torch.from_numpy(image).expand(1, train.num_channels, *image.shape)
    with torch.no_grad():
        outputs = model(PREPARE[train.pixels](pixels))
    chances = outputs.softmax(dim=1)[0]
    return Prediction(digit=int(chances.argmax()), confidence=float(chances.max()))


def read_image(path: Path, height: int = FRAME, width: int = FRAME) -> Bytes:
    """Read an image file in the form of MNIST: light on dark, cropped, scaled, centered by mass.

    Args:
        path: A BMP, GIF, JPEG, PNG, TIFF or WebP file of at most 50 million pixels, in any depth; a single digit, dark
            on light or light on dark. Of several frames the first that is not blank counts.
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.

    Raises:
        DataError: It is no image, or blank.
        MissingExtraError: Pillow is not installed.
    """
    for pixels in _frames(path):
        # The background is the median of the border.
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        ink = np.abs(pixels.astype(np.int16) - int(np.median(border))).astype(np.uint8)
        if ink.max() >= _FAINT:
            break
    else:
        raise DataError(f"{path}: expected a digit on a plain ground, found a blank image")
    strong = ink > ink.max() // 4
    rows, columns = np.flatnonzero(strong.any(axis=1)), np.flatnonzero(strong.any(axis=0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = max(1, min(height, width) * BOX // FRAME)
    return _centered(_scaled(digit.astype(np.float64) * (255 / ink.max()), box), height, width)


def _frames(path: Path) -> Iterator[Bytes]:
    """The frames of an image file in gray, 0 to 255."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("reading images", "mnist") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its limit is above ours
            opened = Image.open(path, formats=FORMATS)
        with opened as image:
            if image.width * image.height > _MOST_PIXELS:
                raise DataError(f"{path}: expected at most {_MOST_PIXELS:,} pixels, found more")
            for index in range(min(getattr(image, "n_frames", 1), _FRAMES)):
                image.seek(index)
                # Cameras record their orientation instead of rotating the pixels.
                yield _gray(ImageOps.exif_transpose(_reduced(image)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        known = ", ".join(FORMATS)
        raise DataError(f"{path}: expected an image file ({known}), found one that cannot be read ({error})") from error


def _reduced(image: Any) -> Any:
    """The image, at most `_SIDE` pixels on a side."""
    if max(image.size) <= _SIDE:
        return image
    # Palettes and single bits have no values between two of theirs; Pillow reduces no 16 bits.
    other = {"1": "L", "P": "RGBA"}.get(image.mode, "I" if image.mode.startswith("I;") else image.mode)
    smaller = image.copy() if other == image.mode else image.convert(other)
    smaller.thumbnail((_SIDE, _SIDE))
    return smaller


def _gray(image: Any) -> Bytes:
    if image.mode == "F" or image.mode.startswith("I"):
        # More than 8 bits, of which a camera may use 12: Pillow's own conversion cuts off everything above 255.
        values = np.asarray(image, dtype=np.float64)
        finite = values[np.isfinite(values)]
        if not finite.size:
            return np.zeros(values.shape, dtype=np.uint8)
        low, high, ground = finite.min(), finite.max(), float(np.median(finite))
        values = np.nan_to_num(values, nan=ground, posinf=ground, neginf=ground)
        scaled: Bytes = np.rint((values - low) * (255 / (high - low or 1.0))).astype(np.uint8)
        return scaled
    colored = image.convert("RGBA")
    return _on_ground(np.asarray(colored.convert("L")), np.asarray(colored.getchannel("A")))


def _on_ground(gray: Bytes, alpha: Bytes) -> Bytes:
    """Fill transparent parts: if little is opaque, that is ink; if much is, the background."""
    share = alpha / 255
    is_dark = (gray * share).sum() < 128 * share.sum()
    ground = 255 if is_dark == (share.mean() < 0.5) else 0
    return np.rint(gray * share + ground * (1 - share)).astype(np.uint8)


def _scaled(digit: npt.NDArray[np.float64], box: int) -> Bytes:
    from PIL import Image

    factor = box / max(digit.shape)
    size = (max(1, round(digit.shape[1] * factor)), max(1, round(digit.shape[0] * factor)))
    image = Image.fromarray(digit.clip(0, 255).astype(np.uint8))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS), dtype=np.uint8)


def _centered(digit: Bytes, height: int, width: int) -> Bytes:
    weights = digit.astype(np.float64)
    rows, columns = np.indices(digit.shape)
    top = round(height / 2 - (rows * weights).sum() / weights.sum() - 0.5)
    left = round(width / 2 - (columns * weights).sum() / weights.sum() - 0.5)
    top = min(max(top, 0), height - digit.shape[0])
    left = min(max(left, 0), width - digit.shape[1])
    result = np.zeros((height, width), dtype=np.uint8)
    result[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return result
