"""The table of `-m val`: `results<val>.csv` beside the original's, in the original's form.

A row for each evaluated checkpoint: a leading index column, the epoch from 0, the steps since the start (`iter`), the
loss, and the accuracy in percent. In a population each worker has a table of its own, `results<val>_<w>.csv`.
"""

import csv
import io
from pathlib import Path

from pbt.mnist.files import write
from pbt.mnist.results_table import alone
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
    values = {"val_loss": tested.loss, "val_acc": 100 * tested.accuracy}
    with alone(tested.run):
        rows = _read(path)
        rows[report.step] = [str((report.step - 1) // steps), str(report.step), *map(str, values.values())]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["", *HEAD])
        writer.writerows([index, *rows[step]] for index, step in enumerate(sorted(rows)))
        write(path, text.getvalue())


def _read(path: Path) -> dict[int, list[str]]:
    """The rows of the table by their steps; what cannot be read is written anew."""
    rows: dict[int, list[str]] = {}
    if path.is_file():
        for cells in csv.reader(path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]):
            if len(cells) == 1 + len(HEAD) and cells[2].isdecimal():
                rows[int(cells[2])] = cells[1:]
    return rows
