"""The results of `-m test` and `-m val`, recorded in the training directory of the checkpoint.

`-m test` adds to the tables of a single network. `-m val` writes `results<val>.csv`, for a worker of a population
`results<val>_<w>.csv`, in the form of the original's tables. A row per evaluated checkpoint has a leading index column,
the epoch from 0, the steps since the start (`iter`), the loss, and the accuracy in percent.
"""

import csv
from pathlib import Path
from typing import NamedTuple

from pbt.core.events import Reported
from pbt.mnist.recorded import SINGLE
from pbt.mnist.results_table import locked, record_test
from pbt.mnist.tables import Row, epoch_of, percent, write_table
from pbt.mnist.tester import Tested
from pbt.runs.catalog import opened
from pbt.runs.results import Run

HEAD = ["epoch", "iter", "val_loss", "val_acc"]


def keep_test(tested: Tested) -> None:
    """Add a test to the tables of a single network; every state of a population was tested in training."""
    found = _evaluated(tested)
    if found is not None and found.run.meta["application"].get("name") == SINGLE:
        steps_per_epoch = found.run.meta["plan"]["interval"]["steps_per_epoch"]
        record_test(found.folder, found.report.step, tested.scores, steps_per_epoch, tested.note)


def keep_evaluation(tested: Tested, suffix: str) -> None:
    """Add an evaluation of the held-out images to its table; a row of the same checkpoint is replaced.

    Args:
        tested: The evaluation; that of a checkpoint outside any run is not recorded.
        suffix: Suffix of the table's name.
    """
    found = _evaluated(tested)
    steps_per_epoch = None if found is None else found.run.meta["application"].get("steps_per_epoch")
    if found is None or not steps_per_epoch:
        return
    tail = f"_{found.report.member}" if len(found.run.view.members) > 1 else ""
    path, step = found.folder / f"results{suffix}{tail}.csv", found.report.step
    with locked(found.folder):
        rows = _read(path)
        rows[step] = [epoch_of(step, steps_per_epoch), step, tested.loss, percent(tested.accuracy)]
        write_table(path, (HEAD, [rows[step] for step in sorted(rows)]), indexed=True)


class _Evaluated(NamedTuple):
    run: Run
    folder: Path
    report: Reported


def _evaluated(tested: Tested) -> _Evaluated | None:
    """The run of an evaluated checkpoint, and the checkpoint's report; None if no run has recorded it."""
    if tested.run is None:
        return None
    with opened(tested.run) as (run, _):
        reports = (report for report in run.tree.reports.values() if report.digest == tested.digest)
    report = next(reports, None)
    return None if report is None else _Evaluated(run, tested.run, report)


def _read(path: Path) -> dict[int, Row]:
    """The rows of the table by step; damaged rows are left out."""
    rows: dict[int, Row] = {}
    if path.is_file():
        for cells in csv.reader(path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]):
            if len(cells) == 1 + len(HEAD) and cells[2].isdecimal():
                rows[int(cells[2])] = cells[1:]
    return rows
