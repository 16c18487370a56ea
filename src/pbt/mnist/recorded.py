"""The recorded configuration of a checkpoint, and the keys that an evaluation may change."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pbt.errors import ConfigError
from pbt.mnist.config.file import read_file
from pbt.mnist.config.record import Config
from pbt.mnist.config.sections import FIXED, Section

POPULATION, SINGLE = "mnist", "mnist-single"
"""Names of the application, as the runs of populations and of single networks record it."""
READ = ("data_dir", "metric", "gpus", "threads", "batch_size")
"""Keys of `test` and `val` that belong to the evaluation, not to the checkpoint."""
FREE = frozenset(
    {
        "num_epochs",
        "load_ckpt",
        "gpus",
        "threads",
        "executor",
        "data_dir",
        "train_dir",
        "worker_num",
        "num_workers_paral",
    }
)
"""Keys that may change when training continues, because earlier training did not depend on them."""
_ELSEWHERE = frozenset({*READ, *FREE, "num_epochs_tot", "version", "val", "sleep_time_sec"})
"""Keys that do not describe the training of the checkpoint."""
_WORKER = re.compile(r"_(\d+)\.safetensors$")
Mode = Literal["test", "val"]


class RecordedArguments(NamedTuple):
    """The recorded configuration of a checkpoint."""

    config: Config
    whole: bool = True
    """False if only the section `test` was recorded."""


def recorded_of(path: Path, state: Mapping[str, Any]) -> RecordedArguments | None:
    """The configuration in a model file, or beside a checkpoint in its training directory; None if neither has one."""
    if "config" in state:
        return RecordedArguments(Config.from_dict(state["config"]))
    match = _WORKER.search(path.name)
    return arguments_in(path.resolve().parent.parent, match[1] if match else "0")


def arguments_in(folder: Path, worker: str) -> RecordedArguments | None:
    """The arguments in a training directory, of a worker or of its only network; one of the two files is enough."""
    for suffix in (f"_{worker}", ""):
        files = {section: folder / f"args_{section}{suffix}.json" for section in ("train", "test")}
        found = {section: read_file(file) for section, file in files.items() if file.is_file()}
        if "train" in found:
            return RecordedArguments(Config.from_dict(found))
        if found:
            shared = {key: value for key, value in found["test"].items() if key in Section.model_fields}
            return RecordedArguments(Config.from_dict({"train": shared, **found}), whole=False)
    return None


def evaluation_config(
    config: Config, recorded: RecordedArguments, section: Mode, overridden: Collection[str]
) -> Config:
    """The recorded configuration, with the keys of the evaluation as configured.

    Raises:
        ConfigError: An overridden key has another value in the record of the checkpoint, which fixes it.
    """
    named = [(target, key) for target, _, key in (name.rpartition(".") for name in overridden)]
    here = {key for target, key in named if target in ("", "general", section)}
    problems = []
    for part in ("train", section):
        given = {key for target, key in named if target in ("", "general", part)} - _ELSEWHERE
        now, before = config.to_plain(part), recorded.config.to_plain(part)
        if not recorded.whole:
            given &= FIXED
        problems += [
            f"{key}: the checkpoint was trained with {before.get(key)}, got {now.get(key)}"
            for key in sorted(given & (now.keys() | before.keys()))
            if now.get(key) != before.get(key)
        ]
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)) + f"; leave it out, -m {section} trains nothing")
    own, theirs = getattr(config, section), getattr(recorded.config, section)
    fields = type(own).model_fields
    read = {key: getattr(own, key) for key in READ if key in here or getattr(own, key) != fields[key].default}
    return replace(recorded.config, **{section: theirs.model_copy(update=read)})
