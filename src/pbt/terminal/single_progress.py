"""The progress display of a single network."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pbt.core.events import Event, Failed, Reported
from pbt.executors.base import Failure
from pbt.runs.engine import Engine
from pbt.runs.placement import Placement
from pbt.terminal.progress import ProgressObserver
from pbt.terminal.single import SINGLE, epoch_of
from pbt.text import cell, scored


def progress_of(
    application: Mapping[str, Any], *, show: bool, title: str, note: str, score: str, placement: Placement | None
) -> ProgressObserver:
    """What shows a run of an application while it trains."""
    single = application.get(SINGLE)
    if single is None:
        return ProgressObserver(show=show, title=title, note=note, score=score, placement=placement)
    return TrainingObserver(single, show=show, title=title, note=note, score=score, placement=placement)


class TrainingObserver(ProgressObserver):
    """Shows how one network trains.

    Args:
        single: What its application recorded (`SINGLE`).
        how: As for a population.
    """

    _unit = "checkpoints"

    def __init__(self, single: Mapping[str, Any], **how: Any) -> None:
        super().__init__(**how)
        self._steps_per_epoch = int(single["steps_per_epoch"])
        self._validated = bool(single["validated"])
        self._reports: dict[int, Reported] = {}

    def on_start(self, engine: Engine) -> None:
        """Take up what is there, and begin to show."""
        self._learn(engine.history())
        super().on_start(engine)

    def render(self) -> RenderableType:
        """The display as it is at this moment."""
        state = f"{self._moment(self._frame.done)} · {self._best()}"
        return Group(Text(self._title, style="bold"), self._bar(), Text(state, style="bold"))

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Take up the new checkpoints."""
        self._learn(events)
        super().on_commit(engine, events)

    def _learn(self, events: Iterable[Event]) -> None:
        self._reports.update((event.round, event) for event in events if isinstance(event, Reported))

    def _moment(self, whole: int) -> str:
        report = self._reports.get(whole)
        step = 0 if report is None else report.step
        return f"epoch {epoch_of(step, self._steps_per_epoch)}, step {step:,}"

    def _best(self) -> str:
        newest = self._reports.get(max(self._reports, default=0))
        if newest is None:
            return "no checkpoint yet"
        text = f"training loss {cell(newest.reported['train_loss'])}"
        best = max(self._reports.values(), key=lambda report: report.scores[0])
        if not self._validated:
            return text
        now, epoch = scored(newest.scores[0]), epoch_of(best.step, self._steps_per_epoch)
        return f"{text}, {self._score} {now} · best {scored(best.scores[0])} after epoch {epoch}"

    def _print_failure(self, failed: Failed | Failure) -> None:
        if self._show:
            self._print(f"training failed after {self._moment(failed.round - 1)}: {failed.message}", "red")
