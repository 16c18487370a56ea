"""The writer lock of a run directory: a lock of the operating system, released when its process ends."""

import os
import socket
import time
import weakref
from pathlib import Path

from pbt.errors import RunLockedError
from pbt.store.system import CAREFUL, in_forked_child, lock, read_at, write_at

_PATIENCE = 0.5
"""Seconds to retry: a reader's probe holds the lock for microseconds."""

_held: "weakref.WeakSet[WriterLock]" = weakref.WeakSet()


class WriterLock:
    """A writer's lock, held from construction to `close` or the end of the process.

    The text in the file serves error messages only; the lock itself is known to the operating system.

    Args:
        path: The lock file, created if absent.

    Raises:
        RunLockedError: Another process, or another store of this process, holds the lock.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | CAREFUL, 0o666)
        try:
            self._take(path)
            holder = f"pid {os.getpid()} on host {socket.gethostname()}\n".encode()
            os.ftruncate(self._descriptor, 0)
            write_at(self._descriptor, holder, 0)
        except BaseException:
            os.close(self._descriptor)
            raise
        _held.add(self)

    def _take(self, path: Path) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                lock(self._descriptor)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = read_at(self._descriptor, 400, 0).decode(errors="replace").strip() or "unknown"
                    raise RunLockedError(
                        f"{path.parent}: expected no other writer, found {holder}; "
                        "wait for it or stop it, then try again"
                    ) from None
                time.sleep(0.01)
            else:
                return

    def close(self) -> None:
        """Release the lock. The file stays: without it two writers could lock two files of the same name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _let_go() -> None:
    for held in tuple(_held):
        held.close()


# A forked child (of a data loader, say) inherits the lock and would hold it beyond the death of this process. Closing
# the descriptor in the child gives up only the inherited copy; the parent keeps the lock.
in_forked_child(_let_go)


def is_locked(path: Path) -> bool:
    """Whether a writer holds the lock at this moment.

    Probes with a shared, non-blocking lock that is released at once: this kind of lock cannot be queried otherwise, and
    the kind that can is lost when its process closes any copy of the file. A writer that starts in these microseconds
    retries for half a second, so the probe does not disturb it; two probes do not see each other.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | CAREFUL)
    except FileNotFoundError:
        return False
    try:
        lock(descriptor, shared=True)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
