"""A trained network in one file: weights, the configuration that rebuilds it, and the card that says what it is."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pbt.errors import ConfigError
from pbt.mnist.config.record import Config
from pbt.mnist.recorded import recorded_of
from pbt.mnist.tester import Tested, best_tested, load_checkpoint
from pbt.runs.results import Run
from pbt.store.codec import encode
from pbt.store.files import write_durable


def save_model(run: Run, path: Path, data_dir: Path | None = None) -> Tested:
    """Write the network that validation chose in a run, and what the test images say of it.

    Args:
        run: A run of this application, a population's or a single network's.
        path: The file, `.safetensors`.
        data_dir: Where the test images are, if not where the run found them.

    Raises:
        ConfigError: The run is of another application.
    """
    application = run.meta["application"]
    if "config" not in application:
        raise ConfigError(f"{run.path}: expected a run of the MNIST application, found {application or 'another'}")
    config = Config.from_dict(application["config"])
    if data_dir is not None:
        config = replace(config, test=config.test.model_copy(update={"data_dir": data_dir}))
    tested = best_tested(run, config)
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


def load_model(path: Path) -> tuple[Mapping[str, Any], Config]:
    """The state and configuration of a model file, or of a checkpoint in a training directory.

    Raises:
        ConfigError: There is no such file, or nothing says what network it is of.
        CorruptError: It is damaged, or something else.
    """
    state = load_checkpoint(path)
    recorded = recorded_of(path, state)
    if recorded is None:
        raise ConfigError(f"{path}: expected a model file, or a checkpoint in a training directory; found neither")
    return state, recorded.config
