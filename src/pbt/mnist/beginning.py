"""What the training of a single network starts from: nothing, a checkpoint of a run, or another network's weights."""

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
from pbt.runs.engine import Engine, Observer
from pbt.runs.results import Run
from pbt.store.codec import digest, digest_of, encode
from pbt.store.files import read_plain, write_durable
from pbt.store.reader import RunReader
from pbt.store.sqlite import RunStore

log = logging.getLogger("pbt")

START = "start.safetensors"
"""The weights that fine-tuning began with, in `ckpts/`."""
Weights = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What `load_ckpt` asks for."""

    path: Path | None = None
    """The training directory that training continues in; None: a new one."""
    branch: "EarlierStart | None" = None
    """The earlier checkpoint that a new directory continues from."""
    weights: Weights | None = None
    """The weights of a network that is fine-tuned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierStart:
    """An earlier checkpoint of a run."""

    source: Path
    """The run directory."""
    ckpt: Path
    report: Reported
    steps_per_epoch: int

    def write(self, target: Path, rounds: int, steps_per_epoch: int) -> None:
        """Make a new run directory that has the log of the run up to the checkpoint, as if it had been stopped there.

        Args:
            target: The directory, which is not there yet.
            rounds: Checkpoints that the new run is to have in all.
            steps_per_epoch: Training steps of an epoch of the new run.

        Raises:
            ConfigError: The run had epochs of other lengths, which is to say other data.
        """
        if steps_per_epoch != self.steps_per_epoch:
            raise ConfigError(
                f"data_dir: expected the data of {self.source}, with {self.steps_per_epoch} steps an epoch, found "
                f"{steps_per_epoch}"
            )
        with RunReader(self.source) as reader:
            events, meta = reader.events(), reader.meta
        events = events[: events.index(self.report) + 1]
        files = [self.ckpt, *sorted((self.source / "ckpts").glob("*.safetensors"))]
        blobs = {digest_of(blob): blob for blob in map(read_plain, (file.resolve() for file in files))}
        with RunStore.create(target, {**meta, "rounds": rounds}) as store:
            stored: dict[StateRef, Stored] = {}
            for event in events:
                if isinstance(event, Reported) and event.digest in blobs:
                    stored[event.state] = store.states.keep(event.state, blobs[event.digest], event.digest)
            # The states between are gone from the run, too: they are named in the log, and forgotten at once.
            gone = {
                event.state: Stored(digest=event.digest, size=0, blob=b"")
                for event in events
                if isinstance(event, Reported) and event.state not in stored
            }
            store.commit(events, stored | gone)
            store.sweep(stored.keys())
            store.note("branched", source=str(self.source), step=self.report.step)


class KeepsStart(Observer):
    """Keeps the weights that fine-tuning begins with, for a run that stops before its first checkpoint."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def on_start(self, engine: Engine) -> None:
        """Write them, once."""
        path = folder_of(engine) / "ckpts" / START
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_durable(path, encode({"model": dict(self._weights)}))


def beginning(config: Config) -> Beginning:
    """What `load_ckpt` asks training to start from.

    The newest checkpoint of a single network's run continues in its directory. An earlier one, such as the best,
    continues from there in a new directory. A model file, a worker's checkpoint or any other network of the same shape
    is fine-tuned: its weights, from epoch 0.

    Raises:
        ConfigError: There is no such file; it is another network's; or the run cannot continue with this configuration.
        CorruptError: It is damaged, or something else than a checkpoint.
    """
    if not config.train.load_ckpt:
        return Beginning()
    wanted = Path(config.train.load_ckpt)
    state = load_checkpoint(wanted)
    path = wanted.resolve().parent.parent
    if (path / "run.db").is_file():
        run = Run.open(path)
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
    """The weights that the run of a training directory was fine-tuned from; None: it was not."""
    file = path / "ckpts" / START
    return load_checkpoint(file)["model"] if file.is_file() else None


def pretrained(shape: Shape, weights: Weights) -> Any:
    """What makes the network with these weights, as a task needs it."""
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
    """Refuse to continue a run with a configuration that would have made another network."""
    old, new = begun.to_plain("train"), now.to_plain("train")
    # A default that was lowered for a small data set is no change: it is lowered again.
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
