"""Which runs there are and how they stand, seen as cheaply as it can be.

Where nothing was added since the last look, a look is one `stat` and one question to the operating system's lock; else
the new part of the log is read and folded onto the rest. The time of a file is coarse on some systems, so one that
was changed in the last two seconds is read again although it looks the same.
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
"""Seconds after which the time of a file tells every change apart."""
BUDGET = 0.5
"""Seconds of reading in one look; the rest of a large folder is read in the next ones."""
MOST = 500
"""Runs that are listed; those changed last."""
UNREAD = "not read yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedRun:
    """One run in the list, in words."""

    path: Path
    key: str
    """What it is called in addresses: made from its name, and no path."""
    name: str
    state: str = UNREAD
    version: str = ""
    """Another one whenever anything about the run is."""
    rounds: int = 0
    """Rounds that every member has finished."""
    asked: int | None = None
    members: int = 0
    best: str = ""
    score: str = "score"
    changed: float | None = None
    """When something was last added, in seconds since 1970."""
    problem: str = ""
    """Why it cannot be read."""

    def plain(self) -> dict[str, Any]:
        """Plain values, without where it lies."""
        found = asdict(self)
        del found["path"]
        return found


class Watch:
    """A run, or the runs in a folder; to be asked by one thread at a time.

    Args:
        place: The run directory, or the folder.
        clock: Seconds since 1970.
    """

    def __init__(self, place: Path, clock: Callable[[], float] = time.time) -> None:
        self.single = (place / DATABASE).is_file()
        self.name = printable(place.resolve().name)
        self._place = place
        self._clock = clock
        self._followed: dict[Path, _Followed] = {}
        self.left_out = 0

    def look(self) -> list[WatchedRun]:
        """The runs as they are now, running ones first, then those changed last."""
        found = self._paths()
        self._followed = {path: self._followed.get(path) or _Followed(path) for path in found}
        deadline = time.monotonic() + BUDGET
        for followed in self._followed.values():
            followed.look(self._clock(), read=time.monotonic() < deadline)
        listed = [followed.listed for followed in self._followed.values()]
        return sorted(listed, key=lambda item: (item.state != "running", -(item.changed or 0), item.name))

    def _paths(self) -> list[Path]:
        if self.single:
            return [self._place]
        try:
            # The last changed first: it is read first.
            times = {path: (path / DATABASE).stat().st_mtime_ns for path in runs_in(self._place)}
        except OSError:
            return list(self._followed)  # one that is being removed; the next look knows more
        paths = sorted(times, key=lambda path: (-times[path], path.name))
        self.left_out = max(0, len(paths) - MOST)
        return paths[:MOST]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stamp:
    """What is known of a run without opening it."""

    file: tuple[int, int, int]
    writing: bool
    settled: bool


class _Followed:
    """One run, as far as it was read."""

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
        """Bring `listed` up to date; without `read` only where nothing has to be read."""
        try:
            self._look(now, read=read)
        except PBTError as error:
            self._fail(str(error))
        except FileNotFoundError:
            self._fail(f"{self.path}: is gone")
        except OSError as error:
            self._fail(f"{self.path}: cannot be read ({error.strerror or error})")
        except Exception as error:  # noqa: BLE001 (a stranger's folder may hold anything; the other runs are still shown)
            self._fail(f"{self.path}: expected a run of this package, found something else ({type(error).__name__})")

    def _look(self, now: float, *, read: bool) -> None:
        found = (self.path / DATABASE).stat()
        file = (found.st_ino, found.st_size, found.st_mtime_ns)
        if self._stamp is None or self._stamp.file[0] != file[0]:
            self._forget()
            if not read:
                return
        if self._reader is None:
            self._reader = RunReader(self.path)
        settled = abs(now - found.st_mtime) > SETTLED
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
            self._meta = reader.meta  # a run that is extended is given more rounds
        missing = [name for name in RECORDED if name not in self._meta]
        if missing:
            raise RunFormatError(f"{self.path}: expected a run with a recorded {', '.join(missing)}, found none")
        view = self._view or empty_view(self._meta)
        self._view = apply(view, [one.event for one in logged])
        if logged:
            self._last, self._changed = logged[-1].id, logged[-1].clock
        self.listed = self._told(self._view, stamp)

    def _told(self, view: View, stamp: _Stamp) -> WatchedRun:
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
