"""The tables of a run: the original's to the letter, further ones of a population, and their CSV files.

The original's files are read by `pandas.read_csv(path, index_col=0)`: the first column is an index without a name,
epochs count from 0, `iter` counts all training steps, accuracies are percentages, -1 stands for a missing value, and
there are no other columns and no comments. `members.csv` and `rounds.csv` use the log's units: shares, and empty cells
for missing values.
"""

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbt.core.events import Decision, Event, Failed, Reported
from pbt.core.history import RunHistory
from pbt.space import HParams
from pbt.store.base import JournalEntry
from pbt.store.durable import replacing

Row = Sequence[Any]
Table = tuple[Row, list[Row]]
"""The names of the columns, and the rows."""

MISSING = -1
"""The original's value for a missing one."""
MNIST = "MNIST"
"""Name of the data without a note."""
RESULTS = ("epoch", "iter", "test_loss", "test_acc")
LOSSES = ("epoch", "iter", "train_loss", "test_loss")
MEASURES = ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_accuracy", "train_loss")
"""The measurements of every network, by their names in the log."""


def percent(share: float | None) -> float:
    """A share as a percentage without rounding errors: 0.9457 is 94.57; -1 if missing."""
    return MISSING if share is None else round(100 * share, 9)


def epoch_of(step: int, steps_per_epoch: int) -> int:
    """The epoch, from 0, of a training step, from 1."""
    return (step - 1) // steps_per_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A training session of a worker: one of its rounds."""

    worker: int
    round: int
    first_step: int
    step: int
    """Training steps at its end, also if it failed before."""
    hparams: HParams
    decision: Decision | None
    """The decision before it; None for the first session."""
    report: Reported | None
    """Its report; None if it failed."""
    seconds: float | None
    """Seconds of training and evaluation; None if not recorded."""

    @property
    def measured(self) -> Mapping[str, Any]:
        """The reported numbers; empty if the session failed."""
        return {} if self.report is None else self.report.reported

    @property
    def donor(self) -> int | None:
        """The worker whose state was copied; None without a copy."""
        return None if self.decision is None else self.decision.donor


def sessions(
    events: Iterable[Event], journal: Iterable[JournalEntry], next_ready: Callable[[int], int]
) -> list[Session]:
    """All sessions that ended, by round and worker.

    Args:
        events: The log.
        journal: The journal, which has the times.
        next_ready: Returns the last step of a session for its first.
    """
    events = list(events)
    tree, seconds = RunHistory(events), seconds_of(journal)
    found = []
    for event in (event for event in events if isinstance(event, Reported | Failed)):
        decision = tree.decisions.get((event.member, event.round))
        first = decision.step if decision is not None else tree.births[event.member].step
        report = event if isinstance(event, Reported) else None
        found.append(
            Session(
                worker=event.member,
                round=event.round,
                first_step=first,
                step=next_ready(first) if report is None else report.step,
                hparams=tree.hparams(event.member, event.round),
                decision=decision,
                report=report,
                seconds=seconds.get((event.member, event.round)),
            )
        )
    return sorted(found, key=lambda session: (session.round, session.worker))


def seconds_of(journal: Iterable[JournalEntry]) -> dict[tuple[int, int], float]:
    """The seconds of each member's round."""
    notes = (entry.details for entry in journal if entry.kind == "round")
    return {(note["member"], note["round"]): note["seconds"] for note in notes}


def history(found: Iterable[Session], names: Sequence[str], steps_per_epoch: int) -> Table:
    """`history.csv`: every worker after every session, with the first epoch of the session."""
    head = ["worker", "epoch", "iter", "test_acc", *names, *(f"mutation_{name}" for name in names), "copied_from_w"]
    rows: list[Row] = []
    for session in found:
        draws = {} if session.decision is None else session.decision.draws
        rows.append(
            [
                session.worker,
                session.first_step // steps_per_epoch,
                session.step,
                percent(session.measured.get("test_accuracy")),
                *(session.hparams[name] for name in names),
                *(draws.get(name, MISSING) for name in names),
                MISSING if session.donor is None else session.donor,
            ]
        )
    return head, rows


def results(own: Iterable[Session], steps_per_epoch: int) -> Table:
    """`results_<w>.csv`: the tests of one worker, with the first epoch of each session."""
    rows: list[Row] = [
        [
            session.first_step // steps_per_epoch,
            session.step,
            session.measured.get("test_loss", MISSING),
            percent(session.measured.get("test_accuracy")),
        ]
        for session in own
        if session.report is not None
    ]
    return RESULTS, rows


