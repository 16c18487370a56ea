"""The numbers behind each figure, as tables of text."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pbt.report.data.axes import thin
from pbt.report.data.curves import PointLines
from pbt.report.data.exploits import Exploits
from pbt.report.data.figures import Pictures
from pbt.report.data.fitness import Fitness
from pbt.report.data.founders import FounderShares
from pbt.report.data.health import Health
from pbt.report.data.importance import Importance
from pbt.report.data.parallel import Parallel
from pbt.report.data.plane import Plane
from pbt.report.snapshot import RunSnapshot
from pbt.text import number

ROWS = 400
"""The most rows of a table; longer ones are thinned."""
FOUNDERS = 12
"""The most founders with a column of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureTable:
    """A table of texts, not yet escaped."""

    row_unit: str
    """The meaning of a row, such as `round`."""
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    all_rows: int
    """Rows before thinning."""

    @property
    def summary(self) -> str:
        """The heading of the folded table."""
        shown = "" if len(self.rows) == self.all_rows else f" ({len(self.rows):,} of {self.all_rows:,} rows)"
        return f"Data: one row per {self.row_unit}{shown}"


def table(name: str, pictures: Pictures, snapshot: RunSnapshot) -> FigureTable | None:
    """The table behind a figure; None if the figure does not exist, or has no rows."""
    record: Any = getattr(pictures, name)
    if record is None:
        return None
    make: Callable[[Any, RunSnapshot], FigureTable] = _MAKE[name]
    made = make(record, snapshot)
    return made if made.rows else None


def _table(row_unit: str, head: Iterable[str], rows: Sequence[Sequence[Any]]) -> FigureTable:
    texts = tuple(tuple(number(cell, 6) for cell in row) for row in thin(rows, ROWS))
    return FigureTable(row_unit=row_unit, head=tuple(head), rows=texts, all_rows=len(rows))


def _fitness(record: Fitness, snapshot: RunSnapshot) -> FigureTable:  # noqa: ARG001 (one signature for all)
    columns = (record.steps, record.counts, record.best, record.median, record.low, record.high)
    head = ("step", "states", f"best {record.score} so far", "median", "10 %", "90 %")
    return _table("number of training steps", head, list(zip(*columns, strict=True)))


def _points(record: PointLines, snapshot: RunSnapshot) -> FigureTable:
    """The winner's ancestry, one row per step with a number."""
    names = [panel.name for panel in record.panels]
    rows: dict[tuple[int, int], dict[str, float]] = {}
    for link in snapshot.path:
        for name, series in snapshot.points.get((link.member, link.round), {}).items():
            for step, value in series:
                rows.setdefault((step, link.member), {})[name] = value
    texts = [(step, member, *(row.get(name) for name in names)) for (step, member), row in rows.items()]
    return _table("reported step of the winner's ancestry", ("step", "member", *names), sorted(texts, key=_first))


def _first(row: Sequence[Any]) -> Any:
    return row[0]


def _schedules(record: Any, snapshot: RunSnapshot) -> FigureTable:  # noqa: ARG001
    """The winner's ancestry, one row per segment with constant values."""
    rows: list[list[Any]] = []
    for _, same in itertools.groupby(snapshot.path, key=lambda link: (link.member, link.hparams)):
        first, *rest = same
        stop = rest[-1].step if rest else first.step
        rows.append([first.first_step, stop, first.member, *(first.hparams.get(name) for name in snapshot.space)])
    return _table("segment of the winner's ancestry", ("from step", "to step", "member", *snapshot.space), rows)


def _tree(record: Any, snapshot: RunSnapshot) -> FigureTable:  # noqa: ARG001
    rows = [
        (
            link.member,
            link.round,
            link.step,
            link.score,
            "born" if link.decision is None else link.decision.kind,
            None if link.decision is None else link.decision.donor,
            None if link.decision is None else link.decision.why,
        )
        for link in snapshot.path
    ]
    head = ("member", "round", "step", snapshot.score_name, "hand-over", "donor", "reason")
    return _table("round of the winner's ancestry", head, rows)


def _founders(record: FounderShares, snapshot: RunSnapshot) -> FigureTable:  # noqa: ARG001
    shares = sorted(record.shares, key=lambda share: (-share.parts[-1], -sum(share.parts)))[:FOUNDERS]
    names = ("others" if share.founder is None else f"member {share.founder}" for share in shares)
    rows = [
        (step, alive, *(f"{100 * share.parts[i]:.3g} %" for share in shares))
        for i, (step, alive) in enumerate(zip(record.steps, record.alive, strict=True))
    ]
    return _table("number of training steps", ("step", "founders", *names), rows)


def _exploits(record: Exploits, snapshot: RunSnapshot) -> FigureTable:
    as_donor, as_copier = dict(record.donors), dict(record.received)
    rows = [(member, as_donor.get(member, 0), as_copier.get(member, 0)) for member in snapshot.members]
    rows.sort(key=lambda row: (-row[1], -row[2], row[0]))
    return _table("member", ("member", "times copied", "copies of others"), rows)


def _plane(record: Plane, snapshot: RunSnapshot) -> FigureTable:  # noqa: ARG001
    """All members after the last round, best first."""
    states = sorted(snapshot.generations[-1].states, key=lambda state: (-snapshot.sign * state.score, state.state))
    rows = [
        (state.member, state.step, state.score, *(state.hparams.get(name) for name in snapshot.space))
        for state in states
    ]
    return _table("member after the last round", ("member", "step", snapshot.score_name, *snapshot.space), rows)


def _parallel(record: Parallel, snapshot: RunSnapshot) -> FigureTable:
    """The values of the last round, best first."""
    states = [snapshot.states[line.ref] for line in reversed(record.newest)]
    rows = [(s.member, s.round, s.score, *(s.hparams.get(name) for name in snapshot.space)) for s in states]
    return _table("member of the last round", ("member", "round", snapshot.score_name, *snapshot.space), rows)


def _importance(record: Importance, snapshot: RunSnapshot) -> FigureTable:
    rows = [(row.axis.name, row.score, row.gain, row.chance, row.rounds) for row in record.rows]
    head = ("hyperparameter", f"with {snapshot.score_name}", "with improvement", "by chance in one round", "rounds")
    return _table("hyperparameter", head, rows)


def _health(record: Health, snapshot: RunSnapshot) -> FigureTable:  # noqa: ARG001
    columns = (record.rounds, record.founders, record.copied, record.failed, record.seconds, record.slowest)
    rows = [
        (round_, founders, f"{100 * copied:.3g} %", failed, seconds, slowest)
        for round_, founders, copied, failed, seconds, slowest in zip(*columns, strict=True)
    ]
    head = ("round", "founders", "started from a copy", "failed", "seconds (median member)", "seconds (slowest)")
    return _table("round", head, rows)


_MAKE: Mapping[str, Callable[[Any, RunSnapshot], FigureTable]] = {
    "fitness": _fitness,
    "plane": _plane,
    "curves": _points,
    "schedules": _schedules,
    "tree": _tree,
    "founders": _founders,
    "exploits": _exploits,
    "health": _health,
    "parallel": _parallel,
    "importance": _importance,
}
