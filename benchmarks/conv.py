"""One generation of `config/conv_PBT.json`, 10 workers, on a slice of MNIST or, with `--full`, on all of it.

Compares a complete generation of `pbt` with executor `auto` with Ray Tune's PBT on the same images. The slice contains
the training images of a few steps, and the same share of validation and test images.
"""

import contextlib
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch

from benchmarks.base import Options, Row, times_faster
from benchmarks.generation import population, with_turns
from benchmarks.ray_side import RayTune, UnavailableError
from benchmarks.sides import take_turns
from pbt.mnist.config.record import Config, load_config
from pbt.mnist.task import find_data

CONFIG = "config/conv_PBT.json"
STEPS = 8
"""Steps per epoch of the slice."""


def measure(options: Options) -> Sequence[Row]:
    """Compare a generation with Ray Tune's."""
    with contextlib.ExitStack() as stack:
        config = load_config(CONFIG) if options.full else stack.enter_context(sliced(CONFIG, STEPS))
        config = with_turns(config, options.repeats)
        ours = stack.enter_context(population(config, "auto"))
        extent = "whole" if options.full else f"{STEPS} steps of {config.train.batch_size}"
        work = f"conv_PBT generation, {config.train.num_worker_tot} workers, {extent}, `{ours.ready}` by `auto`"
        limit, aim = times_faster(1.5), times_faster(2.5)
        try:
            ray = stack.enter_context(RayTune.of_config(config))
        except UnavailableError as error:
            return [Row.missing(work, str(error), limit=limit, aim=aim)]
        mine, theirs = take_turns([ours, ray], options.repeats)
    return [
        Row(
            work=work,
            measured=f"{median(mine):.2f} s",
            against=f"{ray.name}, 2 CPU slots: {median(theirs):.2f} s",
            value=median(one / two for one, two in zip(mine, theirs, strict=True)),
            limit=limit,
            aim=aim,
        )
    ]


@contextlib.contextmanager
def sliced(path: str, steps: int) -> Iterator[Config]:
    """The configuration with the training images of this many steps, and the same share of the others."""
    train = load_config(path).train
    found = find_data(train)
    kept = min(steps * train.batch_size, len(found.train_y))
    share = kept / len(found.train_y)
    val, test = (max(1, round(share * len(labels))) for labels in (found.val_y, found.test_y))
    images = torch.cat([found.train_x[:kept], found.val_x[:val]])
    labels = torch.cat([found.train_y[:kept], found.val_y[:val]])
    with tempfile.TemporaryDirectory() as folder:
        write_idx(Path(folder), "train", images, labels)
        write_idx(Path(folder), "t10k", found.test_x[:test], found.test_y[:test])
        yield load_config(path, overrides={"data_dir": folder, "num_val": val})


def write_idx(folder: Path, name: str, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Write images (n, height, width) and labels (n,) in MNIST's format."""
    for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">4B{values.dim()}I", 0, 0, 8, values.dim(), *values.shape)
        (folder / f"{name}-{kind}-ubyte").write_bytes(header + values.to(torch.uint8).numpy().tobytes())
