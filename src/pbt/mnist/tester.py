"""Testing what a run left: one checkpoint, or the member that validation chose. A reader, never a writer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pbt.errors import ConfigError, CorruptError, PBTError
from pbt.mnist.config.file import read_file
from pbt.mnist.config.record import Config
from pbt.mnist.data.find import Dataset
from pbt.mnist.metrics import METRICS, beside
from pbt.mnist.models import restored
from pbt.mnist.task import as_data, find_data, normalize
from pbt.pytorch import Split
from pbt.runs.results import Run
from pbt.store.codec import decode, digest
from pbt.store.files import read_plain

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
    metric: str
    """The metric that the configuration names."""
    value: float
    """What it came to."""
    note: str
    """What must be said of the data; empty for MNIST itself."""
    data: str
    """Where the images come from, and whether they are MNIST's."""
    run: Path | None
    """The run directory that the checkpoint is of; None: it lies in none."""
    digest: str
    """Of the checkpoint's content, by which its run knows it."""

    @property
    def scores(self) -> dict[str, float]:
        """Loss, accuracy, and the named metric where it is neither."""
        return {"loss": self.loss, "accuracy": self.accuracy, **dict.fromkeys(beside(self.metric), self.value)}


def run_test(config: Config, section: Literal["test", "val"], application: str, data_dir: Path | None = None) -> Tested:
    """Test the checkpoint that `load_ckpt` names, or the best state of the newest run of an application.

    With a checkpoint, network and data are those that it, or its training directory, recorded (`args_test.json`, in a
    population `args_test_<w>.json`), not `config`'s. `data_dir` is where the data is now, if it was asked for.

    Raises:
        ConfigError: There is no such checkpoint or no run, or it is of another network.
        CorruptError: The checkpoint is damaged, or no checkpoint at all.
    """
    wanted = getattr(config, section).load_ckpt
    if not wanted:
        return best_tested(newest_run(config.train.train_dir, application), section, data_dir)
    path = Path(wanted)
    state = load_checkpoint(path)
    folder = path.resolve().parent.parent
    run = folder if (folder / "run.db").is_file() else None
    return _tested(state, configuration_of(path, state) or config, section, str(path), data_dir, run)


def best_tested(run: Run, section: Literal["test", "val"], data_dir: Path | None = None) -> Tested:
    """Test the state that validation chose in a run of either application."""
    who = f"worker {run.best.member} of " if len(run.view.members) > 1 else ""
    what = f"{who}{run.path}, chosen by validation after {run.best.step:,} steps"
    config = Config.from_dict(run.meta["application"]["config"])
    return _tested(run.load_state(), config, section, what, data_dir, run.path)


def _tested(
    state: Mapping[str, Any],
    config: Config,
    section: Literal["test", "val"],
    what: str,
    data_dir: Path | None,
    run: Path | None,
) -> Tested:
    asked = getattr(config, section)
    named = asked if data_dir is None else asked.model_copy(update={"data_dir": data_dir.absolute()})
    data = find_data(named, held_out=section == "val")
    images = images_of(config, data, section)
    scores = evaluate(config, state, images, ("loss", "accuracy", asked.metric))
    return Tested(
        what=what,
        images=len(images),
        loss=scores["loss"],
        accuracy=scores["accuracy"],
        metric=asked.metric,
        value=scores[asked.metric],
        note=data.note,
        data=data.line,
        run=run,
        digest=digest(state),
    )


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """The state in a checkpoint file. Nothing in it is ever executed.

    Raises:
        ConfigError: There is no such file.
        CorruptError: It is damaged, or something else than a checkpoint (a pickle, for one).
    """
    try:
        state = decode(read_plain(path.resolve()))
    except OSError as error:
        raise ConfigError(f"load_ckpt: expected a checkpoint, cannot read {path}: {error.strerror}") from error
    except PBTError as error:
        raise CorruptError(
            f"load_ckpt: expected a safetensors checkpoint of this package in {path}: {error}"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise CorruptError(f"load_ckpt: expected the state of a network in {path}, found something else")
    return state


def configuration_of(path: Path, state: Mapping[str, Any]) -> Config | None:
    """What a model file itself, or a checkpoint's training directory, says of the network; None: nothing does."""
    return Config.from_dict(state["config"]) if "config" in state else arguments_of(path)


def arguments_of(path: Path) -> Config | None:
    """The configuration that a checkpoint's training directory recorded; None: it lies in none."""
    folder = path.resolve().parent.parent
    match = _WORKER.search(path.name)
    for suffix in (f"_{match[1]}" if match else "_0", ""):
        files = [folder / f"args_{section}{suffix}.json" for section in ("train", "test")]
        if all(file.is_file() for file in files):
            train, test = (read_file(file) for file in files)
            return Config.from_dict({"train": train, "test": test})
    return None


def newest_run(folder: Path, application: str) -> Run:
    """The newest run of an application in a folder.

    Raises:
        ConfigError: There is none.
    """
    for path in sorted(folder.glob("*/run.db"), key=lambda path: path.stat().st_mtime, reverse=True):
        if path.parent.is_symlink():
            continue
        run = Run.open(path.parent)
        if run.meta["application"].get("name") == application and run.view.best is not None:
            return run
    raise ConfigError(
        f"expected a training directory in {folder.resolve()}, found none with a checkpoint; "
        "train first, or set load_ckpt"
    )


@torch.no_grad()
def evaluate(
    config: Config, state: Mapping[str, Any], split: Split, metrics: Sequence[str] = ("loss", "accuracy")
) -> dict[str, float]:
    """The mean of each metric of a network over images.

    Raises:
        ConfigError: The state is of another network than the configured one.
    """
    model = restored(config.train, state["model"], "load_ckpt")
    totals = dict.fromkeys(metrics, 0.0)
    for start in range(0, len(split), BATCH):
        (images,), labels = split.take(slice(start, start + BATCH))
        outputs = model(normalize(images))
        for name in totals:
            totals[name] += float(METRICS[name](outputs, labels)) * len(labels)
    return {name: total / len(split) for name, total in totals.items()}


def images_of(config: Config, data: Dataset, section: str) -> Split:
    """The test images, or for `val` the held-out ones (ConfigError if there are none)."""
    train = config.train
    splits = as_data(data, (train.num_channels, train.height, train.width))
    split = splits.test if section == "test" else splits.validation
    if split is None or len(split) == 0:
        raise ConfigError(f"{section}: expected images to evaluate, found none; num_val must be above 0")
    return split
