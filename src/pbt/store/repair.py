"""Repair of a damaged run: restore its newest intact round, and report the loss.

The log is cut after a transaction, as if the run had been killed there; later rounds are trained again, to the same
bits. Nothing is guessed: only rows that match their seals and states that match the log's digests are kept. The
damaged database is kept beside the new one.
"""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pbt.core.events import Event, Failed, Reported
from pbt.core.fold import apply, empty_view
from pbt.core.laws import LogLaws
from pbt.core.population import StateRef, Stored
from pbt.core.recorded import check_recorded
from pbt.errors import CorruptError, PBTError
from pbt.store import checksums, tables
from pbt.store.base import NewEntry
from pbt.store.database import check_format, check_journal, connect, plain_errors, transaction
from pbt.store.durable import sync_folder
from pbt.store.event_rows import from_json
from pbt.store.files import StateFiles, file_name
from pbt.store.layout import DATABASE, JOURNAL, LOCK, STATES, check_own, os_errors
from pbt.store.lock import WriterLock
from pbt.store.system import SYNCED, sync
from pbt.store.verify import verify_run
from pbt.store.waves import numbered

DAMAGED = f"{DATABASE}.damaged"
_NEW = f"{DATABASE}.tmp"
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """The result of a repair."""

    round: int
    """The newest intact round."""
    dropped: tuple[StateRef, ...]
    """The dropped reports and failures, as member and round."""
    events: int
    """Number of dropped events, as far as they could be counted."""
    states: tuple[str, ...]
    """File names of states that were damaged or missing."""
    notes: int
    """Number of lost journal notes."""
    best_lost: bool
    """Whether the best state so far is among them; a later better one takes its place."""
    kept: Path
    """The damaged database."""

    def __str__(self) -> str:
        """A summary for people."""
        parts = [f"resumes after round {self.round}"]
        if self.events:
            rounds = sorted({ref.round for ref in self.dropped})
            members = sorted({ref.member for ref in self.dropped})
            whose = f" (rounds {_few(rounds)} of members {_few(members)})" if self.dropped else ""
            parts.append(f"dropped {self.events} events{whose}, which will be trained again")
        if self.states:
            parts.append(f"{len(self.states)} states were damaged or missing: {_few(self.states)}")
        if self.best_lost:
            parts.append("the best state so far is one of them and is lost")
        if self.notes:
            parts.append(f"dropped {self.notes} journal notes")
        return f"{'; '.join(parts)}; the damaged database is kept as {self.kept.name}"


