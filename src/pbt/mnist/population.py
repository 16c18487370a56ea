"""Population based training of the MNIST networks: from a configuration to a run with all its files."""

import functools
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import MultiStepLR

from pbt.core.exploit import truncation
from pbt.core.explore import perturb
from pbt.core.strategy import Plan
from pbt.errors import ConfigError, MissingExtraError, RunError
from pbt.executors.ray import Cluster
from pbt.mnist.config.record import Config
from pbt.mnist.data.find import Dataset
from pbt.mnist.files import Recorded, RunFiles, write
from pbt.mnist.plots import plot_results, plot_schedule
from pbt.mnist.scalars import scalars
from pbt.mnist.task import check_batches, check_same, find_data, settled, space, steps_per_epoch, supervised
from pbt.pytorch import SupervisedTask
from pbt.runs.engine import Observer
from pbt.runs.experiment import Experiment
from pbt.runs.placement import EXECUTORS, Placement
from pbt.runs.results import Run
from pbt.terminal.exit import print_error

log = logging.getLogger("pbt")

APPLICATION = "mnist"
FILES = (
    ("history.csv", "every worker after every session: test accuracy, hyperparameters, copies"),
    ("members.csv", "the same with everything else that was measured: validation, losses, seconds"),
    ("rounds.csv", "the population after every round"),
    ("results.png", "every worker and epoch over the hyperparameters, colored by test accuracy"),
    ("lr.png", "the learning rate schedules: the best network's, and every worker's"),
    ("best/", "the chosen network and its schedule"),
    ("ckpts/", "the newest and the best checkpoint of each worker"),
    ("tensorboard/", "scalars for TensorBoard"),
)
"""What a run leaves for people, in words."""
DEBUG_FILES = (("ckpts/", "the newest checkpoint of each worker"),)
"""What it leaves with `--debug`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationRun:
    """A population run, resolved: what will be trained on which data, and where.

    Args:
        config: The configuration.
        data: The data that was found.
        placement: Where it is trained.
        debug: Leave out tables, figures, scalars and best checkpoints.
    """

    config: Config
    data: Dataset
    placement: Placement
    debug: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of an epoch."""
        return steps_per_epoch(self.config, self.data)

    @property
    def rounds(self) -> int:
        """Training sessions that make up all epochs."""
        train = self.config.train
        return -(-train.num_epochs_tot // train.num_epochs)

    def experiment(self) -> Experiment:
        """The experiment that the configuration describes."""
        train = self.config.train
        return Experiment(
            task=halved(supervised(self.config), self.config, self.steps_per_epoch),
            space=space(self.config),
            plan=Plan(
                exploit=truncation(copied_share(train.exploit_fraction, train.num_worker_tot)),
                explore=perturb(train.mutation),
                interval=self.steps_per_epoch * train.num_epochs,
            ),
            population=train.num_worker_tot,
            rounds=self.rounds,
            seed=train.seed,
            placement=self.placement,
        )

    def train(self, path: Path, *, resume: bool, observers: Sequence[Observer] = ()) -> Run:
        """Train to the end, and leave every file behind.

        Args:
            path: The run directory.
            resume: Go on with what is there.
            observers: Who watches.
        """
        if resume:
            check_same(self.data, path)
        application = {
            "name": APPLICATION,
            "config": self.config.to_dict(),
            "debug": self.debug,
            "note": self.data.note,
            "steps_per_epoch": self.steps_per_epoch,
            "score": "validation accuracy",
            "files": dict(DEBUG_FILES if self.debug else FILES),
        }
        files = [
            Recorded(application),
            RunFiles(self.config, self.steps_per_epoch, self.data.note, debug=self.debug),
            *([] if self.debug else scalars(self.steps_per_epoch)),
        ]
        run = self.experiment().run(path, resume=resume, observers=[*files, *observers], application=application)
        if not self.debug:
            finish(run, self.steps_per_epoch, self.data.note)
        return run


def halved(task: SupervisedTask, config: Config, steps_per_epoch: int) -> SupervisedTask:
    """The task of a population, with its learning rate halved where the configuration says so."""
    epochs = config.train.decreasing_lr_epochs
    return replace(task, scheduler=halving(epochs, steps_per_epoch)) if epochs else task


def copied_share(fraction: float, population: int) -> float:
    """The share of a population that `truncation` replaces so that the original's number of workers is.

    The original rounds up, `ceil(n / 5)`; `truncation` by itself rounds down.

    Args:
        fraction: The configured share, 0 to 0.5.
        population: Workers, at least 1.

    Returns:
        The number that is replaced, at most half of the workers, divided by all of them.
    """
    # 0.2 * 15 is 3.0000000000000004: three are meant.
    return min(math.ceil(fraction * population - 1e-9), population // 2) / population


def halving(epochs: Sequence[int], steps_per_epoch: int) -> Callable[[Optimizer], MultiStepLR]:
    """Makes a scheduler that halves the learning rate at the end of each of the epochs; stepped after every step."""
    milestones = [epoch * steps_per_epoch for epoch in sorted(epochs)]
    return functools.partial(MultiStepLR, milestones=milestones, gamma=0.5)


def prepare(config: Config, placement: Placement, *, debug: bool = False, progress: Any = None) -> PopulationRun:
    """Find the data and check what can be checked before the start.

    Raises:
        ConfigError: No hyperparameter evolves, nothing is held out to select by, or the batch size does not fit.
        DataError: The data is damaged.
    """
    if not config.evolving:
        raise ConfigError(
            'expected at least one PBT_<name> key, as "PBT_lr": "0.1,0.0001", found none; '
            "a single network is trained by main.py"
        )
    if config.train.num_val == 0:
        raise ConfigError("num_val: expected images held out to select members by, found 0; the test set never selects")
    found = find_data(config.train, progress)
    check_batches(config, found)
    return PopulationRun(config=settled(config, found), data=found, placement=placement, debug=debug)


def placement_of(
    config: Config, *, device: str | None = None, executor: str | None = None, address: str | None = None
) -> Placement:
    """Where a configuration's run is trained, with a notice where it is not as asked.

    Args:
        config: Its `gpus` and `num_workers_paral` are upper bounds: what is not there is not used.
        device: From the command line; must be there.
        executor: From the command line.
        address: Of the Ray cluster, from the command line.

    Raises:
        DeviceError: The device from the command line is not there.
    """
    train = config.train
    wanted = executor or train.executor
    if wanted == "ray":
        return placement_on_ray(config, Cluster(address=address), device, train.num_workers_paral)
    asked = Placement(threads=train.threads, device=device if device is not None else gpus_of(train.gpus))
    resolved = replace(asked, executor="processes").resolve(train.num_worker_tot)
    slots = min(train.num_workers_paral, len(resolved.devices))
    if wanted == "processes" and slots < train.num_workers_paral:
        log.info(
            "num_workers_paral is %d: %d of them train at a time, on %s",
            train.num_workers_paral,
            slots,
            ", ".join(dict.fromkeys(resolved.devices)),
        )
    if train.num_workers_paral < train.num_worker_tot:
        return replace(
            asked, executor=wanted, workers=slots, members_per_program=max(1, train.num_workers_paral // slots)
        )
    return replace(asked, executor=wanted, workers=slots if wanted == "processes" else None)


def placement_on_ray(config: Config, cluster: Cluster, device: str | None, workers: int) -> Placement:
    """So many actors at most, which share the GPUs that `gpus` names, wherever those are."""
    train = config.train
    if cluster.where is None and device is None:
        device = gpus_of(train.gpus)  # of this machine, with a notice if they are not there
    count = 0 if device == "cpu" else len(device.split(",")) if device else len(train.gpus)
    share = min(1.0, math.floor(10_000 * count / workers) / 10_000)  # Ray counts no smaller parts
    return Placement(
        executor="ray",
        workers=workers,
        threads=train.threads,
        cluster=replace(cluster, cpus=max(1.0, float(train.threads or 1)), gpus=share),
    )


def resume(
    path: Path, *, rounds: int | None = None, placement: Placement | None = None, observers: Sequence[Observer] = ()
) -> Run:
    """Go on with a population run of this application, from what it recorded of itself, where it was begun.

    Args:
        path: The run directory.
        rounds: Training sessions in all, to extend it; None: as many as it has.
        placement: Where it is trained; None: where it was begun.
        observers: Who watches.
    """
    meta = Run.open(path).meta
    application, begun = meta["application"], meta["place"]
    config = _extended(Config.from_dict(application["config"]), max(rounds or 0, meta["rounds"]))
    if placement is None:
        placement = placement_of(
            config,
            device="cpu" if begun["device"] == "cpu" else None,
            executor=begun["executor"] if begun["executor"] in EXECUTORS else None,
        )
    prepared = prepare(config, placement, debug=application["debug"])
    print_error(f"data: {prepared.data.line}")
    return prepared.train(path, resume=True, observers=observers)


def _extended(config: Config, rounds: int) -> Config:
    """The configuration of a run that was given so many training sessions."""
    train = config.train
    if rounds * train.num_epochs < train.num_epochs_tot + train.num_epochs:
        return config
    return config.changed(num_epochs_tot=rounds * train.num_epochs)


def finish(run: Run, steps_per_epoch: int, note: str) -> None:
    """The figures, and the best network with its schedule, from a run that is over."""
    if run.path is None:
        raise RunError("expected a run that is kept in a directory")
    path = run.path
    try:
        if "test_accuracy" in run.best.reported:
            plot_results(run, steps_per_epoch, path / "results.png", note)
        else:
            log.info("no results.png: it shows test accuracies, and test.version is test_none")
        for name in run.space:
            plot_schedule(run, name, steps_per_epoch, path / f"{name}.png", note)
    except MissingExtraError as error:
        log.warning("no figures: %s", error)
    write(path / "best" / "schedule.json", json.dumps(_card(run, steps_per_epoch, note), indent=2) + "\n")


def _card(run: Run, steps_per_epoch: int, note: str) -> dict[str, Any]:
    best = run.best
    return {
        "worker": best.member,
        "epoch": best.step / steps_per_epoch,
        "val_acc": best.score,
        "test_acc": best.reported.get("test_accuracy", -1),
        "steps_per_epoch": steps_per_epoch,
        "data": note or "MNIST",
        **run.best_schedule.to_dict(),
    }


def gpus_of(gpus: Sequence[int]) -> str:
    """The devices that a `gpus` key comes to on this machine, joined by commas; a notice where they are not as named.

    The named GPUs that exist; where none of them does, as many others as were named; without any GPU, and for an empty
    key, the CPU.
    """
    import torch

    if not gpus:
        return "cpu"
    there = torch.cuda.device_count()
    found = [gpu for gpu in gpus if gpu < there] or list(range(there))[: len(gpus)]
    devices = ",".join(f"cuda:{gpu}" for gpu in found)
    if found != list(gpus):
        log.info(
            "gpus is %s: %s",
            ",".join(map(str, gpus)),
            f"using {devices}" if devices else "none is there, using the CPU",
        )
    return devices or "cpu"


def gpu_of(gpus: Sequence[int]) -> str:
    """The one device that a single network or an evaluation uses of a `gpus` key; a notice where several are named.

    The original's DataParallel splits each batch of 200 small images over the devices and copies the weights to all of
    them in every step, which takes longer than the step itself.
    """
    device, *others = gpus_of(gpus).split(",")
    if others:
        log.info("gpus: one network of this size is faster on one device than on several; using %s", device)
    return device
