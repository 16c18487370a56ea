"""Testing what a run left: one checkpoint, or the member that validation chose. A reader, never a writer.

The network and the images held out from it are those of the checkpoint. What an evaluation reads itself
(`recorded.READ`) comes from the command line, then the configuration file, then what is recorded with the checkpoint.
"""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pbt.errors import ConfigError, CorruptError, PBTError
from pbt.mnist.config.record import Config
from pbt.mnist.data.find import Dataset
from pbt.mnist.metrics import METRICS, beside
from pbt.mnist.models import Shape, count_parameters, restored
from pbt.mnist.placement import gpu_of
from pbt.mnist.recorded import Mode, RecordedArguments, arguments_in, recorded_of, settled
from pbt.mnist.task import EVALUATION_BATCH, PREPARE, as_data, evaluation_batch, find_data
from pbt.pytorch import Split
from pbt.pytorch.state import threads_of
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.store.codec import decode, digest
from pbt.store.files import read_plain

_PICKLES = (".pth.tar", ".pth", ".pt", ".tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What a test found."""

    what: str
    """The checkpoint, in words."""
    network: str
    """What it is a network of, in words."""
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


class _NamedCheckpoint(NamedTuple):
    """A checkpoint, and what is recorded of it."""

    what: str
    state: Mapping[str, Any]
    recorded: RecordedArguments | None
    run: Path | None


def run_test(
    config: Config,
    section: Mode,
    application: str,
    *,
    overridden: Collection[str] = (),
    device: str | None = None,
) -> Tested:
    """Test the checkpoint that `load_ckpt` names, or the best state of the newest run of an application.

    Args:
        config: What is asked for. Of a checkpoint that has a configuration (in its model file, or as
            `args_test.json`, in a population `args_test_<w>.json`, in its training directory), only the keys that an
            evaluation reads itself are taken from here, where they are not at their defaults or are overridden.
        section: `test`: the test images; `val`: the held-out ones.
        application: Whose newest run is taken without `load_ckpt`.
        overridden: Keys that the command line said, `key` or `section.key`.
        device: As the command line says; default: the first of the section's `gpus`.

    Raises:
        ConfigError: There is no such checkpoint or no run; it is of another network; an overridden key is fixed by
            the checkpoint; or `version` is `test_none`.
        CorruptError: The checkpoint is damaged, or no checkpoint at all.
        DeviceError: The device is not there.
    """
    if getattr(config, section).version == "test_none":
        raise ConfigError(
            f"{section}.version: expected test_MPL for -m {section}, got test_none, which asks for no test"
        )
    if device is not None:
        device = Placement(device=device).resolve(1).devices[0]
    wanted = getattr(config, section).load_ckpt
    found = _named(Path(wanted)) if wanted else _best_of(newest_run(config.train.train_dir, application))
    if found.recorded is not None:
        config = settled(config, found.recorded, section, overridden)
    return _tested(found, config, section, device)


def best_tested(run: Run, config: Config | None = None, device: str | None = None) -> Tested:
    """Test the state that validation chose in a run of either application; default: as the run is configured."""
    found = _best_of(run)
    return _tested(found, config or Config.from_dict(run.meta["application"]["config"]), "test", device)


def state_tested(state: Mapping[str, Any], config: Config, what: str) -> Tested:
    """Test a state that lies in no run; `what` says in words what it is."""
    return _tested(_NamedCheckpoint(what, state, None, None), config, "test", None)


def _named(path: Path) -> _NamedCheckpoint:
    state = load_checkpoint(path)
    folder, recorded = path.resolve().parent.parent, recorded_of(path, state)
    if not (folder / "run.db").is_file():
        return _NamedCheckpoint(str(path), state, recorded, None)
    return _NamedCheckpoint(str(path), state, _with_val(recorded, Run.open(folder)), folder)


def _with_val(arguments: RecordedArguments | None, run: Run) -> RecordedArguments | None:
    """The arguments beside a run, which say nothing of `val`, with that section as the run recorded it."""
    if "config" not in run.meta["application"]:
        return arguments
    config = Config.from_dict(run.meta["application"]["config"])
    if arguments is None:
        return RecordedArguments(config)
    return arguments._replace(config=replace(arguments.config, val=config.val))


def _best_of(run: Run) -> _NamedCheckpoint:
    """What validation chose in a run, or without validation its newest state."""
    if run.path is None:
        raise ConfigError("expected a run that is kept in a directory")
    best, application = run.best, run.meta["application"]
    who = f"worker {best.member} of " if len(run.view.members) > 1 else ""
    how = "the newest checkpoint," if application.get("score") == "steps" else "chosen by validation"
    what = f"{who}{run.path}, {how} after {best.step:,} steps"
    try:
        state = run.load_state()
    except KeyError as error:
        raise ConfigError(
            f"{run.path}: expected the state that validation chose, found it gone; name a checkpoint by load_ckpt"
        ) from error
    return _NamedCheckpoint(what, state, _with_val(arguments_in(run.path, str(best.member)), run), run.path)


def _tested(found: _NamedCheckpoint, config: Config, section: Mode, device: str | None) -> Tested:
    asked = getattr(config, section)
    # A test needs no image held out, and so can be of a set of any size.
    data = find_data(asked, held_out=section == "val")
    images = images_of(config, data, section)
    device = device or gpu_of(asked.gpus)
    with threads_of(asked.threads or torch.get_num_threads()):
        scores = evaluate(
            config,
            found.state,
            images,
            ("loss", "accuracy", asked.metric),
            device=device,
            batch=evaluation_batch(asked.batch_size),
        )
    shape = Shape.of(config.train)
    sizes = ",".join(map(str, shape.sizes))
    return Tested(
        what=found.what,
        network=f"{shape.model} {sizes}, {count_parameters(shape):,} parameters, on {device}",
        images=len(images),
        loss=scores["loss"],
        accuracy=scores["accuracy"],
        metric=asked.metric,
        value=scores[asked.metric],
        note=data.note,
        data=data.line,
        run=found.run,
        digest=digest(found.state),
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
        if path.name.endswith(_PICKLES):
            raise CorruptError(
                f"load_ckpt: expected a safetensors checkpoint of this package, found {path}; turn it into a "
                f"model file: pbt mnist import {shlex.quote(str(path))} --i-trust-this-file"
            ) from error
        raise CorruptError(
            f"load_ckpt: expected a safetensors checkpoint of this package in {path}: {error}"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise CorruptError(f"load_ckpt: expected the state of a network in {path}, found something else")
    return state


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
    config: Config,
    state: Mapping[str, Any],
    split: Split,
    metrics: Sequence[str] = ("loss", "accuracy"),
    *,
    device: str = "cpu",
    batch: int = EVALUATION_BATCH,
) -> dict[str, float]:
    """The mean of each metric of a network over images.

    Raises:
        ConfigError: The state is of another network than the configured one.
    """
    model = restored(config.train, state["model"], "load_ckpt").to(device)
    prepare, totals = PREPARE[config.train.pixels], dict.fromkeys(metrics, 0.0)
    for start in range(0, len(split), batch):
        (images,), labels = split.take(slice(start, start + batch))
        outputs = model(prepare(images.to(device)))
        for name in totals:
            totals[name] += float(METRICS[name](outputs, labels.to(device))) * len(labels)
    return {name: total / len(split) for name, total in totals.items()}


def images_of(config: Config, data: Dataset, section: str) -> Split:
    """The test images, or for `val` the held-out ones (ConfigError if there are none)."""
    train = config.train
    splits = as_data(data, (train.num_channels, train.height, train.width))
    split = splits.test if section == "test" else splits.validation
    if split is None or len(split) == 0:
        raise ConfigError(f"{section}: expected images to evaluate, found none; num_val must be above 0")
    return split
