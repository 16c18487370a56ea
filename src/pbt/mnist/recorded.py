"""The configuration that a checkpoint was trained with, and what an evaluation may change of it."""

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
"""Keys of `test` and `val` that an evaluation reads itself."""
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
"""Keys that may change when training continues; none of them changes what was trained already."""
_ELSEWHERE = frozenset({*READ, *FREE, "num_epochs_tot", "version", "val", "sleep_time_sec"})
"""Keys that say nothing of how the checkpoint was trained."""
_WORKER = re.compile(r"_(\d+)\.safetensors$")
Mode = Literal["test", "val"]


class RecordedArguments(NamedTuple):
    """The configuration that a checkpoint was trained with."""

    config: Config
    whole: bool = True
    """False: no more than what `test` says of the network."""


def recorded_of(path: Path, state: Mapping[str, Any]) -> RecordedArguments | None:
    """What a model file itself, or a checkpoint's training directory, says of the network; None: nothing does."""
    if "config" in state:
        return RecordedArguments(Config.from_dict(state["config"]))
    match = _WORKER.search(path.name)
    return arguments_in(path.resolve().parent.parent, match[1] if match else "0")


def arguments_in(folder: Path, worker: str) -> RecordedArguments | None:
    """The arguments that a training directory recorded, of a worker or of its only network; either file is enough."""
    for suffix in (f"_{worker}", ""):
        files = {section: folder / f"args_{section}{suffix}.json" for section in ("train", "test")}
        found = {section: read_file(file) for section, file in files.items() if file.is_file()}
        if "train" in found:
            return RecordedArguments(Config.from_dict(found))
        if found:
            shared = {key: value for key, value in found["test"].items() if key in Section.model_fields}
            return RecordedArguments(Config.from_dict({"train": shared, **found}), whole=False)
    return None


def settled(asked: Config, recorded: RecordedArguments, section: Mode, overridden: Collection[str]) -> Config:
    """The recorded configuration, with what an evaluation reads itself as it was asked for.

    Raises:
        ConfigError: A key was overridden that the checkpoint fixes at another value.
    """
    named = [(target, key) for target, _, key in (name.rpartition(".") for name in overridden)]
    here = {key for target, key in named if target in ("", "general", section)}
    problems = []
    for part in ("train", section):
        said = {key for target, key in named if target in ("", "general", part)} - _ELSEWHERE
        now, before = asked.to_plain(part), recorded.config.to_plain(part)
        if not recorded.whole:
            said &= FIXED
        problems += [
            f"{key}: the checkpoint was trained with {before.get(key)}, got {now.get(key)}"
            for key in sorted(said & (now.keys() | before.keys()))
            if now.get(key) != before.get(key)
        ]
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)) + f"; leave it out, -m {section} trains nothing")
    own, theirs = getattr(asked, section), getattr(recorded.config, section)
    fields = type(own).model_fields
    read = {key: getattr(own, key) for key in READ if key in here or getattr(own, key) != fields[key].default}
    return replace(recorded.config, **{section: theirs.model_copy(update=read)})
