"""Training from a configuration: one network, or a population of them.

A single network is a population of one that copies nothing and follows a fixed learning rate schedule. Both are runs
like any other: durable after every round or checkpoint, and resumed with the same bits.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pbt.core.exploit import never, truncation
from pbt.core.explore import follow, perturb
from pbt.core.strategy import Plan
from pbt.domains import Float
from pbt.errors import ConfigError, MissingExtraError, PopulationLostError, RunError
from pbt.mnist.beginning import KeepsStart, Weights, pretrained, started
from pbt.mnist.config.record import Config
from pbt.mnist.data.find import Dataset
from pbt.mnist.files import Recorded, RunFiles
from pbt.mnist.models import Shape
from pbt.mnist.placement import placement_of
from pbt.mnist.plots import plot_results, plot_schedule
from pbt.mnist.recorded import POPULATION, SINGLE
from pbt.mnist.scalars import scalars
from pbt.mnist.schedules import Checkpoints, copied_share, halved, lr_schedule
from pbt.mnist.tables import write
from pbt.mnist.task import check_batches, check_same, find_data, space, steps_per_epoch, supervised, with_num_val
from pbt.runs.catalog import opened
from pbt.runs.engine import Observer
from pbt.runs.experiment import Experiment
from pbt.runs.placement import EXECUTORS, Placement
from pbt.runs.results import Run
from pbt.space import Space
from pbt.terminal.exit import print_error
from pbt.terminal.single import SINGLE as SINGLE_SCREEN

log = logging.getLogger("pbt")

POPULATION_FILES = {
    "history.csv": "every worker after every session: test accuracy, hyperparameters, copies",
    "members.csv": "the same with all other measurements: validation, losses, seconds",
    "rounds.csv": "the population after every round",
    "results.png": "every worker and epoch over the hyperparameters, colored by test accuracy",
    "lr.png": "the learning rate schedules: the best network's, and every worker's",
    "best/": "the chosen network and its schedule",
    "ckpts/": "the newest and the best checkpoint of each worker",
    "tensorboard/": "scalars for TensorBoard",
}
"""Descriptions of the files of a population, shown by the summary of a run."""
SINGLE_FILES = {
    "checkpoints.csv": "all measurements of every checkpoint",
    "results.csv": "test loss and accuracy of the checkpoints that were tested",
    "loss_summary.csv": "losses at every checkpoint",
    "ckpts/": "the newest checkpoint, and the one that validation chose",
    "tensorboard/": "scalars for TensorBoard",
}
"""The same for a single network."""
NEWEST, NEWEST_OF_EACH = "the newest checkpoint", "the newest checkpoint of each worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A run whose configuration, data and placement are resolved.

    Args:
        config: The configuration; without evolving hyperparameters it is that of a single network.
        data: The data set.
        placement: The placement.
        debug: Leave out tables, figures, scalars and best checkpoints.
        weights: Initial weights of a single network. Default: it is initialized at random.
    """

    config: Config
    data: Dataset
    placement: Placement
    debug: bool = False
    weights: Weights | None = None

    @property
    def is_single(self) -> bool:
        """Whether it trains one network."""
        return not self.config.evolving

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of an epoch."""
        return steps_per_epoch(self.config, self.data)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoint steps of a single network."""
        return Checkpoints(self.config.train.num_iters_for_ckpt, self.steps_per_epoch)

    @property
    def rounds(self) -> int:
        """Training sessions of a population, or checkpoints of a single network."""
        train = self.config.train
        if self.is_single:
            return self.checkpoints.count(train.num_epochs)
        return -(-train.num_epochs_tot // train.num_epochs)

    @property
    def title(self) -> str:
        """Title of the live display."""
        train = self.config.train
        if self.is_single:
            return f"{train.model} network, {train.num_epochs} epochs"
        return f"{train.model} network, {train.num_worker_tot} workers, {self.rounds} rounds"

    def experiment(self) -> Experiment:
        """The experiment that the configuration describes."""
        return self._single() if self.is_single else self._population()

    def _population(self) -> Experiment:
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

    def _single(self) -> Experiment:
        train, schedule = self.config.train, lr_schedule(self.config, self.steps_per_epoch)
        task = supervised(self.config, test=False)
        if self.weights is not None:
            task = replace(task, model=pretrained(Shape.of(train, keep_prob=train.keep_prob), self.weights))
        return Experiment(
            task=task,
            space=Space({"lr": Float(train.lr / 2 ** len(schedule.segments), 2 * train.lr)}),
            plan=Plan(exploit=never(), explore=follow(schedule), interval=self.checkpoints),
            population=1,
            rounds=self.rounds,
            seed=train.seed,
            initial=[schedule.at(0)],
            placement=self.placement,
        )

    def application(self) -> dict[str, Any]:
        """The record in the run by which other commands show and resume it."""
        validated = bool(len(self.data.val_y))
        record = {
            "name": SINGLE if self.is_single else POPULATION,
            "config": self.config.to_dict(),
            "debug": self.debug,
            "note": self.data.note,
            "steps_per_epoch": self.steps_per_epoch,
            "score": "validation accuracy" if validated else "steps",
        }
        if not self.is_single:
            return {**record, "files": {"ckpts/": NEWEST_OF_EACH} if self.debug else POPULATION_FILES}
        files = {} if self.debug else SINGLE_FILES
        return {
            **record,
            SINGLE_SCREEN: {"steps_per_epoch": self.steps_per_epoch, "validated": validated},
            "fine_tuned": self.weights is not None,
            "files": files if files and validated else {**files, "ckpts/": NEWEST},
        }

    def train(self, path: Path, *, resume: bool, observers: Sequence[Observer] = ()) -> Run:
        """Train to the end and write every file.

        Args:
            path: The run directory.
            resume: Resume the run in `path`.
            observers: Further observers of the run.

        Raises:
            DataError: The run was started with other data.
            PopulationLostError: Training cannot continue, for example because the loss is not finite.
        """
        if resume:
            check_same(self.data, path)
        application = self.application()
        files = [
            Recorded(application),
            *([] if self.weights is None else [KeepsStart(self.weights)]),
            RunFiles(self.config, self.steps_per_epoch, self.data.note, debug=self.debug),
            *([] if self.debug else scalars(self.steps_per_epoch, alone=self.is_single)),
        ]
        try:
            run = self.experiment().run(path, resume=resume, observers=[*files, *observers], application=application)
        except PopulationLostError as error:
            if not self.is_single:
                raise
            raise _failed(path, self.steps_per_epoch) from error.__cause__
        if not (self.debug or self.is_single):
            finish(run, self.steps_per_epoch, self.data.note)
        return run


def _failed(path: Path, steps_per_epoch: int) -> PopulationLostError:
    """The error of a single network that cannot be trained on, in epochs."""
    with opened(path) as (run, _):
        step = max((report.step for report in run.tree.reports.values()), default=0)
        (failed, *_) = run.tree.failures.values()
    return PopulationLostError(
        f"training failed after epoch {step / steps_per_epoch:.3g} (step {step:,}): {failed.message}"
    )


def prepare(
    config: Config,
    placement: Placement,
    *,
    debug: bool = False,
    weights: Weights | None = None,
    progress: Any = None,
) -> PreparedRun:
    """Find the data, and check everything that can be checked before the start.

    Args:
        config: The configuration; without evolving hyperparameters it is that of a single network.
        placement: The placement.
        debug: Leave out tables, figures, scalars and best checkpoints.
        weights: Initial weights of a single network. Default: it is initialized at random.
        progress: Called with file name, bytes so far and bytes in all while data is downloaded.

    Raises:
        ConfigError: A population has no held-out images to select by, or the batch size does not fit the data.
        DataError: The data is damaged.
    """
    if config.evolving and config.train.num_val == 0:
        raise ConfigError("num_val: expected images held out to select members by, found 0; the test set never selects")
    found = find_data(config.train, progress)
    check_batches(config, found)
    return PreparedRun(
        config=with_num_val(config, found), data=found, placement=placement, debug=debug, weights=weights
    )


def resume(
    path: Path, *, rounds: int | None = None, placement: Placement | None = None, observers: Sequence[Observer] = ()
) -> Run:
    """Resume a run of this application from its own record.

    Args:
        path: The run directory.
        rounds: Training sessions in all, to extend a population. Default: as many as it has.
        placement: The placement. Default: the recorded one.
        observers: Further observers of the run.

    Raises:
        ConfigError: `rounds` was given for a single network, which is extended by its epochs.
    """
    with opened(path) as (run, _):
        meta = run.meta
    application = meta["application"]
    config, weights = Config.from_dict(application["config"]), None
    if config.evolving:
        config = _extended(config, max(rounds or 0, meta["rounds"]))
        placement = placement or _recorded_placement(config, meta["place"])
    elif rounds is not None:
        raise ConfigError("--rounds: expected none for a single network; set num_epochs and load_ckpt, and run main.py")
    else:
        placement, weights = placement or Placement(executor="inline"), started(path)
    prepared = prepare(config, placement, debug=application["debug"], weights=weights)
    if prepared.rounds < meta["rounds"] and prepared.is_single:
        # Interrupted while it was extended: the log has the new number of checkpoints, the record the old epochs.
        epochs = meta["rounds"] // prepared.checkpoints.count(1)
        prepared = replace(prepared, config=config.changed(num_epochs=epochs))
    print_error(f"data: {prepared.data.line}")
    return prepared.train(path, resume=True, observers=observers)


def _recorded_placement(config: Config, place: dict[str, Any]) -> Placement:
    return placement_of(
        config,
        device="cpu" if place["device"] == "cpu" else None,
        executor=place["executor"] if place["executor"] in EXECUTORS else None,
    )


def _extended(config: Config, rounds: int) -> Config:
    """The configuration of a population that is trained for `rounds` sessions."""
    train = config.train
    if rounds * train.num_epochs < train.num_epochs_tot + train.num_epochs:
        return config
    return config.changed(num_epochs_tot=rounds * train.num_epochs)


def finish(run: Run, steps_per_epoch: int, note: str) -> None:
    """Write the figures of a finished population, and the schedule of its best network."""
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
