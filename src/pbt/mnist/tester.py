"""Evaluate a checkpoint, or the best state of a run, on the test images or the held-out ones. Writes nothing.

The network and its held-out images are those of the checkpoint. The keys of the evaluation itself (`recorded.READ`)
come from the command line, then from the configuration file, then from the record of the checkpoint.
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
from pbt.mnist.recorded import Mode, RecordedArguments, arguments_in, evaluation_config, recorded_of
from pbt.mnist.task import EVALUATION_BATCH, PREPARE, as_data, evaluation_batch, find_data
from pbt.pytorch import Split
from pbt.pytorch.state import threads_of
from pbt.runs.catalog import opened, runs_in
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.store.codec import decode, digest
from pbt.store.durable import read_plain
from pbt.store.layout import DATABASE

_PICKLES = (".pth.tar", ".pth", ".pt", ".tar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """The result of an evaluation."""

    what: str
    """Description of the checkpoint."""
    network: str
    """Description of the network."""
    images: int
    loss: float
    accuracy: float
    """Share of correctly classified images."""
    metric: str
    """Name of the configured metric."""
    value: float
    """Its value."""
    note: str
    """Note on the data; empty for MNIST itself."""
    data: str
    """Folder of the images, and whether they are MNIST's."""
    run: Path | None
    """Run directory of the checkpoint; None if it is in none."""
    digest: str
    """Digest of the checkpoint's content, which identifies it in its run."""

    @property
    def scores(self) -> dict[str, float]:
        """Loss, accuracy, and the configured metric if it is neither."""
        return {"loss": self.loss, "accuracy": self.accuracy, **dict.fromkeys(beside(self.metric), self.value)}


class _NamedCheckpoint(NamedTuple):
    """A checkpoint, and the configuration recorded with it."""

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
        config: The configuration. If the checkpoint has one of its own (in its model file, or as `args_test.json` or
            `args_test_<w>.json` in its training directory), only the keys of the evaluation itself are taken from
            `config`, and only those that are overridden or differ from their defaults.
        section: `test`: the test images; `val`: the held-out ones.
        application: Application of the newest run, which is evaluated without `load_ckpt`.
        overridden: Keys given on the command line, as `key` or `section.key`.
        device: Device given on the command line. Default: the first of the section's `gpus`.

    Raises:
        ConfigError: The checkpoint or run does not exist or is of another network; an overridden key is fixed by the
            checkpoint; or `version` is `test_none`.
        CorruptError: The checkpoint is damaged, or not a checkpoint.
        DeviceError: The device does not exist.
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
        config = evaluation_config(config, found.recorded, section, overridden)
    return _tested(found, config, section, device)


def best_tested(run: Run, config: Config | None = None, device: str | None = None) -> Tested:
    """Test the state of a run that validation chose. Default configuration: that of the run."""
    found = _best_of(run)
    return _tested(found, config or Config.from_dict(run.meta["application"]["config"]), "test", device)


def state_tested(state: Mapping[str, Any], config: Config, what: str) -> Tested:
    """Test a state outside any run; `what` describes it."""
    return _tested(_NamedCheckpoint(what, state, None, None), config, "test", None)


def _named(path: Path) -> _NamedCheckpoint:
    state = load_checkpoint(path)
    folder, recorded = path.resolve().parent.parent, recorded_of(path, state)
    if not (folder / DATABASE).is_file():
        return _NamedCheckpoint(str(path), state, recorded, None)
    with opened(folder) as (run, _):
        return _NamedCheckpoint(str(path), state, _with_val(recorded, run), folder)


def _with_val(arguments: RecordedArguments | None, run: Run) -> RecordedArguments | None:
    """The arguments beside a run, which have no section `val`, with that section from the record of the run."""
    if "config" not in run.meta["application"]:
        return arguments
    config = Config.from_dict(run.meta["application"]["config"])
    if arguments is None:
        return RecordedArguments(config)
    return arguments._replace(config=replace(arguments.config, val=config.val))


def _best_of(run: Run) -> _NamedCheckpoint:
    """The state of a run that validation chose; without validation the newest."""
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
    settings = getattr(config, section)
    # A test needs no held-out images, so the training set may have any size.
    data = find_data(settings, held_out=section == "val")
    images = images_of(config, data, section)
    device = device or gpu_of(settings.gpus)
    with threads_of(settings.threads or torch.get_num_threads()):
        scores = evaluate(
            config,
            found.state,
            images,
            ("loss", "accuracy", settings.metric),
            device=device,
            batch=evaluation_batch(settings.batch_size),
        )
    shape = Shape.of(config.train)
    sizes = ",".join(map(str, shape.sizes))
    return Tested(
        what=found.what,
        network=f"{shape.model} {sizes}, {count_parameters(shape):,} parameters, on {device}",
        images=len(images),
        loss=scores["loss"],
        accuracy=scores["accuracy"],
        metric=settings.metric,
        value=scores[settings.metric],
        note=data.note,
        data=data.line,
        run=found.run,
        digest=digest(found.state),
    )


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """The state in a checkpoint file; nothing in the file is executed.

    Raises:
        ConfigError: The file does not exist.
        CorruptError: It is damaged, or not a checkpoint (but a pickle, for example).
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
        ConfigError: The folder has none with a checkpoint.
    """
    for path in sorted(runs_in(folder), key=lambda path: (path / DATABASE).stat().st_mtime, reverse=True):
        with opened(path) as (run, _):
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
    split: Split | None = splits.test if section == "test" else splits.validation
    if split is None or len(split) == 0:
        raise ConfigError(f"{section}: expected images to evaluate, found none; num_val must be above 0")
    return split
