"""A run as rows, and as terminal tables."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pbt.core.events import Decision, Reported
from pbt.core.population import Member, StateRef
from pbt.core.schedule import Schedule
from pbt.runs.results import Run
from pbt.space import HParams
from pbt.store.live import NewestPoint
from pbt.text import NONE, cell, count, printable, scalars, scored, steady
from pbt.values import Value

GAP = 2
"""Cells between two columns."""
LAST = 1
"""Cells fewer after the last column."""
LONG_TITLE = 10
"""A title of several words that is longer than this is broken into two lines."""
LABEL = 14
"""The most characters of a reported number's name."""
NAMED = 4
"""The most hidden columns that are named."""
REAL = 9
"""Cells of a real number in a live table: `0.0001234` or `1.234e-05`."""
NOW = "now"
"""The title of the last column of a live table that shows numbers of rounds in progress."""
SEGMENTS = 12
"""The most segments of a schedule; a longer one is shortened in the middle."""
AFTER_FAILURE = " after failure"
STYLES = {"failed": "red", "retired": "dim", "training": "cyan"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """One row of a table of members; scores are as returned by the task."""

    member: int
    round: int
    step: int
    score: float | None
    best: float | None = None
    hparams: HParams
    kind: str = "born"
    donor: int | None = None
    founder: int | None = None
    status: str = ""
    """`training`, `failed`, `retired`, or empty."""
    reported: Mapping[str, Any] = field(default_factory=dict)
    newest: NewestPoint | None = None
    """What the task reported last in the round in progress."""

    @property
    def handover(self) -> str:
        """A word for how the last round started."""
        if self.donor is not None:
            return f"← {self.donor}" + (AFTER_FAILURE if self.kind == "replace" else "")
        return {"explore": "explored", "continue": "kept", "replace": "renewed"}.get(self.kind, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLook:
    """What keeps a live table still from one update to the next."""

    values: Mapping[str, Value] = field(default_factory=dict)
    """The first value seen of each hyperparameter."""
    moving: frozenset[str] = frozenset()
    """The hyperparameters of which a second value was seen; the others are hidden first."""
    widths: dict[str, int] = field(default_factory=dict)
    """The widest cell so far, by title; updated in place, so that columns only grow."""
    leader: int | None = None
    """The member with the best score, which is always shown."""

    def after(self, rows: Iterable[MemberRow], leader: int | None) -> "LiveLook":
        """The same after these rows were seen."""
        values, moving = dict(self.values), set(self.moving)
        for row in rows:
            for name, value in row.hparams.items():
                if values.setdefault(name, value) != value:
                    moving.add(name)
        return replace(self, values=values, moving=frozenset(moving), leader=leader)


def row_of(
    member: Member,
    decision: Decision | None,
    *,
    sign: int,
    best: float | None = None,
    founder: int | None = None,
    reported: Mapping[str, Any] | None = None,
) -> MemberRow:
    """The row of a member, with the decision that opened its last round."""
    return MemberRow(
        member=member.id,
        round=member.round,
        step=member.step,
        score=sign * member.score if math.isfinite(member.score) else None,
        # A copied score counts as the member's own until its next report.
        best=best if best is None or not math.isfinite(member.score) else better_of(sign, sign * member.score, best),
        hparams=member.hparams,
        kind=decision.kind if decision else "born",
        donor=decision.donor if decision else None,
        founder=founder,
        status="" if member.status == "live" else member.status,
        reported=reported or {},
    )


def better_of(sign: int, score: float, other: float | None) -> float:
    """The better of two scores of the task; `sign` is `View.sign`, and None is no score."""
    return score if other is None or sign * score > sign * other else other


def rows_of(run: Run, limit: int | None = None) -> list[MemberRow]:
    """Every member of the population, best first; failed and retired ones last.

    Args:
        run: The run.
        limit: The most rows that are shown (`cut`); the reported values of the others are not read. Default: all.
    """
    rank = {id_: index for index, id_ in enumerate(m.id for m in run.view.ranking)}
    members = [member for member in run.view.members if member.role == "member"]
    members.sort(key=lambda m: (rank.get(m.id, len(rank)), m.status == "retired", m.id))
    top, bottom = cut(len(members), len(members) if limit is None else limit)
    shown = [*members[:top], *members[len(members) - bottom :]]
    reports = run.reports([member.state for member in shown if member.state is not None])
    return [_row(member, run, reports) for member in members]


def _row(member: Member, run: Run, reports: Mapping[StateRef, Reported]) -> MemberRow:
    standings = run.standings
    opening, report = standings.openings[member.id], None if member.state is None else reports.get(member.state)
    return row_of(
        member,
        opening if isinstance(opening, Decision) else None,
        sign=run.view.sign,
        best=standings.bests.get(member.id),
        founder=standings.founder(member.id, member.state),
        reported={} if report is None else scalars(report.reported),
    )


@dataclass(slots=True, kw_only=True)
class Column:
    """One column of a table; `optional` columns are hidden, last first, if the terminal is too narrow."""

    title: str
    cells: list[str]
    side: Literal["left", "right"] = "right"
    optional: bool = False
    first: bool = False
    """Whether it is hidden before the other optional columns."""
    least: int = 0
    """The fewest cells of width, so that a live table does not shift."""
    narrow: bool = False
    """Whether a title that is wider than the cells is broken at its dots and underscores."""

    @property
    def head(self) -> str:
        """The title; a long one of several words is broken into two lines."""
        if self.narrow and len(self.title) > LONG_TITLE:
            return "\n".join(_broken(self.title, max(LONG_TITLE, *map(cell_len, self.cells), 0)))
        return "\n".join(self.title.rsplit(" ", 1)) if len(self.title) > LONG_TITLE else self.title

    @property
    def width(self) -> int:
        """Width in cells, including the space between columns."""
        return max(self.least, *map(cell_len, [*self.head.splitlines(), *self.cells])) + GAP


def grid(title: str, columns: Sequence[Column], width: int, styles: Sequence[str] = (), hint: str = "") -> Group:
    """A table at most `width` cells wide, with a note below it that names the hidden columns."""
    shown, hidden = list(columns), list[Column]()
    for column in shown:
        column.narrow = _width(shown) - LAST > width
    while _width(shown) - LAST > width and any(column.optional for column in shown):
        last = next((column for column in reversed(shown) if column.first), None)
        hidden.append(last or next(column for column in reversed(shown) if column.optional))
        shown.remove(hidden[-1])
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for column in shown:
        table.add_column(
            Text(column.head), justify=column.side, vertical="bottom", no_wrap=True, min_width=column.least
        )
    for index in range(len(shown[0].cells)):
        style = styles[index] if index < len(styles) else ""
        table.add_row(*(Text(column.cells[index]) for column in shown), style=style or None)
    parts: list[RenderableType] = [Text(title, style="bold")] if title else []
    parts.append(table)
    if hidden:
        titles = [column.title for column in columns if column in hidden]
        names = ", ".join(titles[:NAMED]) + (", …" if len(hidden) > NAMED else "")
        parts.append(Text(f"{count(len(hidden), 'column')} hidden (terminal too narrow): {names}{hint}", style="dim"))
    return Group(*parts)


def _broken(title: str, width: int) -> list[str]:
    """The title in lines of about this width, broken after dots, underscores and blanks."""
    lines = [""]
    for part in re.findall(r"[^._ ]*[._ ]?", title):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines if line]


def _width(columns: Iterable[Column]) -> int:
    return sum(column.width for column in columns)


def cut(count: int, limit: int) -> tuple[int, int]:
    """How many of `count` rows to show from the top and from the bottom, with one line between them."""
    if count <= limit:
        return count, 0
    room = max(2, limit - 1)
    return room - room // 2, room // 2


def population_table(
    rows: Sequence[MemberRow],
    names: Iterable[str],
    *,
    title: str,
    width: int,
    limit: int,
    score: str = "score",
    live: LiveLook | None = None,
) -> Group:
    """Members as a table; with more than `limit` of them only the first and the last ones.

    Args:
        rows: The members, best first.
        names: Their hyperparameters.
        title: Title of the table.
        width: Cells that it may take.
        limit: Most rows.
        score: Display name of the score.
        live: What the updates of a live table have shown so far; None: a table that stays.
    """
    top, bottom = cut(len(rows), limit)
    shown = [*rows[:top], *rows[len(rows) - bottom :]]
    leader = None if live is None else next((row for row in rows if row.member == live.leader), None)
    if leader is not None and leader not in shown:
        shown[top - 1] = leader
    columns = _columns(shown, names, score, live, any(row.status for row in rows))
    if live is not None:
        columns[2].least = REAL
        _widen(columns, live.widths)
    if any(row.newest for row in shown):
        columns[-1] = _now(shown, columns, width + LAST)
        if live is not None:
            _widen(columns[-1:], live.widths)
    styles = [STYLES.get(row.status, "bold" if row is leader else "") for row in shown]
    if bottom:
        _mark_cut(columns, top, f"{len(rows) - top - bottom} more")
        styles.insert(top, "dim")
    return grid(title, columns, width, styles, "" if live else " (all with --json)")


def _columns(
    rows: Sequence[MemberRow], names: Iterable[str], score: str, live: LiveLook | None, status: bool
) -> list[Column]:
    """The columns of a table of members; the last one is their status, if there is one."""
    columns = [
        Column(title="member", cells=[str(row.member) for row in rows]),
        Column(title="round", cells=[str(row.round) for row in rows]),
        Column(title=score, cells=[scored(row.score) for row in rows]),
    ]
    if live is not None:
        return [*columns, *_live_columns(rows, names, live)]
    if any("test_accuracy" in row.reported for row in rows):
        cells = [cell(row.reported.get("test_accuracy"), "accuracy") for row in rows]
        columns.append(Column(title="test accuracy", cells=cells))
    for name in names:
        cells = [cell(row.hparams.get(name), name) if name in row.hparams else NONE for row in rows]
        columns.append(Column(title=printable(name), cells=cells, optional=True))
    columns.append(Column(title="founder", cells=[NONE if r.founder is None else str(r.founder) for r in rows]))
    columns.append(Column(title="hand-over", cells=[row.handover for row in rows], side="left"))
    if status:
        columns.append(Column(title="", cells=[row.status for row in rows], side="left"))
    return columns


def _live_columns(rows: Sequence[MemberRow], names: Iterable[str], live: LiveLook) -> list[Column]:
    """The columns of a live table after the score, each at least as wide as a real number of its kind."""
    columns = [Column(title="best", cells=[scored(row.best) for row in rows], least=REAL, optional=True, first=True)]
    for name in names:
        cells = [steady(row.hparams.get(name), name) if name in row.hparams else NONE for row in rows]
        least = REAL if any(isinstance(row.hparams.get(name), float) for row in rows) else 0
        still = name not in live.moving
        columns.append(Column(title=printable(name), cells=cells, optional=True, first=still, least=least))
    handovers = [row.handover.removesuffix(AFTER_FAILURE) for row in rows]
    columns.append(Column(title="hand-over", cells=handovers, side="left", least=len("explored")))
    title = NOW if NOW in live.widths else ""  # once numbers were shown, their column stays
    columns.append(Column(title=title, cells=[row.status for row in rows], side="left", least=8))
    return columns


def _widen(columns: Iterable[Column], widths: dict[str, int]) -> None:
    """Make each column at least as wide as its widest cell so far."""
    for column in columns:
        column.least = widths[column.title] = max(
            [column.least, widths.get(column.title, 0), *map(cell_len, column.cells)]
        )


def _now(rows: Sequence[MemberRow], columns: Sequence[Column], width: int) -> Column:
    """The states of members, the last column, with as many of the newest numbers of those in training as fit.

    One number may hide optional columns; a second one may not.
    """
    *others, states = columns
    for most, unit, kept in (
        (2, "step ", others),
        (1, "step ", others),
        (1, "", [column for column in others if not column.optional]),
    ):
        cells = [row.status if row.newest is None else _newest(row.newest, most, unit) for row in rows]
        column = Column(title=NOW, cells=cells, side="left", least=8)
        if _width(kept) + column.width <= width:
            return column
    return states


def _newest(newest: NewestPoint, most: int, unit: str) -> str:
    parts = [f"{unit}{newest.step:,}"]
    for name, value in list(newest.values.items())[:most]:
        label = name if len(name) <= LABEL else f"{name[: LABEL - 1]}…"
        parts.append(f"{label} {scored(value) if math.isfinite(value) else value}")
    return "  ".join(parts)


def schedule_table(schedule: Schedule, names: Iterable[str], *, title: str, width: int, limit: int = SEGMENTS) -> Group:
    """The segments of a schedule; a long one is shortened in the middle."""
    top, bottom = cut(len(schedule.segments), limit)
    shown = [*schedule.segments[:top], *schedule.segments[len(schedule.segments) - bottom :]]
    columns = [
        Column(title="from step", cells=[f"{segment.start:,}" for segment in shown]),
        Column(title="to step", cells=[f"{segment.stop:,}" for segment in shown]),
    ]
    for name in names:
        cells = [cell(s.hparams[name], name) if name in s.hparams else NONE for s in shown]
        columns.append(Column(title=printable(name), cells=cells, optional=True))
    if bottom:
        _mark_cut(columns, top, f"{len(schedule.segments) - top - bottom} more")
    return grid(title, columns, width, ["dim" if bottom and i == top else "" for i in range(len(columns[0].cells))])


def _mark_cut(columns: Sequence[Column], index: int, text: str) -> None:
    """Insert a row that stands for the omitted ones."""
    for column in columns:
        column.cells.insert(index, "")
    columns[0].cells[index], columns[1].cells[index] = "…", text
