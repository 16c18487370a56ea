"""One writer per run directory: a lock of the operating system, which dies with the process that holds it."""

import fcntl
import os
import socket
import time
import weakref
from pathlib import Path

from pbt.errors import RunLockedError

_PATIENCE = 0.5
"""Seconds a writer keeps trying: a reader's probe holds the lock for some microseconds."""
_CAREFUL = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""What is written here must not go elsewhere through a link, and a pipe of this name must not hold anybody up."""

_held: "weakref.WeakSet[WriterLock]" = weakref.WeakSet()


class WriterLock:
    """Held from construction to `close`, or to the end of the process, however it comes.

    The text in the file is for the message alone; whether the lock is held is known to the system only.

    Args:
        path: The lock file, made if it is not there.

    Raises:
        RunLockedError: Another process, or another store of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _CAREFUL, 0o666)
        try:
            self._take(path)
            holder = f"pid {os.getpid()} on host {socket.gethostname()}\n".encode()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, holder, 0)
        except BaseException:
            os.close(self._descriptor)
            raise
        _held.add(self)

    def _take(self, path: Path) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(self._descriptor, 400, 0).decode(errors="replace").strip() or "unknown"
                    raise RunLockedError(
                        f"{path.parent}: expected no other writer, found one: {holder}; "
                        "wait for it or stop it, then try again"
                    ) from None
                time.sleep(0.01)
            else:
                return

    def close(self) -> None:
        """Let go. The file stays: to remove it would let two writers lock two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _let_go() -> None:
    for lock in tuple(_held):
        lock.close()


# A forked child (of a data loader, say) inherits the lock and would hold it when this process is dead. In the
# child, to close the descriptor gives up the inheritance only; the lock itself stays with the parent.
os.register_at_fork(after_in_child=_let_go)


def is_locked(path: Path) -> bool:
    """Whether a writer holds the lock at this moment.

    Asked by taking a shared lock without waiting and letting go at once. The systems have no question without
    an attempt for this kind of lock, and the kind that has one is lost as soon as its process closes any copy of
    the file. A writer that starts in just these microseconds tries again for half a second, so it is not disturbed;
    two probes do not see each other.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _CAREFUL)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
