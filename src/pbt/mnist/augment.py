"""Augmentation of training batches: random crops and mirror images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from pbt.mnist.config.sections import TrainSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """Augments a batch of images (n, channels, height, width), each image with its own random draws.

    Args:
        shift: Largest shift of a crop in each direction, in pixels; the padding is background, 0.
        hflip: Mirror half of the images left to right.
        vflip: Mirror half of the images top to bottom.
    """

    shift: int = 0
    hflip: bool = False
    vflip: bool = False

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """The augmented images, of the same shape."""
        if self.shift:
            images = self._cropped(images, generator)
        for dim, wanted in ((3, self.hflip), (2, self.vflip)):
            if wanted:
                mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5
                images = torch.where(mirrored[:, None, None, None], images.flip(dim), images)
        return images

    def _cropped(self, images: Tensor, generator: Generator) -> Tensor:
        count, channels, height, width = images.shape
        padded = F.pad(images, [self.shift] * 4)
        offsets = torch.randint(2 * self.shift + 1, (2, count), generator=generator, device=images.device)
        rows = offsets[0, :, None] + torch.arange(height, device=images.device)
        columns = offsets[1, :, None] + torch.arange(width, device=images.device)
        image = torch.arange(count, device=images.device)[:, None, None, None]
        channel = torch.arange(channels, device=images.device)[None, :, None, None]
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def augmentation(train: TrainSection) -> Augment | None:
    """The augmentation of a configuration; None if it has none."""
    shift = train.crop_shift if train.crop else 0
    if not (shift or train.hflip or train.vflip):
        return None
    return Augment(shift=shift, hflip=train.hflip, vflip=train.vflip)
