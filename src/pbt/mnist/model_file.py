"""Model files: the weights of a network, its configuration, and a card with its results."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pbt.errors import ConfigError
from pbt.mnist.config.record import Config
from pbt.mnist.config.sections import Pixels
from pbt.mnist.models import Shape
from pbt.mnist.original import mapped, read_original
from pbt.mnist.recorded import recorded_of
from pbt.mnist.task import as_data, check_note, find_data
from pbt.mnist.tester import Tested, best_tested, evaluate, load_checkpoint, state_tested
from pbt.pytorch import Split
from pbt.runs.results import Run
from pbt.store.codec import encode
from pbt.store.durable import write_durable

_FITTED = 2000
"""Number of training images by which the scaling of an imported network's inputs is chosen."""


def save_model(run: Run, path: Path, data_dir: Path | None = None) -> Tested:
    """Write the best network of a run, over all rounds, and its test results to a model file.

    Args:
        run: A run of this application, of a population or a single network.
        path: The file, `.safetensors`.
        data_dir: Folder of the test images. Default: that of the run.

    Raises:
        ConfigError: The run is of another application.
        DataError: Without `data_dir`: the images are of another data set than the run's.
    """
    application = run.meta["application"]
    if "config" not in application:
        raise ConfigError(f"{run.path}: expected a run of the MNIST application, found {application or 'another'}")
    config = Config.from_dict(application["config"])
    if data_dir is not None:
        config = replace(config, test=config.test.model_copy(update={"data_dir": data_dir}))
    tested = best_tested(run, config)
    if data_dir is None:
        check_note(run, tested.note, tested.data)
    best = run.best
    card = {
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "test_images": tested.images,
        "validation_accuracy": best.score,
        "steps": best.step,
        "data": tested.note or "MNIST",
        "population": len(run.view.population),
        "schedule": run.best_schedule.to_dict()["segments"],
    }
    state = {"model": run.load_state()["model"], "config": application["config"], "card": card}
    write_durable(path, encode(state))
    return tested


def import_model(
    path: Path,
    target: Path,
    *,
    image: tuple[int, int, int] = (1, 28, 28),
    pixels: Pixels | None = None,
    data_dir: Path | None = None,
) -> Tested:
    """Write a checkpoint of the original and its test results to a model file.

    Args:
        path: The checkpoint, `.pth.tar`: a pickle, from which torch builds only tensors and plain values.
        target: The file to write, `.safetensors`.
        image: Channels, height and width of the network's images.
        pixels: Scaling of its inputs. Default: the one with the lower loss on some training images.
        data_dir: Folder of the images. Default: the places that every command searches.

    Raises:
        ConfigError: It is a checkpoint of neither network of the original; the message names the tensor.
        CorruptError: It is damaged, or holds other objects than weights.
        DataError: There are no images of that size.
    """
    original = read_original(path)
    shape, model = mapped(original, image, str(path))
    state: dict[str, Any] = {"model": model.state_dict()}
    options = [_imported(shape, choice, data_dir) for choice in ((pixels,) if pixels else get_args(Pixels))]
    config = options[0] if len(options) == 1 else min(options, key=lambda config: _loss(config, state))
    tested = state_tested(state, config, str(path))
    card = {
        "test_accuracy": tested.accuracy,
        "test_loss": tested.loss,
        "test_images": tested.images,
        "data": tested.note or "MNIST",
        "imported_from": path.name,
        "epoch": original.epoch,
        "iteration": original.iteration,
    }
    write_durable(target, encode({**state, "config": config.to_dict(), "card": card}))
    return tested


def _imported(shape: Shape, pixels: str, data_dir: Path | None) -> Config:
    """The configuration of an imported network; that of its training is unknown."""
    channels, height, width = shape.image
    train = {
        "model": shape.model,
        "n_hiddens" if shape.model == "fc" else "n_filters": list(shape.sizes),
        "num_channels": channels,
        "height": height,
        "width": width,
        "num_classes": shape.classes,
        "batch_norm": int(shape.batch_norm),
        "pixels": pixels,
        **({} if data_dir is None else {"data_dir": str(data_dir)}),
    }
    return Config.from_dict({"train": train})


def _loss(config: Config, state: Mapping[str, Any]) -> float:
    """The loss of a network on some training images; the test images never select."""
    train = config.train
    found = find_data(train.model_copy(update={"num_val": 0}))
    (inputs,), targets = as_data(found, (train.num_channels, train.height, train.width)).train.take(slice(0, _FITTED))
    return evaluate(config, state, Split(inputs, targets))["loss"]


def load_model(path: Path) -> tuple[Mapping[str, Any], Config]:
    """The state and configuration of a model file, or of a checkpoint in a training directory.

    Raises:
        ConfigError: The file does not exist, or no configuration is recorded with it.
        CorruptError: It is damaged, or of another kind.
    """
    state = load_checkpoint(path)
    recorded = recorded_of(path, state)
    if recorded is None:
        raise ConfigError(f"{path}: expected a model file, or a checkpoint in a training directory; found neither")
    return state, recorded.config
