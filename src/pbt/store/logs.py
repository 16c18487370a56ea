"""Read the end of the logs that programs leave in a run directory; the directory may come from a stranger."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from pbt.store.layout import LOGS
from pbt.text import printable

BYTES = 8 << 10
"""The most bytes read from the end of a log."""
LINES = 80
"""The most lines."""
_NAME = re.compile(r"(\d{6,12})-(\d{6,12})\.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogTail:
    """The end of a log."""

    name: str
    """Its path in the run directory."""
    text: str
    """Lines without control characters."""


def log_tail(path: Path, member: int) -> LogTail | None:
    """The end of a member's newest log; None if it has none.

    Links are not followed: in a stranger's directory they could lead to any file.

    Args:
        path: The run directory.
        member: The member's id.
    """
    folder = path / LOGS
    try:
        if folder.is_symlink():
            return None
        names = [file.name for file in folder.iterdir() if _member(file.name) == member]
        newest = max(names, key=_order, default=None)
        text = None if newest is None else _end_of(folder / newest)
    except OSError:
        return None
    return None if text is None else LogTail(name=f"{LOGS}/{newest}", text=text)


def _member(name: str) -> int | None:
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


def _order(name: str) -> int:
    match = _NAME.fullmatch(name)
    return -1 if match is None else int(match[2])


def _end_of(file: Path) -> str | None:
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        opened.seek(max(0, status.st_size - BYTES))
        lines = opened.read(BYTES).decode(errors="replace").splitlines()
    if status.st_size > BYTES:
        lines = lines[1:]  # cut in the middle
    return "\n".join(map(printable, lines[-LINES:]))
