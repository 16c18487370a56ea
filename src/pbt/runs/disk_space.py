"""Disk space of a run: an estimate before every wave, so that a run stops before the disk is full.

The size of a round is known after the first report, because all states of a run have about the same size. Until then
only a lower bound is known, the size of the log.
"""

import contextlib
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pbt.core.events import Event
from pbt.core.population import StateRef
from pbt.errors import DiskError, UsageError
from pbt.executors.base import Outcome, Report
from pbt.runs.engine import Engine, Observer
from pbt.store.durable import MOVED
from pbt.store.layout import STATES

log = logging.getLogger("pbt")

ROW_BYTES = 600
"""Log size of a member's round: a report and a decision, with a few hyperparameters."""
SLACK = 1 << 18
"""Room for the tables, the journal of a transaction, and small files beside the log."""
KEPT_ROUNDS = 2
"""Rounds whose states are kept, besides the one being written."""


class Disk(Observer):
    """Stops a run, without loss, when the next wave does not fit on the disk.

    It must be the last observer, so that the others have seen everything logged when it stops the run.

    Args:
        most: Maximal size of the run directory in bytes; None: the free space of the disk.

    Raises:
        DiskError: From every hook, if the space does not suffice.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._largest = 0
        self._waiting = 0
        self._beside: int | None = None
        self._warned = False
        self._files: set[str] = set()
        """Files of folders that were in the run before."""

    def on_start(self, engine: Engine) -> None:
        """Check before training: by the lower bound, or by the existing states."""
        if engine.store.path is None or engine.finished:
            return
        # The state of a retired member may have been swept.
        kept = [m.state for m in engine.view.members if m.state is not None and m.status != "retired"]
        needed = {state: engine.store.states.references(state) for state in kept}
        users = Counter(sha256 for files in needed.values() for sha256 in files)
        self._files = set(users)
        # A round adds the files that only its own state needs.
        own = {ref: sum(n for sha256, n in files.items() if users[sha256] == 1) for ref, files in needed.items()}
        self._largest = max((engine.store.stored(state).size + own[state] for state in kept), default=0)
        self._check(engine, engine.store.path)

    def on_outcome(self, engine: Engine, outcome: Outcome) -> None:
        """Check the whole wave again whenever a state is larger than all before."""
        if engine.store.path is None or not isinstance(outcome, Report):
            return
        self._waiting -= 1
        size = outcome.stored.size
        if outcome.stored.folders:
            size += self._added(engine, StateRef(outcome.member, outcome.round))
        if size > self._largest:
            self._largest = size
            self._check(engine, engine.store.path, waiting=max(0, self._waiting))

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:  # noqa: ARG002 (an observer's form)
        """Check before the next wave."""
        if engine.store.path is not None and not engine.finished:
            self._check(engine, engine.store.path)

    def _added(self, engine: Engine, state: StateRef) -> int:
        """Bytes of the files that a new state brought into the run."""
        files = engine.store.states.references(state)
        if files and not self._files:
            # Of the first folder it is unknown what later ones share, such as a frozen network.
            self._files |= files.keys()
            return 0
        added = sum(size for sha256, size in files.items() if sha256 not in self._files)
        self._files |= files.keys()
        return added

    def _check(self, engine: Engine, path: Path, waiting: int | None = None) -> None:
        if not path.is_dir():
            raise DiskError(f"{path}: {MOVED}")
        due = sum(member.status == "live" for member in engine.view.members)
        if waiting is None:
            waiting = self._waiting = due
        # The transaction that extends the log keeps a copy of the pages that it changes.
        # With folders there are working copies besides.
        soon = (2 if self._files else 1) * waiting * self._largest + 2 * due * ROW_BYTES + SLACK
        if self._most is not None:
            used = size_of(path)
            # Tables, scalars and pictures beside the states grow at their past rate.
            beside = used - size_of(path / STATES)
            soon += 0 if self._beside is None else max(0, beside - self._beside)
            self._beside = beside
            if used + soon > self._most:
                raise DiskError(
                    f"{path}: takes {sized(used)} after round {engine.view.round}, the next round needs about "
                    f"{sized(soon)} more, and at most {sized(self._most)} are allowed; everything is kept; "
                    "resume the run with a larger --max-disk"
                )
            return
        free = shutil.disk_usage(path).free
        rows = 2 * due * ROW_BYTES * max(1, engine.course.rounds - engine.view.round)
        if engine.view.round == 0 and waiting == due:
            soon += rows  # a run without room for its own log must not start
        if soon > free:
            raise DiskError(
                f"{path}: expected room for the next round, about {sized(soon)}, but the disk has {sized(free)} free; "
                "everything is kept; make room, then resume the run"
            )
        kept = min(KEPT_ROUNDS, engine.course.rounds - 1) * due * self._largest
        if not self._warned and soon + kept + rows > free:
            self._warned = True
            log.warning(
                "%s: the disk has %s free, and this run will need about %s; it stops before the disk is full "
                "and can be resumed",
                path,
                sized(free),
                sized(soon + kept + rows),
            )


def size_of(folder: Path, seen: set[tuple[int, int]] | None = None) -> int:
    """Size of the files in a folder in bytes; hard links count once, symbolic links are not followed."""
    total, seen = 0, set() if seen is None else seen
    for found in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # swept meanwhile, or temporary
            if found.is_dir(follow_symlinks=False):
                total += size_of(Path(found.path), seen)
                continue
            stat = found.stat(follow_symlinks=False)
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                total += max(stat.st_size, stat.st_blocks * 512)
    return total


def bounded(text: str | None) -> list[Observer]:
    """The observer for the limit set by `--max-disk`; none without a limit.

    Raises:
        UsageError: `text` is not a size.
    """
    return [] if text is None else [Disk(most=bytes_of(text))]


def bytes_of(text: str) -> int:
    """Parse a size such as `2G`, `500 MiB` or `4096` into bytes; units are powers of 1024.

    Raises:
        UsageError: It is not a size.
    """
    found = _SIZE.fullmatch(text.strip())
    count = 0 if found is None else int(float(found["count"]) * 1024 ** "bkmgt".index((found["unit"] or "b").lower()))
    if count < 1:
        raise UsageError(f"--max-disk: expected a size as 2G or 500M, got '{text}'")
    return count


_SIZE = re.compile(r"(?P<count>[0-9]{1,15}(\.[0-9]{1,6})?) *(?P<unit>[bkmgt]?)(ib|b)?", re.IGNORECASE)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def sized(count: float) -> str:
    """Format a number of bytes."""
    power = 0
    while count >= 1024 and power < len(_UNITS) - 1:
        count /= 1024
        power += 1
    return f"{count:.3g} {_UNITS[power]}"
