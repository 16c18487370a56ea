"""The start of a single network's training: random weights, a checkpoint of a run, or other weights to fine-tune."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pbt.core.events import Reported
from pbt.core.population import StateRef, Stored
from pbt.errors import ConfigError
from pbt.mnist.config.record import Config
from pbt.mnist.files import folder_of
from pbt.mnist.models import Shape, network, restored
from pbt.mnist.recorded import FREE, SINGLE, recorded_of
from pbt.mnist.tester import load_checkpoint
from pbt.runs.catalog import opened
from pbt.runs.engine import Engine, Observer
from pbt.store.codec import digest, digest_of, encode
from pbt.store.durable import read_plain, write_durable
from pbt.store.layout import DATABASE
from pbt.store.sqlite import RunStore

log = logging.getLogger("pbt")

START = "start.safetensors"
"""The weights that fine-tuning began with, in `ckpts/`."""
Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The start of training as given by `load_ckpt`."""

    path: Path | None = None
    """Training directory in which training continues; None for a new one."""
    branch: "EarlierStart | None" = None
    """Earlier checkpoint from which a new directory continues."""
    weights: Weights | None = None
    """Initial weights of the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierStart:
    """An earlier checkpoint of a run."""

    source: Path
    """The run directory."""
    ckpt: Path
    report: Reported
    steps_per_epoch: int

    def write(self, target: Path, rounds: int, steps_per_epoch: int) -> None:
        """Create a run directory with the log of the run up to the checkpoint, as if it had been interrupted there.

        Args:
            target: The new directory.
            rounds: Checkpoints of the new run in all.
            steps_per_epoch: Training steps of an epoch of the new run.

        Raises:
            ConfigError: The epochs of the run had another length, because its data was different.
        """
        if steps_per_epoch != self.steps_per_epoch:
            raise ConfigError(
                f"data_dir: expected the data of {self.source}, with {self.steps_per_epoch} steps an epoch, found "
                f"{steps_per_epoch}"
            )
        with opened(self.source) as (run, _):
            meta, events = run.meta, run.events[: run.events.index(self.report) + 1]
        files = [self.ckpt, *sorted((self.source / "ckpts").glob("*.safetensors"))]
        blobs = {digest_of(blob): blob for blob in map(read_plain, (file.resolve() for file in files))}
        with RunStore.create(target, {**meta, "rounds": rounds}) as store:
            stored: dict[StateRef, Stored] = {}
            for event in events:
                if isinstance(event, Reported) and event.digest in blobs:
                    stored[event.state] = store.states.keep(event.state, blobs[event.digest], event.digest)
            # The run has deleted the states between, too: they are recorded, and deleted at once.
            gone = {
                event.state: Stored(digest=event.digest, size=0, blob=b"")
                for event in events
                if isinstance(event, Reported) and event.state not in stored
            }
            store.commit(events, stored | gone)
            store.sweep(stored.keys())
            store.note("branched", source=str(self.source), step=self.report.step)


class KeepsStart(Observer):
    """Saves the initial weights of fine-tuning, for a run that is interrupted before its first checkpoint."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def on_start(self, engine: Engine) -> None:
        """Write the weights, once."""
        path = folder_of(engine) / "ckpts" / START
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_durable(path, encode({"model": dict(self._weights)}))


def beginning(config: Config) -> Beginning:
    """The start of training as given by `load_ckpt`.

    The newest checkpoint of a single network's run continues in its directory; an earlier one, such as the best,
    continues in a new directory. A model file, a worker's checkpoint or any other network of the same shape
    is fine-tuned: its weights, from epoch 0.

    Raises:
        ConfigError: The file does not exist or is of another network, or the run cannot continue with this
            configuration.
        CorruptError: The file is damaged, or not a checkpoint.
    """
    if not config.train.load_ckpt:
        return Beginning()
    wanted = Path(config.train.load_ckpt)
    state = load_checkpoint(wanted)
    path = wanted.resolve().parent.parent
    if (path / DATABASE).is_file():
        with opened(path) as (run, _):
            reports = list(run.tree.reports.values())
        found = next((report for report in reports if report.digest == digest(state)), None)
        application = run.meta["application"]
        if found is not None and application.get("name") == SINGLE:
            _check_same(path, Config.from_dict(application["config"]), config, newest=found is reports[-1])
            if found is reports[-1]:
                return Beginning(path=path, weights=started(path))
            steps = run.meta["plan"]["interval"]["steps_per_epoch"]
            if found.step > config.train.num_epochs * steps:
                raise ConfigError(
                    f"num_epochs: {wanted} has {found.step / steps:.3g} epochs of training, expected at least as many, "
                    f"got {config.train.num_epochs}"
                )
            log.info("load_ckpt: training continues after %.3g epochs, in a new directory", found.step / steps)
            branch = EarlierStart(source=path, ckpt=wanted, report=found, steps_per_epoch=steps)
            return Beginning(branch=branch, weights=started(path))
    return Beginning(weights=_tuned(wanted, state, config))


def started(path: Path) -> Weights | None:
    """The initial weights of a run that fine-tuned a network; None for other runs."""
    file = path / "ckpts" / START
    return load_checkpoint(file)["model"] if file.is_file() else None


def pretrained(shape: Shape, weights: Weights) -> Any:
    """A factory, for a task, of the network with these weights."""
    return functools.partial(_with_weights, shape, weights)


def _with_weights(shape: Shape, weights: Weights) -> nn.Sequential:
    model = network(shape)
    model.load_state_dict(weights)
    return model


def _tuned(wanted: Path, state: Mapping[str, Any], config: Config) -> Weights:
    """The weights of a checkpoint, checked to be those of the configured network."""
    weights = restored(config.train, state["model"], "load_ckpt").state_dict()
    recorded = recorded_of(wanted, state)
    if recorded is not None and recorded.config.train.pixels != config.train.pixels:
        raise ConfigError(
            f"pixels: {wanted} was trained with {recorded.config.train.pixels}, got {config.train.pixels}; "
            f"use it with --set pixels={recorded.config.train.pixels}"
        )
    log.info("load_ckpt: fine-tuning %s from epoch 0, in a new directory", wanted)
    return weights


def _check_same(path: Path, begun: Config, now: Config, *, newest: bool) -> None:
    """Raise ConfigError if the configuration would have trained another network."""
    old, new = begun.to_plain("train"), now.to_plain("train")
    # A default that was lowered for a small data set is no change, because it is lowered again.
    free = FREE if "num_val" in now.train.model_fields_set else FREE | {"num_val"}
    changed = [key for key in sorted(old | new) if key not in free and old.get(key) != new.get(key)]
    if newest and now.train.num_epochs < begun.train.num_epochs:
        raise ConfigError(
            f"num_epochs: training in {path} was begun for {begun.train.num_epochs} epochs, expected at least as many, "
            f"got {now.train.num_epochs}"
        )
    if changed:
        changes = ", ".join(f"{key} ({old.get(key)!r} -> {new.get(key)!r})" for key in changed)
        raise ConfigError(
            f"load_ckpt: training in {path} cannot continue with another {changes}; these keys may change: "
            f"{', '.join(sorted(FREE))}"
        )
