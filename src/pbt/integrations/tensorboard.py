"""Scalars for TensorBoard: every reported number and every hyperparameter of every member."""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pbt.core.events import Born, Decided, Event, Reported
from pbt.engine import Engine, Observer
from pbt.errors import MissingExtraError
from pbt.space import HParams

FOLDER = "tensorboard"
Scalars = Callable[[Reported, HParams], Iterable[tuple[str, float, int]]]
"""From a report, and the values it was trained with, to (tag, value, place on the x axis)."""


def everything(report: Reported, hparams: HParams) -> Iterable[tuple[str, float, int]]:
    """Score, reported numbers and hyperparameters against training steps, a tag per member."""
    values = {"score": report.scores[0], **report.reported, **hparams}
    for name, value in values.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{name}/member_{report.member}", float(value), report.step


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
        raise MissingExtraError("TensorBoard scalars", "mnist") from error
    return ScalarWriter


class TensorBoard(Observer):
    """Writes scalars into a folder of the run directory, anew from the log whenever a run starts.

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
        # The values of each member's open round, by the time its report comes.
        self._open: dict[int, HParams] = {}

    def on_start(self, engine: Engine) -> None:
        """Write what the log has."""
        if engine.store.path is None:
            return
        folder = engine.store.path / self._folder
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = self._make_writer(str(folder))
        self.on_commit(engine, engine.store.events())

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:  # noqa: ARG002 (an observer's form)
        """Write what was reported."""
        if self._writer is None:
            return
        for event in events:
            match event:
                case Born():
                    self._open[event.member] = event.hparams
                case Decided(decision=decision):
                    self._open[decision.member] = decision.hparams
                case Reported():
                    for tag, value, place in self._scalars(event, self._open[event.member]):
                        self._writer.add_scalar(tag, value, place)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
