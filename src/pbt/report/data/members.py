"""The members of a run: a row of each for the table, and the whole record of one."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pbt.core.events import Born, Failed
from pbt.core.history import TrainedState
from pbt.report.data.axes import thin, thinned
from pbt.report.snapshot import RunSnapshot
from pbt.space import HParams
from pbt.store.logs import LogTail
from pbt.text import number, printable, span
from pbt.values import Value

MEMBERS = 5_000
"""The most members in the table."""
ROUNDS = 400
"""The most rounds in the record of a member."""
FAILURES = 20
"""The most failed rounds with their tracebacks in the record of a member; the last ones."""
TRACE = 8_000
"""The most characters of a traceback; its end is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberTable:
    """One row per member, best first."""

    head: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    note: str

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"head": list(self.head), "rows": [list(map(plain_value, row)) for row in self.rows]}


def member_table(snapshot: RunSnapshot) -> MemberTable:
    """The table of all members, at most `MEMBERS` of them: the best ones."""
    donors = Counter(decision.donor for decision in snapshot.copies)
    copiers = Counter(decision.member for decision in snapshot.copies)
    failed = Counter(failure.member for failure in snapshot.failures)
    rows: list[tuple[Value, ...]] = []
    for member in snapshot.members:
        states = snapshot.by_member.get(member, ())
        last = states[-1] if states else None
        scores = [state.score for state in states]
        best = None if not scores else max(scores) if snapshot.sign > 0 else min(scores)
        hparams: HParams = last.hparams if last is not None else snapshot.tree.births[member].hparams
        rows.append(
            (
                member,
                snapshot.statuses.get(member, "live"),
                None if last is None else last.round,
                None if last is None else last.step,
                None if last is None else last.score,
                best,
                None if last is None else last.founder,
                copiers[member],
                donors[member],
                failed[member],
                *(hparams.get(name) for name in snapshot.space),
            )
        )
    kept = sorted(rows, key=lambda row: _rank(row[5], snapshot.sign))[:MEMBERS]
    head = ("member", "status", "round", "step", snapshot.score_name, f"best {snapshot.score_name}", "founder")
    more = ("copies of others", "times copied", "failed rounds")
    return MemberTable(
        head=(*head, *more, *snapshot.space),
        rows=tuple(sorted(kept, key=lambda row: cast("int", row[0]))),
        note=thinned("members", len(kept), len(rows)),
    )


def _rank(best: Value, sign: int) -> float:
    return -sign * best if isinstance(best, (int, float)) and not math.isnan(best) else math.inf


def member_record(snapshot: RunSnapshot, member: int, log: LogTail | None = None) -> dict[str, Any] | None:
    """All that is known of a member, as plain values; None if there is no such member.

    Args:
        snapshot: The run.
        member: Its id.
        log: The end of its newest log.
    """
    if member not in snapshot.tree.births:
        return None
    states = snapshot.by_member.get(member, ())
    failures = [failure for failure in snapshot.failures if failure.member == member]
    ends: dict[int, TrainedState | Failed] = {state.round: state for state in states}
    ends |= {failure.round: failure for failure in failures}
    rounds = thin(sorted(ends), ROUNDS)
    path = snapshot.tree.ancestry(states[-1].state) if states else []
    return {
        "member": member,
        "facts": _facts(snapshot, member, states, len(failures)),
        "hparams": list(snapshot.space),
        "rounds": [_round(snapshot, ends[round_]) for round_ in reversed(rounds)],
        "omitted": note + "." if (note := thinned("rounds", len(rounds), len(ends))) else "",
        "ancestry": [
            [
                part[0].member,
                part[0].round,
                part[-1].round,
                part[0].first_step,
                part[-1].step,
                plain_value(part[-1].score),
            ]
            for part in _parts(path)
        ],
        "schedule": _schedule(path, tuple(snapshot.space)),
        "failures": [_failure(snapshot, failure) for failure in failures[: -FAILURES - 1 : -1]],
        "log": None if log is None else {"name": printable(log.name), "text": log.text},
    }


