"""Classify digits in image files, after converting them to the form of MNIST's images."""

from collections.abc import Mapping
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
_MOST_PIXELS = 50_000_000

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
        path: An image in any format that Pillow reads; a single digit, dark on light or light on dark.
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.

    Raises:
        DataError: It is no image, or blank.
        MissingExtraError: Pillow is not installed.
    """
    pixels = _gray(path)
    # The background is the median of the border.
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ink = np.abs(pixels.astype(np.int16) - int(np.median(border))).astype(np.uint8)
    strong = ink > ink.max() // 4
    if ink.max() < 32 or not strong.any():
        raise DataError(f"{path}: expected a digit on a plain ground, found a blank image")
    rows, columns = np.flatnonzero(strong.any(axis=1)), np.flatnonzero(strong.any(axis=0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = max(1, min(height, width) * BOX // FRAME)
    return _centered(_scaled(digit.astype(np.float64) * (255 / ink.max()), box), height, width)


def _gray(path: Path) -> Bytes:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("reading images", "mnist") from error
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise DataError(f"{path}: expected at most {_MOST_PIXELS:,} pixels, found more")
            # Cameras record their orientation instead of rotating the pixels.
            upright = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):
                # 16 bits a pixel: Pillow's own conversion cuts off everything above 255.
                return (np.asarray(upright) >> 8).astype(np.uint8)
            colored = upright.convert("RGBA")
            return _on_ground(np.asarray(colored.convert("L")), np.asarray(colored.getchannel("A")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: expected an image file, found one that cannot be read ({error})") from error


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
