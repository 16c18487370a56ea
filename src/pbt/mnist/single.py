"""One network, trained in the ordinary way: a population of one that never copies and follows a fixed schedule.

Being a run like any other, it is durable checkpoint by checkpoint and resumes with the same bits.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pbt.core.exploit import never
from pbt.core.explore import follow
from pbt.core.schedule import Schedule, Segment
from pbt.core.strategy import Plan
from pbt.errors import ConfigError, PopulationLostError
from pbt.mnist.beginning import SINGLE, KeepsStart, Weights, pretrained, started
from pbt.mnist.config.record import Config
from pbt.mnist.data.find import Dataset
from pbt.mnist.files import Recorded
from pbt.mnist.models import Shape
from pbt.mnist.scalars import scalars
from pbt.mnist.single_files import SingleFiles
from pbt.mnist.task import check_batches, check_same, find_data, settled, steps_per_epoch, supervised
from pbt.runs.callbacks.tensorboard import FOLDER
from pbt.runs.engine import Observer
from pbt.runs.experiment import Experiment
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.space import Float, Space
from pbt.terminal.exit import print_error
from pbt.terminal.single import SINGLE as SINGLE_SCREEN

log = logging.getLogger("pbt")

APPLICATION = SINGLE

FILES = (
    ("checkpoints.csv", "everything that was measured of every checkpoint"),
    ("results.csv", "test loss and accuracy of the checkpoints that were tested"),
    ("loss_summary.csv", "losses at every checkpoint"),
    ("ckpts/", "the newest checkpoint, and the one that validation chose"),
    ("tensorboard/", "scalars for TensorBoard"),
)
"""What a run leaves for people, in words."""
DEBUG_FILES = (("ckpts/", "the newest checkpoint"),)
"""What it leaves with `--debug`."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """When a checkpoint is due: every so many steps of an epoch, and at its end.

    Args:
        every: Steps between checkpoints.
        steps_per_epoch: Training steps of an epoch.
    """

    every: int
    steps_per_epoch: int

    def __call__(self, step: int) -> int:
        """The next ready step."""
        begun = step // self.steps_per_epoch * self.steps_per_epoch
        inside = begun + ((step - begun) // self.every + 1) * self.every
        return min(inside, begun + self.steps_per_epoch)

    def count(self, epochs: int) -> int:
        """How many there are in so many epochs."""
        return epochs * -(-self.steps_per_epoch // self.every)


def lr_schedule(config: Config, steps_per_epoch: int) -> Schedule:
    """The configured learning rate, halved at the end of each epoch in `decreasing_lr_epochs`.

    It does not depend on `num_epochs`, so that training can go on for longer: the last value holds on.
    """
    edges = [0, *sorted(config.train.decreasing_lr_epochs)]
    edges.append(edges[-1] + 1)
    return Schedule(
        tuple(
            Segment(
                start=start * steps_per_epoch,
                stop=stop * steps_per_epoch,
                hparams={"lr": config.train.lr / 2**halvings},
            )
            for halvings, (start, stop) in enumerate(itertools.pairwise(edges))
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleRun:
    """The training of one network, resolved.

    Args:
        config: The configuration.
        data: The data that was found.
        placement: Where it is trained.
        debug: Leave out tables, scalars and the best checkpoint.
        weights: What the network starts with; None: it is initialized.
    """

    config: Config
    data: Dataset
    placement: Placement
    debug: bool = False
    weights: Weights | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of an epoch."""
        return steps_per_epoch(self.config, self.data)

    @property
    def checkpoints(self) -> Checkpoints:
        """When a checkpoint is due."""
        return Checkpoints(self.config.train.num_iters_for_ckpt, self.steps_per_epoch)

    def experiment(self) -> Experiment:
        """The experiment that the configuration describes."""
        schedule = lr_schedule(self.config, self.steps_per_epoch)
        lowest = self.config.train.lr / 2 ** len(schedule.segments)
        task = supervised(self.config, test=False)
        if self.weights is not None:
            shape = Shape.of(self.config.train, keep_prob=self.config.train.keep_prob)
            task = replace(task, model=pretrained(shape, self.weights))
        return Experiment(
            task=task,
            space=Space({"lr": Float(lowest, 2 * self.config.train.lr)}),
            plan=Plan(exploit=never(), explore=follow(schedule), interval=self.checkpoints),
            population=1,
            rounds=self.checkpoints.count(self.config.train.num_epochs),
            seed=self.config.train.seed,
            initial=[schedule.at(0)],
            placement=self.placement,
        )

    def application(self) -> dict[str, Any]:
        """What a run says of itself, so that other commands show it and continue it."""
        return {
            "name": APPLICATION,
            "config": self.config.to_dict(),
            "debug": self.debug,
            "score": "validation accuracy" if len(self.data.val_y) else "steps",
            "note": self.data.note,
            "steps_per_epoch": self.steps_per_epoch,
            SINGLE_SCREEN: {"steps_per_epoch": self.steps_per_epoch, "validated": bool(len(self.data.val_y))},
            "fine_tuned": self.weights is not None,
            "files": dict(DEBUG_FILES if self.debug else FILES) | ({} if len(self.data.val_y) else dict(DEBUG_FILES)),
        }

    def train(self, path: Path, *, resume: bool, observers: Sequence[Observer] = ()) -> Run:
        """Train to the end, a durable checkpoint at a time."""
        if resume:
            check_same(self.data, path)
        application = self.application()
        files = [
            Recorded(application),
            *([] if self.weights is None else [KeepsStart(self.weights)]),
            SingleFiles(self.config, self.steps_per_epoch, self.data.note, debug=self.debug),
            *([] if self.debug else scalars(self.steps_per_epoch, alone=True, folder=f"{FOLDER}/train")),
        ]
        try:
            return self.experiment().run(path, resume=resume, observers=[*files, *observers], application=application)
        except PopulationLostError as error:
            raise self._failed(path) from error.__cause__

    def _failed(self, path: Path) -> PopulationLostError:
        """The error of a training that cannot continue, in terms of epochs."""
        run = Run.open(path)
        step = max((report.step for report in run.tree.reports.values()), default=0)
        (failed, *_) = run.tree.failures.values()
        return PopulationLostError(
            f"training failed after epoch {step / self.steps_per_epoch:.3g} (step {step:,}): {failed.message}"
        )


