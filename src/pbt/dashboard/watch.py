"""Watch the runs in a folder at little cost.

A look at an unchanged run costs one `stat` and one test of its lock; of a changed run only the new part of the log is
read and folded onto the known view. File times are coarse on some systems, so a file that changed within the last two
seconds is read again even if its time is the same.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pbt.runs.catalog import CatalogEntry, RunFollower, runs_in, trials_in, unreadable
from pbt.store.layout import DATABASE
from pbt.store.live import live_stamp
from pbt.text import number, printable

SETTLED = 2.0
"""Seconds after a change from which on an equal file time means an unchanged file."""
BUDGET = 0.5
"""Seconds of reading per look; the rest of a large folder is read in later looks."""
MOST = 500
"""The most runs listed: the last changed ones."""
UNREAD = "not read yet"
"""The state of a run that no look has read yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedRun:
    """One run in the list."""

    path: Path
    key: str
    """Identifies the run in URLs: a hash of its name, never a path."""
    name: str
    state: str = UNREAD
    version: str = ""
    """Changes whenever anything about the run changes."""
    rounds: int = 0
    """Rounds finished by every member."""
    asked: int | None = None
    """Rounds that the run was started for; None if not recorded."""
    members: int = 0
    best: str = ""
    """The best score as text; empty before the first one."""
    best_score: float | None = None
    """The best score; None before the first finite one."""
    score: str = "score"
    """The display name of the score."""
    changed: float | None = None
    """Time of the last event, in seconds since 1970."""
    problem: str = ""
    """Why the run cannot be read; empty if it can."""

    def plain(self) -> dict[str, Any]:
        """Plain values without the path."""
        values = asdict(self)
        del values["path"]
        return values


class Watch:
    """Watches a run, or all runs in a folder. Not thread-safe.

    Args:
        place: The run directory, or the folder.
        clock: Returns seconds since 1970.
    """

    def __init__(self, place: Path, clock: Callable[[], float] = time.time) -> None:
        self.single = (place / DATABASE).is_file()
        self.name = printable(place.resolve().name)
        self.place = place
        self._clock = clock
        self._followed: dict[Path, _Followed] = {}
        self.left_out = 0

    def look(self) -> list[WatchedRun]:
        """The runs in their current state: running ones first, then the last changed."""
        self._followed = {path: self._followed.get(path) or _Followed(path, self.place) for path in self._paths()}
        deadline = time.monotonic() + BUDGET
        for followed in self._followed.values():
            followed.look(self._clock(), read=time.monotonic() < deadline)
        listed = [followed.listed for followed in self._followed.values()]
        return sorted(listed, key=lambda item: (item.state != "running", -(item.changed or 0), item.name))

    def _paths(self) -> list[Path]:
        if self.single:
            return [self.place]
        try:
            # The last changed run comes first, so that it is read first.
            runs = runs_in(self.place) or [trial.path for trial in trials_in(self.place)]
            times = {path: (path / DATABASE).stat().st_mtime_ns for path in runs}
        except OSError:
            return list(self._followed)  # a run is being removed; the next look lists the others
        paths = sorted(times, key=lambda path: (-times[path], path.name))
        self.left_out = max(0, len(paths) - MOST)
        return paths[:MOST]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stamp:
    """What can be known of a run without reading its log."""

    file: tuple[int, int, int]
    writing: bool
    settled: bool
    live: int
    """Changes with the points of the rounds in progress."""


class _Followed:
    """A run with its last entry; its log is read only if it may have changed."""

    def __init__(self, path: Path, place: Path) -> None:
        # In a comparison with its plan: the seed alone names several runs.
        name = path.relative_to(place).as_posix() if path != place else path.resolve().name
        key = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]
        self.path = path
        self.listed = WatchedRun(path=path, key=key, name=printable(name))
        self._stamp: _Stamp | None = None
        self._run = RunFollower(path)

    def look(self, now: float, *, read: bool) -> None:
        """Update `listed`; if not `read`, only as far as possible without reading the log."""
        try:
            self._look(now, read=read)
        except Exception as error:  # noqa: BLE001 (the folder is untrusted; the other runs must still be shown)
            self._run.forget()
            self._stamp = None
            problem = unreadable(self.path, error)
            self._show(CatalogEntry(path=self.path, problem=problem), problem)

    def _look(self, now: float, *, read: bool) -> None:
        status = (self.path / DATABASE).stat()
        file = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._stamp is None or self._stamp.file[0] != file[0]:
            self._run.forget()
            if not read:
                return
        settled = abs(now - status.st_mtime) > SETTLED
        writing = self._run.is_writing()
        live = live_stamp(self.path) if writing else 0
        stamp = _Stamp(file=file, writing=writing, settled=settled, live=live)
        if read and (stamp != self._stamp or not settled):
            entry = self._run.read()
            self._show(entry, file[0], self._run.last, entry.state, entry.rounds, live)
            self._stamp = stamp

    def _show(self, entry: CatalogEntry, *version: object) -> None:
        self.listed = WatchedRun(
            path=self.path,
            key=self.listed.key,
            name=self.listed.name,
            state=entry.state,
            version=_version(*version),
            rounds=entry.rounds_done or 0,
            asked=entry.rounds,
            members=entry.population or 0,
            best="" if entry.best is None else number(entry.best),
            best_score=entry.best if entry.best is not None and math.isfinite(entry.best) else None,
            score=entry.score,
            changed=entry.changed,
            problem=printable(entry.problem),
        )


def _version(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
