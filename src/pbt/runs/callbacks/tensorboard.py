"""Scalars for TensorBoard: every reported number and every hyperparameter of every member."""

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pbt.errors import MissingExtraError
from pbt.runs.callbacks import Callback, MemberReport, RoundEnd, RunEnd, RunStart, past
from pbt.runs.callbacks.curves import Curves, numbers, points, values

FOLDER = "tensorboard"
Scalars = Callable[[MemberReport], Iterable[tuple[str, float, int]]]
"""Maps a report to (tag, value, position on the x axis)."""


def everything(report: MemberReport) -> Iterable[tuple[str, float, int]]:
    """Score, reported numbers, points and hyperparameters against training steps, one tag per member."""
    for step, named in points(report):
        for name, value in named.items():
            yield f"{name}/member_{report.member}", value, step
    for name, value in numbers(values(report)).items():
        yield f"{name}/member_{report.member}", value, report.step


class ScalarWriter:
    """Writes scalars to an event file, synchronously.

    `tensorboardX.SummaryWriter` uses a queue and a thread; interrupted at the wrong moment, they prevent the
    interpreter from exiting.

    Raises:
        MissingExtraError: tensorboardX is not installed.
    """

    def __init__(self, folder: str) -> None:
        writer_maker()
        from tensorboardX.event_file_writer import EventsWriter

        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(Path(folder) / "events"))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Write one point of a curve."""
        from tensorboardX.proto.event_pb2 import Event as Record
        from tensorboardX.summary import scalar

        self._file.write_event(Record(wall_time=time.time(), step=step, summary=scalar(tag, value)))

    def flush(self) -> None:
        """Make everything written visible to readers."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def writer_maker() -> Callable[[str], ScalarWriter]:
    """A function that opens a writer in a folder; MissingExtraError if tensorboardX is not installed."""
    try:
        import tensorboardX  # noqa: F401 (checks that it is installed)
    except ImportError as error:
        raise MissingExtraError("TensorBoard scalars", "tensorboard") from error
    return ScalarWriter


class TensorBoard(Callback):
    """Writes scalars into a folder of the run directory, rewritten from the log on every start.

    When a member copies another with fewer training steps than its own, its curve continues under a new name,
    `score/member_3.from_round_6`, because it would run backwards.

    Args:
        scalars: The scalars of a report.
        folder: Name of the folder.

    Raises:
        MissingExtraError: tensorboardX is not installed.
    """

    def __init__(self, scalars: Scalars = everything, folder: str = FOLDER) -> None:
        self._make_writer = writer_maker()
        self._scalars = scalars
        self._folder = folder
        self._writer: ScalarWriter | None = None
        self._curves = Curves()

    def on_run_start(self, start: RunStart) -> None:
        """Write the scalars of the log."""
        self._writer, self._curves = None, Curves()
        if start.run.path is None:
            return
        folder = start.run.path / self._folder
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = self._make_writer(str(folder))
        for record in past(start.run):
            if isinstance(record, MemberReport):
                self.on_member_reported(record)

    def on_member_reported(self, report: MemberReport) -> None:
        """Write the scalars of a report."""
        if self._writer is not None:
            suffix = self._curves.suffix(report)
            for tag, value, step in self._scalars(report):
                self._writer.add_scalar(f"{tag}{suffix}", value, step)

    def on_round_end(self, end: RoundEnd) -> None:  # noqa: ARG002 (a hook's form)
        """Make the round visible to readers."""
        if self._writer is not None:
            self._writer.flush()

    def on_run_end(self, end: RunEnd) -> None:  # noqa: ARG002 (a hook's form)
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
