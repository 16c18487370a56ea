"""The tables of a population, row by row: the original's to the letter, and beside them what it did not keep.

The original's files are read by `pandas.read_csv(path, index_col=0)`: the first column is an index without a name,
epochs count from 0, `iter` counts all training steps, accuracies are percentages, -1 stands for a missing value, and
there is no other column and no comment. `members.csv` and `rounds.csv` keep the log's own units: shares, and nothing
for a missing value.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pbt.core.events import Decision, Event, Failed, Reported
from pbt.core.history import RunHistory
from pbt.space import HParams
from pbt.store.base import JournalEntry

Row = Sequence[Any]
Table = tuple[Row, list[Row]]
"""The names of the columns, and the rows."""

MISSING = -1
"""The original's mark of a missing value."""
MNIST = "MNIST"
"""What the data is called where nothing must be noted of it."""
RESULTS = ("epoch", "iter", "test_loss", "test_acc")
LOSSES = ("epoch", "iter", "train_loss", "test_loss")
MEASURES = ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "train_accuracy", "train_loss")
"""What is measured of every network, by its name in the log."""


def percent(share: float | None) -> float:
    """A share as a percentage, without the last digits that arithmetic adds: 0.9457 is 94.57; missing is -1."""
    return MISSING if share is None else round(100 * share, 9)


def epoch_of(step: int, steps_per_epoch: int) -> int:
    """The epoch, from 0, that this training step (from 1) belongs to."""
    return (step - 1) // steps_per_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One worker's training session: a round of it."""

    worker: int
    round: int
    first_step: int
    step: int
    """Training steps that its state has afterwards, or would have if it had not failed."""
    hparams: HParams
    decision: Decision | None
    """How it was opened; None: by birth."""
    report: Reported | None
    """What came of it; None: it failed."""
    seconds: float | None
    """Training and evaluation; None: not recorded."""

    @property
    def measured(self) -> Mapping[str, Any]:
        """The reported numbers; nothing of a session that failed."""
        return {} if self.report is None else self.report.reported

    @property
    def donor(self) -> int | None:
        """The worker whose state was copied; None: none was."""
        return None if self.decision is None else self.decision.donor


def sessions(
    events: Iterable[Event], journal: Iterable[JournalEntry], next_ready: Callable[[int], int]
) -> list[Session]:
    """All sessions that came to an end, by round and worker.

    Args:
        events: The log.
        journal: The notes beside it, which hold the times.
        next_ready: From the first step of a session to its last.
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
    """The time that each member's round took."""
    notes = (entry.details for entry in journal if entry.kind == "round")
    return {(note["member"], note["round"]): note["seconds"] for note in notes}


def history(found: Iterable[Session], names: Sequence[str], steps_per_epoch: int) -> Table:
    """`history.csv`: every worker after every session, by the epoch that the session began with."""
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
    """`results_<w>.csv`: the tests of one worker, by the epoch that the session began with."""
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
            # One epoch is the whole session: the same number as everywhere else, to the last digit.
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
    """`members.csv`: all that is known of every worker after every session."""
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
