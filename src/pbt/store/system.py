"""Calls of the operating system that are not everywhere: locks, durable writing, and reading at an offset.

Chosen by the presence of each function, not by the name of the system. Windows lacks `fcntl`, `os.pread`, `O_NOFOLLOW`
and synchronized folders, where its own lock (`msvcrt.locking`) and seeking take their place; on macOS `fsync` leaves
data in the drive's cache, which `F_FULLFSYNC` empties.
"""

import importlib
import os
import time
from collections.abc import Callable
from typing import Any


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_fcntl, _msvcrt = _module("fcntl"), _module("msvcrt")
CAREFUL = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
"""Flags against reading or writing through a link, blocking on a pipe, and translation of line ends."""
FOLDER = getattr(os, "O_DIRECTORY", None)
"""The flag to open a folder; None where folders cannot be opened."""
SYNCED = "rb" if FOLDER is not None else "r+b"
"""The mode in which a finished file is opened to be made durable; Windows does that to writable ones only."""
_SLOTS = 64
"""Bytes that stand for the lock where only bytes can be locked: a shared lock takes one, an exclusive one all."""
_LOCKED_AT = 1 << 30
"""Their offset: far beyond the text in the file, because other processes cannot read a locked byte."""
_PAUSE = 0.01


def lock(descriptor: int, *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file until its descriptor is closed.

    Args:
        descriptor: The file.
        shared: Whether others may hold a shared lock at the same time.
        wait: Whether to wait for the lock.

    Raises:
        BlockingIOError: Another holder has the lock, and `wait` is False.
    """
    if _fcntl is not None:
        _fcntl.flock(descriptor, (_fcntl.LOCK_SH if shared else _fcntl.LOCK_EX) | (0 if wait else _fcntl.LOCK_NB))
        return
    while not _lock_bytes(descriptor, shared=shared):
        if not wait:
            raise BlockingIOError("the file is locked")
        time.sleep(_PAUSE)


def _lock_bytes(descriptor: int, *, shared: bool) -> bool:
    for slot in range(_SLOTS) if shared else (0,):
        os.lseek(descriptor, _LOCKED_AT + slot, os.SEEK_SET)
        try:
            _msvcrt.locking(descriptor, _msvcrt.LK_NBLCK, 1 if shared else _SLOTS)
        except OSError:
            continue
        return True
    return False


def sync(descriptor: int) -> None:
    """Make the content of a file, open for writing, durable."""
    full = getattr(_fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            _fcntl.fcntl(descriptor, full)
        except OSError:  # a network file system without it
            pass
        else:
            return
    os.fsync(descriptor)


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Up to `count` bytes from an offset on; the descriptor belongs to one thread where this has to seek."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


def fill_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read from an offset on into a buffer; the number of bytes, 0 at the end."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    piece = read_at(descriptor, len(buffer), offset)
    buffer[: len(piece)] = piece
    return len(piece)


def write_at(descriptor: int, content: bytes, offset: int) -> None:
    """Write all bytes at an offset."""
    done = 0
    if not hasattr(os, "pwrite"):
        os.lseek(descriptor, offset, os.SEEK_SET)
    while done < len(content):
        piece = content[done:]
        done += os.pwrite(descriptor, piece, offset + done) if hasattr(os, "pwrite") else os.write(descriptor, piece)


def in_forked_child(call: Callable[[], None]) -> None:
    """Call this in every forked child, on systems that fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def physical_memory() -> int | None:
    """The bytes of memory of this machine; None: the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
