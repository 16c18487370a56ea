"""Watch the runs in a folder at little cost.

A look at an unchanged run costs one `stat` and one test of its lock; of a changed run only the new part of the log is
read and folded onto the known view. File times are coarse on some systems, so a file that changed within the last two
seconds is read again even if its time is the same.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pbt.core.fold import apply, empty_view
from pbt.core.population import View
from pbt.errors import PBTError, RunFormatError
from pbt.report.read import RECORDED
from pbt.runs.catalog import UNREADABLE, runs_in, state_of
from pbt.store.layout import DATABASE
from pbt.store.reader import RunReader
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
        self._place = place
        self._clock = clock
        self._followed: dict[Path, _Followed] = {}
        self.left_out = 0

    def look(self) -> list[WatchedRun]:
        """The runs in their current state: running ones first, then the last changed."""
        self._followed = {path: self._followed.get(path) or _Followed(path) for path in self._paths()}
        deadline = time.monotonic() + BUDGET
        for followed in self._followed.values():
            followed.look(self._clock(), read=time.monotonic() < deadline)
        listed = [followed.listed for followed in self._followed.values()]
        return sorted(listed, key=lambda item: (item.state != "running", -(item.changed or 0), item.name))

    def _paths(self) -> list[Path]:
        if self.single:
            return [self._place]
        try:
            # The last changed run comes first, so that it is read first.
            times = {path: (path / DATABASE).stat().st_mtime_ns for path in runs_in(self._place)}
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


class _Followed:
    """A run with the view of its log so far."""

    def __init__(self, path: Path) -> None:
        name = path.resolve().name
        key = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:16]
        self.path = path
        self.listed = WatchedRun(path=path, key=key, name=printable(name))
        self._stamp: _Stamp | None = None
        self._reader: RunReader | None = None
        self._meta: dict[str, Any] = {}
        self._view: View | None = None
        self._last = 0
        self._changed: float | None = None

    def look(self, now: float, *, read: bool) -> None:
        """Update `listed`; if not `read`, only as far as possible without reading the log."""
        try:
            self._look(now, read=read)
        except PBTError as error:
            self._fail(str(error))
        except FileNotFoundError:
            self._fail(f"{self.path}: was removed")
        except OSError as error:
            self._fail(f"{self.path}: cannot be read ({error.strerror or error})")
        except Exception as error:  # noqa: BLE001 (the folder is untrusted; the other runs must still be shown)
            self._fail(f"{self.path}: expected a run of this package, found something else ({type(error).__name__})")

    def _look(self, now: float, *, read: bool) -> None:
        status = (self.path / DATABASE).stat()
        file = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._stamp is None or self._stamp.file[0] != file[0]:
            self._forget()
            if not read:
                return
        if self._reader is None:
            self._reader = RunReader(self.path)
        settled = abs(now - status.st_mtime) > SETTLED
        stamp = _Stamp(file=file, writing=self._reader.is_writing(), settled=settled)
        if read and (stamp != self._stamp or not settled):
            self._read(self._reader, stamp)
            self._stamp = stamp

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader, self._view, self._meta, self._last, self._changed = None, None, {}, 0, None

    def _read(self, reader: RunReader, stamp: _Stamp) -> None:
        logged = reader.events_after(self._last)
        if self._view is None or logged or stamp.writing != (self._stamp and self._stamp.writing):
            self._meta = reader.meta  # extending a run changes its rounds
        missing = [name for name in RECORDED if name not in self._meta]
        if missing:
            raise RunFormatError(f"{self.path}: expected a run with a recorded {', '.join(missing)}, found none")
        view = self._view or empty_view(self._meta)
        self._view = apply(view, [one.event for one in logged])
        if logged:
            self._last, self._changed = logged[-1].id, logged[-1].clock
        self.listed = self._listed(self._view, stamp)

    def _listed(self, view: View, stamp: _Stamp) -> WatchedRun:
        asked, best = self._meta.get("rounds"), view.best
        state = state_of(view, writing=stamp.writing)
        return WatchedRun(
            path=self.path,
            key=self.listed.key,
            name=self.listed.name,
            state=state,
            version=_version(stamp.file[0], self._last, state, asked),
            rounds=min((member.round for member in view.population), default=view.round),
            asked=asked if isinstance(asked, int) else None,
            members=len(view.population),
            best="" if best is None else number(view.sign * best.score),
            score=printable((self._meta.get("application") or {}).get("score") or "score"),
            changed=self._changed,
        )

    def _fail(self, problem: str) -> None:
        self._forget()
        self._stamp = None
        self.listed = WatchedRun(
            path=self.path,
            key=self.listed.key,
            name=self.listed.name,
            state=UNREADABLE,
            version=_version(problem),
            problem=printable(problem),
        )


def _version(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
