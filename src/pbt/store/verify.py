"""Verification of a run: all checks, each independent of the findings of the others."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pbt.core.ages import Ages
from pbt.core.checkpoint import from_plain, to_plain, unfolded
from pbt.core.events import Event, Reported
from pbt.core.fold import empty_view, fold
from pbt.core.laws import LogLaws, check_fold
from pbt.core.population import StateRef, Stored, View
from pbt.errors import CorruptError, PBTError, RunError, RunFormatError
from pbt.store import checksums
from pbt.store.base import Checkpoint, Problem
from pbt.store.durable import TEMPORARY
from pbt.store.event_text import dump
from pbt.store.files import OBJECTS, REFERENCES, StateFiles, file_name, ref_of
from pbt.store.layout import DATABASE, STATES
from pbt.store.plain_json import decoded
from pbt.store.reader import Contents, RunReader
from pbt.store.tables import EventRow, damaged
from pbt.store.waves import numbered, to_events


def verify_run(path: str | Path) -> list[Problem]:
    """All problems of a run directory, which may be in use; nothing is changed.

    Raises:
        RunFormatError: Not a run directory, or one of another version.
    """
    path = Path(path)
    problems = []
    try:
        with RunReader(path) as reader:
            problems += [Problem(what=DATABASE, message=text) for text in reader.damage()]
            problems += _verify(reader, path / STATES)
    except RunFormatError:
        raise
    except RunError as error:
        problems.append(Problem(what=DATABASE, message=str(error)))
    return problems


def verify_content(
    meta: Mapping[str, Any],
    texts: Sequence[tuple[int, str]],
    stored: Mapping[StateRef, Stored],
    states: StateFiles,
    checkpoint: Checkpoint | None = None,
) -> list[Problem]:
    """All problems of a log, given as ids and texts, the states it names, and its checkpoint."""
    events, problems = _decoded(texts)
    view = None
    if not problems:
        view, problems = _folded(meta, events)
    for ref in sorted(_needed(view)) if view is not None else ():
        if ref not in stored:
            message = (
                f"expected the state of member {ref.member}, round {ref.round}, found none; the run cannot be resumed"
            )
            problems.append(Problem(what=file_name(ref), message=message))
    digests = {event.state: event.digest for event in events if isinstance(event, Reported)}
    checked: set[str] = set()
    for ref, record in stored.items():
        if not problems and digests.get(ref) != record.digest:
            message = f"expected SHA-256 {digests.get(ref, 'of no state')}, as the log says, found {record.digest}"
            problems.append(Problem(what=file_name(ref), message=message))
        try:
            states.check(ref, record.digest, record.blob, checked)
        except RunError as error:
            problems.append(Problem(what=file_name(ref), message=str(error)))
    if view is not None and checkpoint is not None and not _is_fold(checkpoint, meta, events):
        message = f"expected the fold of events 1 to {checkpoint.last}, found another"
        problems.append(Problem(what="checkpoint", message=message))
    return problems


def _verify(reader: RunReader, folder: Path) -> list[Problem]:
    files = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    contents = reader.everything()
    stored = contents.stored
    rows = [EventRow(*line) for line in contents.lines[checksums.EVENTS]]  # type: ignore[arg-type]
    texts = [(row.id, str(row.data)) for row in rows]
    problems = _unsealed(contents)
    meta: Mapping[str, Any] = {}
    try:
        meta = reader.meta
    except CorruptError as error:
        problems.append(Problem(what="meta", message=str(error)))
    problems += verify_content(meta, texts, stored, reader.states, contents.checkpoint)
    reported = {problem.what for problem in problems}
    problems += [
        Problem(what=file_name(ref), message=f"expected {record.size:,} bytes, found {size:,}")
        for ref, record in stored.items()
        if file_name(ref) not in reported and (size := _size(folder, ref, record)) not in (None, record.size)
    ]
    # A running writer may have swept a state meanwhile, and a file without a row may be about to get one.
    refs = reader.refs()
    swept = {file_name(ref) for ref in stored if ref not in refs}
    problems = [problem for problem in problems if problem.what not in swept]
    if reader.is_writing():
        return problems
    return problems + [_stray(name) for name in files if not _belongs(name, refs)] + _stray_objects(reader.states, refs)


def _unsealed(contents: Contents) -> list[Problem]:
    """The rows that do not match their seals."""
    if not contents.sealed:
        message = "an earlier version wrote this run: its rows have no seals to check until it is resumed"
        return [Problem(what=DATABASE, message=message, harmless=True)]
    problems = []
    if not contents.head_is_whole:
        problems.append(Problem(what="meta", message="expected the values that were written, found others"))
    if contents.has_damaged_checkpoint:
        problems.append(Problem(what="checkpoint", message="expected the one that was written, found another or none"))
    for what, lines in contents.lines.items():
        problems += [
            Problem(what=what, message=damaged(part).replace("event", what.removesuffix("s"), 1))
            for part in checksums.transactions(lines, contents.sealed[what])
            if not part.whole
        ]
    return problems


def _size(folder: Path, ref: StateRef, record: Stored) -> int | None:
    """The actual size of a state in bytes; None if its file is missing, which another check reports."""
    if record.blob is not None:
        return len(record.blob)
    try:
        return (folder / file_name(ref)).lstat().st_size
    except OSError:
        return None


def _decoded(texts: Sequence[tuple[int, str]]) -> tuple[list[Event], list[Problem]]:
    try:
        return to_events(texts), []
    except CorruptError as error:
        whole = Problem(what="events", message=str(error))
    problems = []
    for one in texts:
        try:
            numbered([one])
        except CorruptError as error:
            problems.append(Problem(what=f"event {one[0]}", message=str(error)))
    return [], problems or [whole]


def _folded(meta: Mapping[str, Any], events: Sequence[Event]) -> tuple[View | None, list[Problem]]:
    try:
        empty = empty_view({"seed": 0, "space": {}} | dict(meta))
    except (PBTError, KeyError, TypeError, ValueError, AttributeError) as error:
        return None, [Problem(what="meta", message=f"expected a seed and a space, found none ({error!r})")]
    try:
        LogLaws(empty.space).check(events)
    except CorruptError as error:
        return None, [Problem(what="events", message=str(error))]
    return fold(events, empty), []


def _is_fold(checkpoint: Checkpoint, meta: Mapping[str, Any], events: Sequence[Event]) -> bool:
    """Whether a checkpoint says what the log says; one of another version is not read."""
    try:
        plain = decoded(checkpoint.text)
        ages = None if plain["ages"] is None else Ages()
        empty = replace(empty_view({"seed": 0, "space": {}} | dict(meta)), lookback=plain["lookback"], ages=ages)
        saved = from_plain(plain, checkpoint.last, empty)
        if saved is None:
            return True
        check_fold(saved)
        folded = unfolded(empty).after(events[: checkpoint.last])
        folded.standings.forget(saved.standings.founders)
        return dump(to_plain(saved)) == dump(to_plain(folded))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError):
        return False


def _needed(view: View) -> set[StateRef]:
    """The states needed to resume the run, and the best one."""
    needed = {member.state for member in view.members if member.status == "live" and member.state is not None}
    return needed if view.best is None else needed | {view.best.state}


def _belongs(name: str, refs: Mapping[StateRef, bool]) -> bool:
    ref = ref_of(name)
    return name == OBJECTS or (ref is not None and refs.get(ref, False)) or ref_of(name, REFERENCES) in refs


def _stray_objects(states: StateFiles, refs: Collection[StateRef]) -> list[Problem]:
    names = [] if states.objects is None else states.objects.names()
    try:
        needed = {sha256 for ref in refs for sha256 in states.references(ref)} if names else set()
    except CorruptError:
        return []  # reported with its state
    return [_stray(f"{OBJECTS}/{name}") for name in names if name not in needed]


def _stray(name: str) -> Problem:
    what = "an unfinished file" if name.endswith(TEMPORARY) else "a file that no record names"
    return Problem(what=f"{STATES}/{name}", message=f"{what}; safe to delete", harmless=True)
