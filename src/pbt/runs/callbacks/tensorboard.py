"""Scalars for TensorBoard: every reported number and every hyperparameter of every member."""

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pbt.errors import MissingExtraError
from pbt.runs.callbacks import Callback, MemberReport, RoundEnd, RunEnd, RunStart, past
from pbt.runs.callbacks.curves import Curves, numbers, values

FOLDER = "tensorboard"
Scalars = Callable[[MemberReport], Iterable[tuple[str, float, int]]]
"""From a report to (tag, value, place on the x axis)."""


def everything(report: MemberReport) -> Iterable[tuple[str, float, int]]:
    """Score, reported numbers and hyperparameters against training steps, a tag per member."""
    for name, value in numbers(values(report)).items():
        yield f"{name}/member_{report.member}", value, report.step


class ScalarWriter:
    """Writes scalars to an event file in a folder, at once and in the calling thread.

    `tensorboardX.SummaryWriter` has a queue and a thread of its own; interrupted at the wrong moment, they keep the
    interpreter from ending.

    Raises:
        MissingExtraError: tensorboardX is not installed.
    """

    def __init__(self, folder: str) -> None:
        writer_maker()
        from tensorboardX.event_file_writer import EventsWriter

        Path(folder).mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(Path(folder) / "events"))

    def add_scalar(self, tag: str, value: float, place: int) -> None:
        """One point of a curve."""
        from tensorboardX.proto.event_pb2 import Event as Record
        from tensorboardX.summary import scalar

        self._file.write_event(Record(wall_time=time.time(), step=place, summary=scalar(tag, value)))

    def flush(self) -> None:
        """Let readers see what was written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def writer_maker() -> Callable[[str], ScalarWriter]:
    """What opens a writer of event files in a folder; MissingExtraError if tensorboardX is not installed."""
    try:
        import tensorboardX  # noqa: F401 (only whether it is there)
    except ImportError as error:
        raise MissingExtraError("TensorBoard scalars", "tensorboard") from error
    return ScalarWriter


class TensorBoard(Callback):
    """Writes scalars into a folder of the run directory, anew from the log whenever a run starts.

    A curve of a member that copies another with fewer training steps than its own goes on under a name of its own,
    `score/member_3.from_round_6`, because it would run backwards.

    Args:
        scalars: What to write of a report.
        folder: Its name.

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
        """Write what the log has."""
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
        """Write what was reported."""
        if self._writer is not None:
            suffix = self._curves.suffix(report)
            for tag, value, place in self._scalars(report):
                self._writer.add_scalar(f"{tag}{suffix}", value, place)

    def on_round_end(self, end: RoundEnd) -> None:  # noqa: ARG002 (a hook's form)
        """Let readers see the round."""
        if self._writer is not None:
            self._writer.flush()

    def on_run_end(self, end: RunEnd) -> None:  # noqa: ARG002 (a hook's form)
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
