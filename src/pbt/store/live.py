"""Points of the rounds in progress, as one small file per member beside the run's database.

The files are derived: nothing is read from them when a run resumes, none is durable, and all are removed when the run
is opened and closed. A run directory may come from a stranger, so readers follow no link, wait for no pipe, and read a
bounded number of bytes.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pbt.errors import CorruptError
from pbt.store.event_rows import from_json, to_json
from pbt.store.layout import LIVE
from pbt.store.points import Points, from_plain, to_plain
from pbt.store.system import CAREFUL, FOLDER

HEAD = 4096
"""The most bytes of the first line."""
LARGEST = 2**19
"""The most bytes of a file; the largest one that `LiveFile` writes is smaller."""
FILES = 1000
"""The most files read at a time."""
TOTAL = 2**24
"""The most bytes read at a time."""
NEWEST = 4
"""The most names in the first line."""

_NAME = re.compile(r"[0-9]{1,19}\.json")
_SHARE = re.compile(r"[0-9]{1,19}\.share")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestPoint:
    """The newest numbers of a member in training."""

    member: int
    round: int
    step: int
    values: dict[str, float]
    """The newest value of each of the first few names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePoints:
    """The points of a round in progress, so far."""

    member: int
    round: int
    points: Points


@dataclass(frozen=True, slots=True)
class LiveFile:
    """The file of one round, written by its worker.

    The first line has the newest numbers, the second one all points. The file is replaced as a whole, so that a reader
    never finds a part of it.

    Args:
        folder: The folder of these files.
        member: The member.
        round: Its round.
    """

    folder: Path
    member: int
    round: int

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / f"{self.member}.json"

    def remove(self) -> None:
        """Remove the file of the member's last round or attempt."""
        # Called in every round, mostly for a file that was never written: no path objects.
        with contextlib.suppress(OSError):
            os.unlink(f"{self.folder}/{self.member}.json")  # noqa: PTH108

    def write(self, points: Points) -> None:
        """Replace the file; a disk that cannot be written is no error of a round, so that nothing happens then."""
        series = {name: points[name][-1] for name in islice(points, NEWEST)}
        newest = {"step": max(step for step, _ in series.values()), "values": {n: v for n, (_, v) in series.items()}}
        head = to_json({"member": self.member, "round": self.round, **newest}, "live points")
        text = f"{head}\n{to_json(to_plain(points), 'live points')}\n"
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.path)


@dataclass(frozen=True, slots=True)
class ShareFile:
    """The file of a program that trains several members at once, with the share of the round's steps that are done.

    Args:
        folder: The folder of these files.
        members: The members.
        round: Their round.
    """

    folder: Path
    members: tuple[int, ...]
    round: int

    def write(self, share: float) -> None:
        """Replace the file; a disk that cannot be written is no error of a round, so that nothing happens then."""
        path = self.folder / f"{self.members[0]}.share"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        text = to_json({"members": list(self.members), "round": self.round, "share": share}, "a share of a round")
        with contextlib.suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)


def read_shares(run: Path) -> dict[int, tuple[int, float]]:
    """The round in progress and the share of its steps that are done, by member of a program."""
    found: dict[int, tuple[int, float]] = {}
    with _opened(run) as folder:
        for name in _names(folder, _SHARE) if folder is not None else []:
            with contextlib.suppress(CorruptError, UnicodeDecodeError, KeyError, TypeError):
                plain = from_json(_read(folder, name, LARGEST).decode())
                members, round_, share = plain["members"], plain["round"], plain["share"]
                if type(round_) is int and type(share) is float and 0 <= share <= 1:
                    found.update((member, (round_, share)) for member in members if type(member) is int)
    return found


def read_newest(run: Path, members: list[int]) -> dict[int, NewestPoint]:
    """The newest numbers of these members by id; members without a valid file are left out."""
    found = {}
    with _opened(run) as folder:
        for member in members[:FILES] if folder is not None else []:
            newest = _newest(_read(folder, f"{member}.json", HEAD))
            if newest is not None and newest.member == member:
                found[member] = newest
    return found


def read_live(run: Path) -> list[LivePoints]:
    """The points of all rounds in progress, by member; files that are none of ours are left out."""
    found, left = [], TOTAL
    with _opened(run) as folder:
        for name in _names(folder, _NAME) if folder is not None else []:
            content = _read(folder, name, LARGEST)
            left -= len(content)
            newest = _newest(content)
            if newest is None or len(content) > LARGEST or left < 0:
                continue
            with contextlib.suppress(CorruptError, UnicodeDecodeError):
                points = from_plain(from_json(content.partition(b"\n")[2].decode()))
                if points and name == f"{newest.member}.json":
                    found.append(LivePoints(member=newest.member, round=newest.round, points=points))
    return sorted(found, key=lambda live: live.member)


def live_stamp(run: Path) -> int:
    """A number that changes with every point that is written; 0 without live points."""
    try:
        return (run / LIVE).lstat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def _opened(run: Path) -> Iterator[int | None]:
    """The folder as a descriptor, which no link can replace while it is read; None: there is no such folder."""
    if FOLDER is None:  # Windows
        yield None
        return
    try:
        folder = os.open(run / LIVE, os.O_RDONLY | FOLDER | CAREFUL)
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        os.close(folder)


def _names(folder: int, pattern: re.Pattern[str]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, 2 * FILES) if pattern.fullmatch(entry.name)][:FILES]
    except OSError:
        return []


def _read(folder: int | None, name: str, most: int) -> bytes:
    """The first bytes of a regular file, one more than `most` at the most; of anything else none."""
    flags = os.O_RDONLY | CAREFUL
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor, no path)
            return file.read(most + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""


def _newest(content: bytes) -> NewestPoint | None:
    """The record in the first line; None if it is none."""
    line, end, _ = content[: HEAD + 1].partition(b"\n")
    try:
        plain = from_json(line.decode()) if end else {}
        # Written and read in one form: what is left out of the values was not written here.
        values = from_plain({name: {"step": [0], "value": [value]} for name, value in plain["values"].items()})
        numbers = [plain[name] for name in ("member", "round", "step")]
    except (CorruptError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return None
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or not values:
        return None
    member, round_, step = numbers
    return NewestPoint(
        member=member, round=round_, step=step, values={name: series[0][1] for name, series in values.items()}
    )