def losses(own: Iterable[Session], steps_per_epoch: int) -> Table:
    """`loss_summary_<w>.csv`: the mean training loss of each epoch; only the last one of a session is tested."""
    rows: list[Row] = []
    for session in own:
        if session.report is None:
            continue
        means = _epoch_means(session, steps_per_epoch)
        for epoch, mean in means.items():
            last = (epoch + 1) * steps_per_epoch
            tested = session.measured.get("test_loss", MISSING) if last == session.step else MISSING
            # A session of one epoch has its own mean, equal to that of the other tables to the last digit.
            rows.append([epoch, last, mean if len(means) > 1 else session.measured["train_loss"], tested])
    return LOSSES, rows


def _epoch_means(session: Session, steps_per_epoch: int) -> dict[int, float]:
    totals: dict[int, float] = {}
    before = session.first_step
    for step, loss, _ in session.measured["rows"]:
        epoch = epoch_of(int(step), steps_per_epoch)
        totals[epoch] = totals.get(epoch, 0.0) + loss * (step - before)
        before = step
    return {epoch: total / steps_per_epoch for epoch, total in totals.items()}


def members(found: Sequence[Session], names: Sequence[str], steps_per_epoch: int, data: str) -> Table:
    """`members.csv`: all measurements of every worker after every session."""
    scalar = (name for s in found for name, value in s.measured.items() if not isinstance(value, (list, dict)))
    measures = list(dict.fromkeys((*MEASURES, *scalar)))
    head = ["worker", "round", "epoch", "iter", "status", "event", "copied_from_w", *measures, *names]
    rows: list[Row] = [
        [
            session.worker,
            session.round,
            session.first_step // steps_per_epoch,
            session.step,
            "failed" if session.report is None else "trained",
            "born" if session.decision is None else session.decision.kind,
            session.donor,
            *(session.measured.get(name) for name in measures),
            *(session.hparams[name] for name in names),
            _rounded(session.seconds),
            None if session.report is None else session.report.digest,
            data,
        ]
        for session in found
    ]
    return [*head, "seconds", "digest", "data"], rows


def rounds(found: Sequence[Session], steps_per_epoch: int, data: str) -> Table:
    """`rounds.csv`: the population after every round, its best worker by validation."""
    head = ["round", "epoch", "iter", "trained", "failed", "copied", "best_worker", "val_accuracy_of_best"]
    head += ["val_accuracy_median", "val_accuracy_of_worst", "test_accuracy_of_best", "train_loss_median"]
    by_round: dict[int, list[Session]] = {}
    for session in found:
        by_round.setdefault(session.round, []).append(session)
    rows: list[Row] = []
    for number, there in by_round.items():
        trained = [session for session in there if session.report is not None]
        times = [session.seconds for session in there if session.seconds is not None]
        rows.append(
            [
                number,
                there[0].first_step // steps_per_epoch,
                max(session.step for session in there),
                len(trained),
                len(there) - len(trained),
                sum(session.donor is not None for session in there),
                *_of_population(trained),
                _rounded(sum(times) if times else None),
                data,
            ]
        )
    return [*head, "seconds", "data"], rows


def _of_population(trained: Sequence[Session]) -> Row:
    scores = [session.report.scores[0] for session in trained if session.report is not None]
    if not scores:
        return [None] * 6
    best = trained[scores.index(max(scores))]
    return [
        best.worker,
        max(scores),
        statistics.median(scores),
        min(scores),
        best.measured.get("test_accuracy"),
        statistics.median(session.measured["train_loss"] for session in trained),
    ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def write(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    # A fixed temporary name: the next run overwrites a file that a killed run left half written.
    temporary = path.with_name(f".{path.name}.tmp")
    with replacing(path, temporary), temporary.open("x", encoding="utf-8") as file:
        file.write(text)


def write_table(path: Path, table: Table, *, indexed: bool = False) -> None:
    """Replace a CSV file atomically.

    Args:
        path: The file.
        table: Its columns and rows.
        indexed: Number the rows from 0 in a first column without a name, as pandas does.
    """
    write(path, table_text(table, indexed=indexed))


def table_text(table: Table, *, indexed: bool = False) -> str:
    """The text that `write_table` writes."""
    head, rows = table
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *head] if indexed else head)
    writer.writerows([number, *row] if indexed else row for number, row in enumerate(rows))
    return text.getvalue()
