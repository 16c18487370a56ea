"""The table of `-m val`: `results<val>.csv` beside the original's, in the original's form.

A row for each evaluated checkpoint: a leading index column, the epoch from 0, the steps since the start (`iter`), the
loss, and the accuracy in percent. In a population each worker has a table of its own, `results<val>_<w>.csv`.
"""

import csv
from pathlib import Path

from pbt.mnist.files import write_table
from pbt.mnist.results_table import alone
from pbt.mnist.tables import Row, epoch_of, percent
from pbt.mnist.tester import Tested
from pbt.runs.results import Run

HEAD = ["epoch", "iter", "val_loss", "val_acc"]


def keep_evaluation(tested: Tested, suffix: str) -> None:
    """Add an evaluation to the table of its training directory; a row of the same checkpoint is replaced.

    Args:
        tested: What was evaluated; a checkpoint that no run knows changes nothing.
        suffix: Of the table's name.
    """
    if tested.run is None:
        return
    run = Run.open(tested.run)
    report = next((report for report in run.tree.reports.values() if report.digest == tested.digest), None)
    steps = run.meta["application"].get("steps_per_epoch")
    if report is None or not steps:
        return
    tail = f"_{report.member}" if len(run.view.members) > 1 else ""
    path = tested.run / f"results{suffix}{tail}.csv"
    with alone(tested.run):
        rows = _read(path)
        rows[report.step] = [epoch_of(report.step, steps), report.step, tested.loss, percent(tested.accuracy)]
        write_table(path, (HEAD, [rows[step] for step in sorted(rows)]), indexed=True)


def _read(path: Path) -> dict[int, Row]:
    """The rows of the table by step; damaged rows are left out."""
    rows: dict[int, Row] = {}
    if path.is_file():
        for cells in csv.reader(path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]):
            if len(cells) == 1 + len(HEAD) and cells[2].isdecimal():
                rows[int(cells[2])] = cells[1:]
    return rows
