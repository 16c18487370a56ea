"""The screen of a single network: its epochs and checkpoints, without the words of a population."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from pbt.core.events import Event, Failed, Reported
from pbt.executors.base import Failure
from pbt.runs.engine import Engine
from pbt.runs.placement import Placement
from pbt.runs.results import Run
from pbt.terminal.progress import ProgressObserver
from pbt.terminal.tables import Column, cut, grid
from pbt.text import NONE, cell, scored

SINGLE = "single"
"""What an application records of itself where it trains one network: `{"steps_per_epoch", "validated"}`."""


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
        self._learn(engine.store.events())
        super().on_start(engine)

    def render(self) -> RenderableType:
        """The display as it is at this moment."""
        state = f"{self._moment(self._frame.done)} · {self._best()}"
        return Group(Text(self._title, style="bold"), self._bar(), Text(state, style="bold"))

    def _learn(self, events: Iterable[Event]) -> None:
        events = list(events)
        super()._learn(events)
        self._reports.update((event.round, event) for event in events if isinstance(event, Reported))

    def _moment(self, whole: int) -> str:
        report = self._reports.get(whole)
        step = 0 if report is None else report.step
        return f"epoch {_epoch(step, self._steps_per_epoch)}, step {step:,}"

    def _best(self) -> str:
        newest = self._reports.get(max(self._reports, default=0))
        if newest is None:
            return "no checkpoint yet"
        text = f"training loss {cell(newest.reported['train_loss'])}"
        best = max(self._reports.values(), key=lambda report: report.scores[0])
        if not self._validated:
            return text
        now, epoch = scored(newest.scores[0]), _epoch(best.step, self._steps_per_epoch)
        return f"{text}, {self._score} {now} · best {scored(best.scores[0])} after epoch {epoch}"

    def _print_failure(self, failed: Failed | Failure) -> None:
        if self._show:
            self._print(f"training failed after {self._moment(failed.round - 1)}: {failed.message}", "red")


def checkpoints_table(run: Run, single: Mapping[str, Any], *, score: str, title: str, width: int, limit: int) -> Group:
    """The checkpoints of a run, of each epoch the last; of many only the first and the last ones."""
    steps = int(single["steps_per_epoch"])
    reports = _last_of_epochs(list(run.tree.reports.values()), steps)
    top, bottom = cut(len(reports), limit)
    shown = [*reports[:top], *reports[len(reports) - bottom :]]
    columns = [
        Column(title="epoch", cells=[_epoch(report.step, steps) for report in shown]),
        Column(title="step", cells=[f"{report.step:,}" for report in shown]),
        Column(title="training loss", cells=[cell(report.reported["train_loss"]) for report in shown]),
    ]
    if single["validated"]:
        columns.append(Column(title=score, cells=[scored(report.scores[0]) for report in shown]))
    for name in run.space:
        cells = [cell(run.tree.hparams(report.member, report.round).get(name), name) for report in shown]
        columns.append(Column(title=name, cells=cells or [NONE], optional=True))
    if bottom:
        for column in columns:
            column.cells.insert(top, "")
        columns[0].cells[top], columns[1].cells[top] = "…", f"{len(reports) - top - bottom} more"
    return grid(title, columns, width, ["dim" if bottom and i == top else "" for i in range(len(columns[0].cells))])


def chosen(run: Run, single: Mapping[str, Any], score: str) -> str:
    """The checkpoint that counts: the best by validation, or the newest where nothing is held out."""
    best, steps = run.best, int(single["steps_per_epoch"])
    when = f"after epoch {_epoch(best.step, steps)} (step {best.step:,})"
    if not single["validated"]:
        return f"Newest checkpoint: {when}; nothing was held out to choose one by"
    return f"Best checkpoint: {when}, {score} {scored(best.score)}"


def _last_of_epochs(reports: Sequence[Reported], steps: int) -> list[Reported]:
    last = {(report.step - 1) // steps: report for report in reports}
    return list(last.values())


def _epoch(step: int, steps_per_epoch: int) -> str:
    """Epochs of training, whole or with one or two decimals."""
    return f"{step / steps_per_epoch:.2f}".rstrip("0").rstrip(".")
