"""The loader's switches: what is shifted and mirrored, by which draws, and in which order batches come."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from pbt.errors import ConfigError
from pbt.executors.worker import Context
from pbt.mnist.augment import Augment, augmentation
from pbt.mnist.config.record import Config
from pbt.mnist.data.find import load_mnist
from pbt.mnist.task import supervised

Configure = Callable[..., Config]
Key = tuple[bytes, ...]


def generator(seed: int = 1) -> Generator:
    return Generator().manual_seed(seed)


def batch(count: int, height: int = 3, width: int = 4, channels: int = 1) -> Tensor:
    """Images in which no two pixels are alike, and none is background."""
    size = channels * height * width
    return (torch.arange(size, dtype=torch.uint8) + 1).reshape(1, channels, height, width).repeat(count, 1, 1, 1)


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """An image (channels, height, width) moved by so many pixels; background comes in."""
    _, height, width = image.shape
    frame = F.pad(image, [abs(right)] * 2 + [abs(down)] * 2)
    top, left = abs(down) - down, abs(right) - right
    return frame[:, top : top + height, left : left + width]


def found_in(image: Tensor, candidates: dict[Any, Tensor]) -> Any:
    """Which candidate this image is, exactly."""
    (which,) = [name for name, candidate in candidates.items() if torch.equal(image, candidate)]
    return which


# Exactly what is done to an image


@pytest.mark.parametrize("channels", [1, 2])
def test_a_crop_is_a_shift_and_nothing_else(channels: int) -> None:
    """Each image is moved by up to `shift` pixels in each direction, pixel by pixel; 0 comes in from outside."""
    images = batch(400, channels=channels)
    candidates = {(down, right): shifted(images[0], down, right) for down in range(-2, 3) for right in range(-2, 3)}
    moves = {found_in(image, candidates) for image in Augment(shift=2)(images, generator())}
    assert moves == candidates.keys()  # every one of the 25, to the corners, and no other


def test_a_shift_beyond_the_image_leaves_background() -> None:
    """A crop may miss a small image: then everything is background, and the size is what it was."""
    found = Augment(shift=50)(batch(50), generator())
    assert found.shape == (50, 1, 3, 4)
    assert any(not image.any() for image in found)


@pytest.mark.parametrize(("switch", "dim"), [("hflip", 2), ("vflip", 1)])
def test_a_flip_mirrors_half_of_the_images_one_way(switch: str, dim: int) -> None:
    """Each image is as it was or exactly mirrored in the named direction, about half of them."""
    images = batch(1000)
    candidates = {False: images[0], True: images[0].flip(dim)}
    mirrored = [found_in(image, candidates) for image in Augment(**{switch: True})(images, generator())]
    assert 420 < sum(mirrored) < 580  # five standard deviations of a fair coin


def test_both_flips_are_drawn_apart() -> None:
    """Mirror images in both directions come in all four combinations, none tied to the other."""
    images = batch(1000)
    whole = images[0]
    candidates = {"none": whole, "h": whole.flip(2), "v": whole.flip(1), "both": whole.flip(1, 2)}
    found = [found_in(image, candidates) for image in Augment(hflip=True, vflip=True)(images, generator())]
    assert all(170 < found.count(name) < 330 for name in candidates)


@pytest.mark.parametrize("kind", [{"shift": 2}, {"hflip": True}, {"shift": 1, "hflip": True, "vflip": True}])
def test_bytes_stay_bytes_and_the_stored_images_stay_as_they_are(kind: dict[str, Any]) -> None:
    """Bytes in, bytes out, of the same shape; what was passed is not written to."""
    images = batch(20)
    found = Augment(**kind)(images, generator())
    assert found.dtype is torch.uint8
    assert found.shape == images.shape
    assert torch.equal(images, batch(20))
    assert not torch.equal(found, images)


def test_an_empty_augmentation_is_none() -> None:
    """With nothing switched on the images are the same, and nothing is drawn."""
    images, drawn = batch(3), generator()
    assert torch.equal(Augment()(images, drawn), images)
    assert torch.equal(drawn.get_state(), generator().get_state())


def test_draws_are_the_generators() -> None:
    """The same generator state gives the same images, another one gives others."""
    change = Augment(shift=2, hflip=True, vflip=True)
    first, again, other = (change(batch(50), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# The switches of a configuration


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, None),
        ({"crop_shift": 3}, None),
        ({"crop": 1, "crop_shift": 3}, Augment(shift=3)),
        ({"hflip": 1}, Augment(hflip=True)),
        ({"vflip": 1}, Augment(vflip=True)),
        ({"crop": 1, "crop_shift": 1, "hflip": 1, "vflip": 1}, Augment(shift=1, hflip=True, vflip=True)),
    ],
)
def test_a_switch_does_what_it_says(configured: Configure, keys: dict[str, int], wanted: Augment | None) -> None:
    """`crop` with `crop_shift`, `hflip` and `vflip` each switch on their change, alone or together."""
    config = configured(**keys)
    assert augmentation(config.train) == wanted
    assert supervised(config).augment == wanted


def test_a_crop_without_a_shift_is_refused(configured: Configure) -> None:
    """`crop` that would change nothing is no configuration: the error names the key which is missing."""
    with pytest.raises(ConfigError, match="crop: expected crop_shift of at least 1 pixel"):
        configured(crop=1)


# What training sees of it


class Recorder:
    """Takes the place of normalization, and keeps the stored images of every batch."""

    def __init__(self, task: Any) -> None:
        self.batches: list[Tensor] = []
        self._prepare = task.prepare

    def __call__(self, images: Tensor) -> Tensor:
        self.batches.append(images.clone())
        normalized: Tensor = self._prepare(images)
        return normalized


def seen(config: Config, *, steps: tuple[int, ...] = (10,), seed: int = 3, member: int = 0) -> list[Tensor]:
    """The batches that a member is trained on, in rounds of so many steps; what is evaluated is left out."""
    task = supervised(config, test=False)
    recorder = Recorder(task)
    train = dataclasses.replace(task, prepare=recorder).trainer("cpu", 1)
    batches: list[Tensor] = []
    state, first = None, 0
    for round_, count in enumerate(steps, start=1):
        recorder.batches = []
        ctx = Context(seed=seed, member=member, round=round_, first_step=first, device="cpu", threads=1)
        state, _ = train({}, state, count, ctx)
        batches += recorder.batches[:count]
        first += count
    return batches


def images_in(batches: list[Tensor]) -> list[bytes]:
    """The images one after the other, as something that can be compared and sorted."""
    return [image.numpy().tobytes() for images in batches for image in images]


def test_without_shuffling_batches_come_as_the_images_are_stored(configured: Configure) -> None:
    """`shuffle: 0` trains on the stored order, in every epoch the same, without those that fill no batch."""
    config = configured(shuffle=0, batch_size=150)
    stored = load_mnist(config.train.data_dir, num_val=100, download=False).train_x
    batches = seen(config, steps=(6,))
    assert [len(images) for images in batches] == [150] * 6
    assert torch.equal(torch.cat(batches)[:, 0], torch.cat([stored[:450], stored[:450]]))


def test_shuffling_is_a_new_order_of_all_images_in_each_epoch(configured: Configure) -> None:
    """`shuffle: 1` shows every image once an epoch, in an order that is another one in the next epoch."""
    config = configured()
    stored = load_mnist(config.train.data_dir, num_val=100, download=False).train_x
    batches = seen(config, steps=(20,))
    first, second = images_in(batches[:10]), images_in(batches[10:])
    assert sorted(first) == sorted(second) == sorted(images_in([stored]))
    assert first != second
    assert first != images_in([stored])


def test_the_order_is_the_seeds(configured: Configure) -> None:
    """The same seed gives the same batches, to all members; another seed gives others."""
    config = configured()
    first, again, other = (images_in(seen(config, seed=seed)) for seed in (3, 3, 4))
    assert first == again == images_in(seen(config, member=1))
    assert first != other


def test_changed_images_are_keyed_by_seed_member_and_step(configured: Configure) -> None:
    """The draws are the same however training is cut into rounds, and others for another seed, member or step."""
    config = configured(shuffle=0, batch_size=500, crop=1, crop_shift=2, hflip=1)
    whole = images_in(seen(config, steps=(4,)))
    assert whole == images_in(seen(config, steps=(1, 2, 1)))
    assert whole != images_in(seen(config, steps=(4,), seed=4))
    assert whole != images_in(seen(config, steps=(4,), member=1))
    # The same stored images each step, and yet never the same batch.
    steps = [whole[start : start + 500] for start in range(0, 2000, 500)]
    assert all(one != two for i, one in enumerate(steps) for two in steps[:i])


def test_held_out_images_are_not_changed(configured: Configure) -> None:
    """What is evaluated comes as it is stored: only training images are cropped and mirrored."""
    config = configured(crop=1, crop_shift=3, hflip=1, vflip=1)
    task = supervised(config, test=False)
    recorder = Recorder(task)
    train = dataclasses.replace(task, prepare=recorder).trainer("cpu", 1)
    train({}, None, 2, Context(seed=3, member=0, round=1, first_step=0, device="cpu", threads=1))
    stored = load_mnist(config.train.data_dir, num_val=100, download=False).val_x
    assert torch.equal(torch.cat(recorder.batches[2:])[:, 0], stored)
