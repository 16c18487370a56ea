"""The tables of a single network: its epochs and checkpoints, without the words of a population."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group

from pbt.core.events import Reported
from pbt.runs.results import Run
from pbt.terminal.tables import Column, cut, grid
from pbt.text import NONE, cell, scored

SINGLE = "single"
"""What an application records of itself where it trains one network: `{"steps_per_epoch", "validated"}`."""


def checkpoints_table(run: Run, single: Mapping[str, Any], *, score: str, title: str, width: int, limit: int) -> Group:
    """The checkpoints of a run, of each epoch the last; of many only the first and the last ones."""
    steps = int(single["steps_per_epoch"])
    reports = _last_of_epochs(list(run.tree.reports.values()), steps)
    top, bottom = cut(len(reports), limit)
    shown = [*reports[:top], *reports[len(reports) - bottom :]]
    columns = [
        Column(title="epoch", cells=[epoch_of(report.step, steps) for report in shown]),
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
    when = f"after epoch {epoch_of(best.step, steps)} (step {best.step:,})"
    if not single["validated"]:
        return f"Newest checkpoint: {when}; nothing was held out to choose one by"
    return f"Best checkpoint: {when}, {score} {scored(best.score)}"


def _last_of_epochs(reports: Sequence[Reported], steps: int) -> list[Reported]:
    last = {(report.step - 1) // steps: report for report in reports}
    return list(last.values())


def epoch_of(step: int, steps_per_epoch: int) -> str:
    """Epochs of training, whole or with one or two decimals."""
    return f"{step / steps_per_epoch:.2f}".rstrip("0").rstrip(".")