def _facts(snapshot: RunSnapshot, member: int, states: Sequence[TrainedState], failed: int) -> list[list[str]]:
    facts = {
        "status": snapshot.statuses.get(member, "live"),
        "rounds": f"{len(states):,}",
        "failed rounds": f"{failed:,}",
    }
    if states:
        last = states[-1]
        best = max(states, key=lambda state: snapshot.sign * state.score)
        facts[snapshot.score_name] = f"{number(last.score, 6)} at step {last.step:,}"
        facts[f"best {snapshot.score_name}"] = f"{number(best.score, 6)} in round {best.round}"
        facts["founder"] = f"member {last.founder}"
        seconds = [snapshot.seconds[state.state] for state in states if state.state in snapshot.seconds]
        if seconds:
            facts["training time"] = span(sum(seconds))
        for name, value in itertools.islice(last.reported.items(), 8):
            if isinstance(value, (int, float, str)):
                facts[name.replace("_", " ")] = number(value, 6)
    return [[printable(name), printable(value)] for name, value in facts.items()]


def _round(snapshot: RunSnapshot, end: TrainedState | Failed) -> list[Any]:
    """Round, step, score, decision, origin, reason and changed values; the origin is a member or a text."""
    opening = snapshot.tree.opening(end.member, end.round)
    born = isinstance(opening, Born)
    kind, why = ("born", "") if isinstance(opening, Born) else (opening.kind, opening.why)
    start = opening.start
    origin: int | str | None = (
        None if start is None else start.member if start.member != end.member else "its own state"
    )
    before = {} if start is None or start not in snapshot.states else snapshot.states[start].hparams
    own = isinstance(end, TrainedState)
    return [
        end.round,
        end.step if isinstance(end, TrainedState) else None,
        plain_value(end.score) if isinstance(end, TrainedState) else "failed",
        kind,
        origin,
        printable(why) or ("" if born or own else printable(getattr(end, "message", ""))),
        _values(opening.hparams) if born else _changes(before, opening.hparams),
    ]


def _values(hparams: HParams) -> str:
    return ", ".join(f"{printable(name)} {number(value, 6)}" for name, value in hparams.items())


def _changes(before: HParams, after: HParams) -> str:
    changed = [name for name in (*after, *(n for n in before if n not in after)) if before.get(name) != after.get(name)]
    texts = [f"{printable(name)} {_shown(before.get(name))} → {_shown(after.get(name))}" for name in changed]
    return ", ".join(texts)


def _shown(value: Value) -> str:
    return "–" if value is None else number(value)  # noqa: RUF001 (a dash)


def _parts(path: Sequence[TrainedState]) -> list[list[TrainedState]]:
    """The ancestry, newest first, in parts that one member trained."""
    return [list(part) for _, part in itertools.groupby(path, key=lambda state: state.member)][::-1]


def _schedule(path: Sequence[TrainedState], names: Sequence[str]) -> list[list[Any]]:
    rows = []
    for _, same in itertools.groupby(path, key=lambda state: state.hparams):
        states = list(same)
        values = [plain_value(states[0].hparams.get(name)) for name in names]
        rows.append([states[0].first_step, states[-1].step, values])
    return thin(rows, ROUNDS)


def _failure(snapshot: RunSnapshot, failure: Failed) -> dict[str, str]:
    note: Mapping[str, Any] = snapshot.attempts.get((failure.member, failure.round), {})
    details = f"cause: {failure.cause}, attempt {note.get('attempt', 1)}"
    if note.get("file"):
        details += f", at {note['file']}:{note.get('line')}"
    return {
        "title": printable(f"round {failure.round}: {failure.message}"),
        "details": printable(details),
        "trace": "\n".join(map(printable, str(note.get("traceback", "")).splitlines()))[-TRACE:],
    }


def plain_value(value: Value) -> Value:
    """A value for JSON: NaN and infinities, which it lacks, and tuples as text."""
    if isinstance(value, tuple):
        return number(value)
    if not isinstance(value, float):
        return value
    text = f"{value:.8g}"
    return float(text) if text[-1].isdigit() else text
