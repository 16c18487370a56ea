"""Progress of a training population: a live table on a terminal, one line per round elsewhere."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pbt.closing import Closing
from pbt.core.events import Decision, Event, Failed
from pbt.core.population import Member, View
from pbt.core.standings import Standings
from pbt.executors.base import Failure, Outcome, Report
from pbt.runs.engine import Engine, Observer
from pbt.runs.placement import Placement
from pbt.store.live import read_newest, read_shares
from pbt.terminal.console import can_redraw, console_for, is_terminal
from pbt.terminal.tables import LiveLook, MemberRow, better_of, population_table, row_of
from pbt.text import clock, printable, scored

AROUND = 9
"""Lines of the live display besides the members."""
Leader = tuple[float, int, int]
"""(score, member, round)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressFrame:
    """The content of the live display; immutable, because another thread than the training one draws it."""

    rows: tuple[MemberRow, ...] = ()
    done: int = 0
    total: int = 0
    rounds: int = 0
    best: Leader | None = None
    failed: int = 0


class ProgressObserver(Closing, Observer):
    """Shows the progress of a population. A context manager that restores the terminal.

    Args:
        show: Whether to show progress at all.
        title: Title of the table.
        note: A note added to the title, such as the data set.
        score: Display name of the score.
        placement: The placement, which determines how many members train at the same time.
        console: The console. Default: stderr.
        live: Redraw a table in place. Default: if the terminal supports it and `CI` is not set.
    """

    _unit = "member rounds"
    """What is counted."""

    def __init__(
        self,
        *,
        show: bool = True,
        title: str = "",
        note: str = "",
        score: str = "score",
        placement: Placement | None = None,
        console: Console | None = None,
        live: bool | None = None,
    ) -> None:
        self._show = show
        self._title = " · ".join(printable(part) for part in (title, note) if part)
        self._score = score
        self._placement = placement or Placement()
        self._console = console or console_for(stderr=True)
        self._is_live = can_redraw(self._console) if live is None else live
        self._live: Live | None = None
        self._path: Path | None = None
        self._frame = ProgressFrame()
        self._look = LiveLook()
        self._began, self._done_before = time.monotonic(), 0
        self._outcomes: dict[int, Outcome] = {}
        self._slots, self._sign, self._rounds_printed = 1, 1, 0

    def on_start(self, engine: Engine) -> None:
        """Read the log so far and start the display."""
        self._sign, self._path = engine.view.sign, engine.store.path
        # What `auto` has taken is recorded by now.
        placement = self._placement.resumed(engine.store.meta.get("place") or {})
        self._slots = _slots(placement, engine.course.population)
        self._update(engine)
        self._began, self._done_before = time.monotonic(), self._frame.done
        self._rounds_printed = _whole_rounds(self._frame)
        if self._show and self._is_live and not engine.finished:
            self._live = Live(
                console=self._console,
                get_renderable=self.render,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=is_terminal(sys.stdout),
            )
            self._live.start()
        elif self._show and self._done_before:
            self._print(f"resumes after {self._done_before} of {self._frame.total} {self._unit}")

    def on_outcome(self, engine: Engine, outcome: Outcome) -> None:
        """Show the outcome of a member's round."""
        self._outcomes[outcome.member] = outcome
        self._update(engine)
        if isinstance(outcome, Failure):
            self._print_failure(outcome)

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Show the decisions; without a live table, print a line per finished round."""
        for event in events:
            # The engine turns a report with a different number of scores into a failure.
            if isinstance(event, Failed) and isinstance(self._outcomes.get(event.member), Report):
                self._print_failure(event)
        for member in [m for m in self._outcomes if engine.view.member(m).round >= self._outcomes[m].round]:
            del self._outcomes[member]
        self._update(engine)
        whole = _whole_rounds(self._frame)
        if self._show and self._live is None and whole > self._rounds_printed:
            self._print(f"{self._moment(whole)} · {self._best()} · {self._pace()}")
        self._rounds_printed = whole

    def on_end(self, engine: Engine) -> None:  # noqa: ARG002 (one signature for all observers)
        """Stop the display."""
        self.close()

    def close(self) -> None:
        """Stop the live display and restore the terminal."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def render(self) -> RenderableType:
        """The current display."""
        frame, width, limit = self._frame, self._console.width, max(4, self._console.height - AROUND)
        rows = self._with_newest(frame.rows)
        rows.sort(key=lambda row: (row.score is None, -self._sign * (row.score or 0.0), row.member))
        leader = None if frame.best is None else frame.best[1]
        self._look = self._look.after(rows, leader)
        names = dict.fromkeys(name for row in rows for name in row.hparams)
        table = population_table(
            rows, names, title=self._title, width=width, limit=limit, score=self._score, live=self._look
        )
        return Group(table, self._bar(), Text(self._best(), style="bold"))

    def _with_newest(self, rows: Sequence[MemberRow]) -> list[MemberRow]:
        """The rows, with what the tasks of the members in training reported last."""
        training = [row.member for row in rows if row.status == "training"]
        newest = {} if self._path is None else read_newest(self._path, training)
        found = ((row, newest.get(row.member)) for row in rows)
        return [replace(row, newest=now) if now and now.round == row.round + 1 else row for row, now in found]

    def _bar(self) -> Table:
        frame = self._frame
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        done = frame.done + self.begun()
        bar.add_row(ProgressBar(total=max(1, frame.total), completed=done), Text(self._pace(done)))
        return bar

    def begun(self) -> float:
        """The rounds that programs of several members have done in part, as shares."""
        shares = {} if self._path is None else read_shares(self._path)
        found = ((shares.get(row.member, (0, 0.0)), row.round + 1) for row in self._frame.rows)
        return sum(share for (round_, share), expected in found if round_ == expected)

    def _moment(self, whole: int) -> str:
        """Where training is, after so many whole rounds."""
        return f"round {whole}/{self._frame.rounds}"

    def _print_failure(self, failed: Failed | Failure) -> None:
        if self._show:
            self._print(f"member {failed.member} failed in round {failed.round}: {failed.message}", "red")

    def _update(self, engine: Engine) -> None:
        view, rounds = engine.view, engine.course.rounds
        members = view.population
        waiting = [m.id for m in members if m.status == "live" and m.round < m.opened <= rounds]
        training = [id_ for id_ in waiting if id_ not in self._outcomes][: self._slots]
        rows = tuple(self._row(engine.standings, member, member.id in training) for member in members)
        self._frame = ProgressFrame(
            rows=rows,
            done=sum(min(row.round, rounds) for row in rows),
            total=len(rows) * rounds,
            rounds=rounds,
            best=self._leader(view),
            failed=sum(row.status == "failed" for row in rows),
        )

    def _row(self, standings: Standings, member: Member, training: bool) -> MemberRow:
        opening, own = standings.openings[member.id], standings.bests.get(member.id)
        row = row_of(member, opening if isinstance(opening, Decision) else None, sign=self._sign, best=own)
        outcome = self._outcomes.get(member.id)
        if outcome is None:
            return replace(row, status="training") if training else row
        if isinstance(outcome, Failure):
            return replace(row, round=outcome.round, score=None, status="failed")
        best = better_of(self._sign, outcome.scores[0], own)
        return replace(row, round=outcome.round, score=outcome.scores[0], best=best)

    def _leader(self, view: View) -> Leader | None:
        """The best state, including outcomes that are not logged yet."""
        leader = None if view.best is None else (self._sign * view.best.score, *view.best.state)
        for outcome in self._outcomes.values():
            if isinstance(outcome, Failure) or view.member(outcome.member).role != "member":
                continue
            if leader is None or better_of(self._sign, outcome.scores[0], leader[0]) != leader[0]:
                leader = outcome.scores[0], outcome.member, outcome.round
        return leader

    def _best(self) -> str:
        best, failed = self._frame.best, self._frame.failed
        text = "no score yet"
        if best is not None:
            value, member, round_ = best
            text = f"best {self._score} {scored(value)} (member {member}, round {round_})"
        return f"{text} · {failed} failed" if failed else text

    def _pace(self, done: float | None = None) -> str:
        """Rounds done, elapsed time and remaining time, estimated from the pace since the start of this process."""
        frame, elapsed = self._frame, time.monotonic() - self._began
        text = f"{frame.done}/{frame.total} {self._unit} · {clock(elapsed)}"
        done = frame.done if done is None else done
        fresh = done - self._done_before
        if fresh <= 0:
            return text
        return f"{text} · {clock(elapsed / fresh * (frame.total - done))} left"

    def _print(self, text: str, style: str = "") -> None:
        """Print a line, above the live table if there is one."""
        if not self._console.quiet:
            self._console.print(Text(printable(text), style=style), soft_wrap=True)


def _slots(placement: Placement, population: int) -> int:
    """How many members train at the same time, as far as the placement determines it."""
    if placement.executor == "processes":
        return len(placement.resolve(population).devices)
    return 1 if placement.executor == "inline" else population


def _whole_rounds(frame: ProgressFrame) -> int:
    return frame.done * frame.rounds // frame.total if frame.total else 0
