"""What the original shows in TensorBoard: losses and accuracies, and each worker's loss and learning rate."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pbt.errors import MissingExtraError
from pbt.runs.callbacks import Callbacks, MemberReport
from pbt.runs.callbacks.tensorboard import FOLDER, TensorBoard
from pbt.runs.engine import Observer

log = logging.getLogger("pbt")


@dataclass(frozen=True, slots=True)
class WorkerScalars:
    """Scalars of one report; losses and accuracies against steps, the rest against epochs.

    Args:
        steps_per_epoch: Training steps of an epoch.
        alone: There is one network only, whose tags need no worker.
    """

    steps_per_epoch: int
    alone: bool = False

    def __call__(self, report: MemberReport) -> Iterable[tuple[str, float, int]]:
        """(tag, value, place) of everything that is shown."""
        said, tail = report.reported, "" if self.alone else f"/worker_{report.member}"
        for step, loss, accuracy in said.get("rows", ()):
            yield f"train_loss{tail}", loss, int(step)
            yield f"train_acc{tail}", accuracy, int(step)
        for tag, name in (("test_loss", "test_loss"), ("test_acc", "test_accuracy"), ("val_acc", "val_accuracy")):
            if name in said:
                yield f"{tag}{tail}", said[name], report.step
        epoch, inside = divmod(report.step, self.steps_per_epoch)
        if inside:
            return  # what is shown against epochs has one value for each
        yield f"epoch_loss{tail}", said["train_loss"], epoch
        for name, value in report.hparams.items():
            yield f"epoch_{name}{tail}", float(str(value)), epoch


def scalars(steps_per_epoch: int, *, alone: bool = False, folder: str = FOLDER) -> Sequence[Observer]:
    """An observer that writes them; none, and a notice, where tensorboardX is not installed."""
    try:
        return [Callbacks([TensorBoard(WorkerScalars(steps_per_epoch, alone), folder)])]
    except MissingExtraError as error:
        log.info("no TensorBoard scalars: %s", error)
        return []
