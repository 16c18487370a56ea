"""TensorBoard scalars: losses and accuracies, and each worker's loss and hyperparameters by epoch."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pbt.errors import MissingExtraError
from pbt.mnist.tables import percent
from pbt.runs.callbacks import Callbacks, MemberReport
from pbt.runs.callbacks.tensorboard import FOLDER, TensorBoard
from pbt.runs.engine import Observer

log = logging.getLogger("pbt")


@dataclass(frozen=True, slots=True)
class WorkerScalars:
    """The scalars of a report, under our tags and under the original's.

    Ours are `train_loss`, `train_acc`, `test_loss`, `test_acc` and `val_acc` against training steps, and `epoch_loss`
    and `epoch_<name>` of every hyperparameter against epochs done, in a population with `/worker_<w>` behind them;
    accuracies are shares. The original's are `loss_<w>`, `lr_<w>`, `test_loss_<w>` and `test_acc_<w>` against the epoch
    from 0, of a single network `loss` and `train_accuracy` against steps; accuracies are percentages.

    Args:
        steps_per_epoch: Training steps of an epoch.
        alone: Whether it is a single network, whose tags have no worker.
    """

    steps_per_epoch: int
    alone: bool = False

    def __call__(self, report: MemberReport) -> Iterable[tuple[str, float, int]]:
        """Yield (tag, value, step or epoch) of every scalar."""
        yield from self._ours(report)
        yield from self._original_alone(report) if self.alone else self._original(report)

    def _ours(self, report: MemberReport) -> Iterable[tuple[str, float, int]]:
        reported, tail = report.reported, "" if self.alone else f"/worker_{report.member}"
        for step, loss, accuracy in reported.get("rows", ()):
            yield f"train_loss{tail}", loss, int(step)
            yield f"train_acc{tail}", accuracy, int(step)
        for tag, name in (("test_loss", "test_loss"), ("test_acc", "test_accuracy"), ("val_acc", "val_accuracy")):
            if name in reported:
                yield f"{tag}{tail}", reported[name], report.step
        epoch, inside = divmod(report.step, self.steps_per_epoch)
        if inside:
            return  # scalars against epochs have one value for each epoch
        yield f"epoch_loss{tail}", reported["train_loss"], epoch
        for name, value in report.hparams.items():
            yield f"epoch_{name}{tail}", float(str(value)), epoch

    def _original(self, report: MemberReport) -> Iterable[tuple[str, float, int]]:
        reported, epoch = report.reported, report.first_step // self.steps_per_epoch
        yield f"loss_{report.member}", reported["train_loss"], epoch
        if "lr" in report.hparams:
            yield f"lr_{report.member}", float(str(report.hparams["lr"])), epoch
        if "test_accuracy" in reported:
            yield f"test_loss_{report.member}", reported["test_loss"], epoch
            yield f"test_acc_{report.member}", percent(reported["test_accuracy"]), epoch

    def _original_alone(self, report: MemberReport) -> Iterable[tuple[str, float, int]]:
        for step, loss, accuracy in report.reported.get("rows", ()):
            yield "loss", loss, int(step)
            yield "train_accuracy", percent(accuracy), int(step)


def scalars(steps_per_epoch: int, *, alone: bool = False, folder: str | None = None) -> Sequence[Observer]:
    """The observer that writes the scalars; none, with a notice, where tensorboardX is not installed.

    Args:
        steps_per_epoch: Training steps of an epoch.
        alone: Scalars of a single network, whose tags have no worker.
        folder: Folder in the run directory. Default: `tensorboard`, of a single network `tensorboard/train`.
    """
    folder = folder or (f"{FOLDER}/train" if alone else FOLDER)
    try:
        return [Callbacks([TensorBoard(WorkerScalars(steps_per_epoch, alone), folder)])]
    except MissingExtraError as error:
        log.info("no TensorBoard scalars: %s", error)
        return []
