"""Testing what a run left: one checkpoint, or the member that validation chose. A reader, never a writer."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own convention)

from pbt.errors import ConfigError, CorruptError, PBTError
from pbt.mnist.config import Config
from pbt.mnist.data import Dataset
from pbt.mnist.models import Shape, network
from pbt.mnist.task import as_data, find_data, normalize
from pbt.pytorch import Split, accuracy
from pbt.results import Run
from pbt.store.codec import decode

BATCH = 1000
_WORKER = re.compile(r"_(\d+)\.safetensors$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What a test found."""

    what: str
    """The checkpoint, in words."""
    images: int
    loss: float
    accuracy: float
    """Share of images classified right."""
    note: str
    """What must be said of the data; empty for MNIST itself."""


def run_test(config: Config, section: Literal["test", "val"]) -> Tested:
    """Test the checkpoint that `load_ckpt` names, or the best member of the newest population run.

    With a checkpoint, network and data are those of its training directory (`args_test_<w>.json`), not `config`'s.

    Raises:
        ConfigError: There is no such checkpoint or no run, or it is of another network.
        CorruptError: The checkpoint is damaged, or no checkpoint at all.
    """
    wanted = getattr(config, section)
    if wanted.load_ckpt:
        path = Path(wanted.load_ckpt)
        state, own, what = load_checkpoint(path), arguments_of(path) or config, str(path)
    else:
        run = newest_run(config.train.train_dir)
        state, own = run.load_state(), Config.from_dict(run.meta["application"]["config"])
        what = f"worker {run.best.member} of {run.path}, chosen by validation after {run.best.step} steps"
    data = find_data(getattr(own, section))
    loss, right = evaluate(own, state, _images(own, data, section))
    images = len(data.test_y if section == "test" else data.val_y)
    return Tested(what=what, images=images, loss=loss, accuracy=right, note=data.note)


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """The state in a checkpoint file. Nothing in it is ever executed.

    Raises:
        ConfigError: There is no such file.
        CorruptError: It is damaged, or something else than a checkpoint (a pickle, for one).
    """
    try:
        state = decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"load_ckpt: expected a checkpoint, cannot read {path}: {error.strerror}") from error
    except PBTError as error:
        raise CorruptError(
            f"load_ckpt: expected a safetensors checkpoint of this package in {path}: {error}"
        ) from error
    if not isinstance(state, dict) or "model" not in state:
        raise CorruptError(f"load_ckpt: expected the state of a network in {path}, found something else")
    return state


def arguments_of(path: Path) -> Config | None:
    """The configuration that a checkpoint's training directory recorded; None: it lies in none."""
    folder = path.resolve().parent.parent
    match = _WORKER.search(path.name)
    worker = match[1] if match else "0"
    files = [folder / f"args_{section}_{worker}.json" for section in ("train", "test")]
    if not all(file.is_file() for file in files):
        return None
    train, test = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    return Config.from_dict({"train": train, "test": test})


def newest_run(folder: Path) -> Run:
    """The newest population run in a folder.

    Raises:
        ConfigError: There is none.
    """
    found = sorted(folder.glob("*/run.db"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        if path.parent.is_symlink():
            continue
        run = Run.open(path.parent)
        if run.meta["application"].get("name") == "mnist" and run.view.best is not None:
            return run
    raise ConfigError(f"expected a population run in {folder.resolve()}, found none; train one first, or set load_ckpt")


@torch.no_grad()
def evaluate(config: Config, state: Mapping[str, Any], split: Split) -> tuple[float, float]:
    """Mean loss and accuracy of a network over images.

    Raises:
        ConfigError: The state is of another network than the configured one.
    """
    model = network(Shape.of(config.train))
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ConfigError(f"load_ckpt: expected a {config.train.model} network as configured: {error}") from error
    model.eval()
    loss = right = 0.0
    for start in range(0, len(split), BATCH):
        (images,), labels = split.take(slice(start, start + BATCH))
        outputs = model(normalize(images))
        loss += float(F.cross_entropy(outputs, labels, reduction="sum"))
        right += float(accuracy(outputs, labels)) * len(labels)
    return loss / len(split), right / len(split)


def _images(config: Config, data: Dataset, section: str) -> Split:
    train = config.train
    splits = as_data(data, (train.num_channels, train.height, train.width))
    split = splits.test if section == "test" else splits.validation
    if split is None or len(split) == 0:
        raise ConfigError(f"{section}: expected images to evaluate, found none; num_val must be above 0")
    return split