def prepare_single(
    config: Config,
    placement: Placement,
    *,
    debug: bool = False,
    weights: Weights | None = None,
    progress: Any = None,
) -> SingleRun:
    """Find the data and check what can be checked before the start.

    Raises:
        ConfigError: Hyperparameters evolve, which takes a population, or the batch size does not fit.
        DataError: The data is damaged.
    """
    if config.evolving:
        names = ", ".join(f"PBT_{name}" for name in config.evolving)
        raise ConfigError(f"expected one network, found {names}; a population is trained by main_PBT.py")
    found = find_data(config.train, progress)
    check_batches(config, found)
    return SingleRun(config=settled(config, found), data=found, placement=placement, debug=debug, weights=weights)


def resume_single(
    path: Path, *, rounds: int | None = None, placement: Placement | None = None, observers: Sequence[Observer] = ()
) -> Run:
    """Go on with a run of this application, from what it recorded of itself.

    Raises:
        ConfigError: More rounds are asked for: a single network is extended by its epochs.
    """
    if rounds is not None:
        raise ConfigError("--rounds: expected none for a single network; set num_epochs and load_ckpt, and run main.py")
    meta = Run.open(path).meta
    application = meta["application"]
    config = Config.from_dict(application["config"])
    placement = placement or Placement(executor="inline")
    prepared = prepare_single(config, placement, debug=application["debug"], weights=started(path))
    # What stopped just when it was given more epochs has their checkpoints on record, but not yet their number.
    epochs = meta["rounds"] // prepared.checkpoints.count(1)
    if epochs > config.train.num_epochs:
        prepared = replace(prepared, config=config.changed(num_epochs=epochs))
    print_error(f"data: {prepared.data.line}")
    return prepared.train(path, resume=True, observers=observers)