def repair_run(path: str | Path) -> Repaired | None:
    """Restore a run's newest intact round; None if nothing is damaged, in which case nothing is changed.

    Raises:
        RunLockedError: A writer holds the run.
        RunFormatError: Not a run directory, or one of another version.
        CorruptError: No round is intact.
        DiskError: The disk cannot be written; the run is unchanged.
    """
    path = Path(path)
    check_own(path)
    if all(problem.harmless for problem in verify_run(path)):
        return None
    with os_errors(path):
        lock = WriterLock(path / LOCK)
        try:
            (path / _NEW).unlink(missing_ok=True)
            with plain_errors(path / DATABASE):
                return _repaired(path)
        finally:
            (path / _NEW).unlink(missing_ok=True)
            lock.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The readable part of a database."""

    meta: dict[str, str]
    lines: dict[str, list[checksums.LoggedTransaction]]
    """For each list, its transactions up to the first damaged one."""
    events: list[list[Event]]
    """The events of those transactions of the log."""
    lost: dict[str, int]
    """For each list, the number of rows after them."""
    blobs: dict[StateRef, bytes]


def _repaired(path: Path) -> Repaired:
    check_journal(path / JOURNAL)
    connection = connect(path / DATABASE, "rw", _PATIENCE)
    try:
        check_format(connection, path)  # also rolls back the journal of a killed writer
        tables.check_tables(connection, path)
        salvaged = _salvaged(connection, path)
    finally:
        connection.close()
    events = salvaged.events
    whole = _whole_states(path, events, salvaged.blobs)
    cut, best_lost = _newest_whole(salvaged.meta, events, whole)
    if not any(isinstance(event, Reported) for part in events[:cut] for event in part):
        raise _hopeless(path, "no round is intact from its log to its states")
    kept_refs = {event.state for part in events[:cut] for event in part if isinstance(event, Reported)}
    dropped = [event for part in events[cut:] for event in part]
    repaired = Repaired(
        round=max(ref.round for ref in kept_refs),
        dropped=tuple(StateRef(e.member, e.round) for e in dropped if isinstance(e, Reported | Failed)),
        events=len(dropped) + salvaged.lost[checksums.EVENTS],
        states=tuple(file_name(ref) for ref in sorted(whole) if whole[ref] is None),
        notes=salvaged.lost[checksums.JOURNAL],
        best_lost=best_lost,
        kept=_free_name(path),
    )
    states = {ref: record for ref, record in whole.items() if record is not None and ref in kept_refs}
    _write(path / _NEW, salvaged, cut, states, str(repaired))
    # Link the old database first: at every moment at least one name leads to a database.
    try:
        repaired.kept.hardlink_to(path / DATABASE)
    except OSError:
        shutil.copyfile(path / DATABASE, repaired.kept)
    (path / _NEW).replace(path / DATABASE)
    sync_folder(path)
    return repaired


def _salvaged(connection: sqlite3.Connection, path: Path) -> _Found:
    if not checksums.has_seals(connection):
        # A run of an earlier version has no seals: its log is taken as one transaction.
        ends = {
            what: [checksums.sealed(checksums.NOTHING, checksums.read_lines(connection, what))]
            for what in checksums.COLUMNS
        }
    else:
        if not checksums.head_is_whole(connection):
            raise _hopeless(path, "its meta values are damaged, and nothing can be read without them")
        ends = {what: checksums.read_seals(connection, what)[1] for what in checksums.COLUMNS}
    lines, lost, events = {}, {}, list[list[Event]]()
    for what in checksums.COLUMNS:
        rows = _rows(connection, f"SELECT {checksums.COLUMNS[what]} FROM {what} NOT INDEXED ORDER BY id")  # noqa: S608
        parts = checksums.transactions(rows, ends[what])
        whole = list(takewhile(lambda part: part.whole, parts))
        if what == checksums.EVENTS:
            events = list(takewhile(len, map(_events_of, whole)))
            whole = whole[: len(events)]
        lines[what] = whole
        lost[what] = max([0, *(part.last for part in parts)]) - max([0, *(part.last for part in whole)])
    states = _rows(connection, "SELECT member, round, blob FROM states NOT INDEXED WHERE blob IS NOT NULL")
    return _Found(
        meta=dict(connection.execute("SELECT key, value FROM meta").fetchall()),
        lines=lines,
        events=events,
        lost=lost,
        blobs={StateRef(m, r): blob for m, r, blob in states if isinstance(blob, bytes)},  # type: ignore[arg-type]
    )


def _events_of(part: checksums.LoggedTransaction) -> list[Event]:
    """The events of a transaction of the log; none if one is missing."""
    found = numbered((int(str(line[0])), str(line[5])) for line in part.lines)
    is_complete = [id_ for id_, _ in found] == list(range(part.first, part.last + 1))
    return [event for _, event in found] if is_complete else []


def _rows(connection: sqlite3.Connection, query: str) -> list[checksums.Line]:
    """The rows up to the first unreadable one."""
    rows: list[checksums.Line] = []
    with contextlib.suppress(sqlite3.Error):
        rows.extend(connection.execute(query))
    return rows


def _whole_states(
    path: Path, events: Sequence[Sequence[Event]], blobs: dict[StateRef, bytes]
) -> dict[StateRef, Stored | None]:
    """Every reported state that still exists; None for one that does not match the log."""
    files, checked = StateFiles(path / STATES), set[str]()
    states: dict[StateRef, Stored | None] = {}
    for event in (event for part in events for event in part if isinstance(event, Reported)):
        ref, blob = event.state, blobs.get(event.state)
        exists = os.path.lexists(path / STATES / file_name(ref))
        if blob is None and not exists:
            continue
        states[ref] = None
        with contextlib.suppress(PBTError, OSError):
            size = files.check(ref, event.digest, blob, checked, mend=True)
            states[ref] = Stored(digest=event.digest, size=size, blob=blob)
    return states


def _newest_whole(
    meta: dict[str, str], events: Sequence[Sequence[Event]], whole: dict[StateRef, Stored | None]
) -> tuple[int, bool]:
    """The number of transactions up to the newest resumable moment, and whether its best state is lost."""
    values = {key: from_json(text) for key, text in meta.items()}
    check_recorded(values)
    view = empty_view({"seed": 0, "space": {}} | values)
    laws = LogLaws(view.space)
    intact = {ref for ref, stored in whole.items() if stored is not None}
    complete = without_best = 0
    for count, part in enumerate(events, 1):
        try:
            laws.check(part)
        except CorruptError:
            break
        view = apply(view, part)
        needed = {member.state for member in view.members if member.status == "live" and member.state is not None}
        if needed <= intact:
            without_best = count
            if view.best is None or view.best.state in intact:
                complete = count
    if any(isinstance(event, Reported) for part in events[:complete] for event in part):
        return complete, False
    return without_best, True  # no moment has its best state left; the run is resumable without it


def _write(path: Path, salvaged: _Found, cut: int, states: dict[StateRef, Stored], message: str) -> None:
    """Write the new database, durably, under its temporary name."""
    hparams = list(from_json(salvaged.meta.get("space", "{}")))
    parts = {**salvaged.lines, checksums.EVENTS: salvaged.lines[checksums.EVENTS][:cut]}
    connection = connect(path, "rwc", _PATIENCE)
    try:
        with transaction(connection):
            tables.create_tables(connection, salvaged.meta, hparams)
            for name, several in parts.items():
                for part in several:
                    tables.append(connection, name, part.lines)
            tables.write_states(connection, states)
            tables.write_journal(
                connection, tables.note_rows([NewEntry(kind="repaired", details={"message": message})], time.time())
            )
    finally:
        connection.close()
    with path.open(SYNCED) as file:
        sync(file.fileno())


def _free_name(path: Path) -> Path:
    number = 1
    while os.path.lexists(path / f"{DAMAGED}-{number}"):
        number += 1
    return path / f"{DAMAGED}-{number}"


def _hopeless(path: Path, why: str) -> CorruptError:
    return CorruptError(
        f"{path}: no intact round is left ({why}); nothing was changed; start the run again in another directory"
    )


def _few(items: Sequence[object]) -> str:
    if all(isinstance(item, int) for item in items) and len(items) > 1:
        numbers = [int(str(item)) for item in items]
        if numbers == list(range(numbers[0], numbers[-1] + 1)):
            return f"{numbers[0]} to {numbers[-1]}"
    shown = ", ".join(map(str, items[:5]))
    return shown if len(items) <= 5 else f"{shown} and {len(items) - 5} more"
