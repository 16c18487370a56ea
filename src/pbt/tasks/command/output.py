"""The output of a program: lines for the numbers in them, a log of bounded size, and its tail for error messages."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

LOG_BYTES = 8 << 20
"""Bytes from the start of a program's output that its log keeps, besides the tail."""
TAIL_BYTES = 16 << 10
_LINE_BYTES = 64 << 10
"""A longer line is not searched for numbers."""
_ENDS = re.compile(rb"[\r\n]")


class Lines:
    """Cuts a stream of bytes into lines; a carriage return ends one too.

    Args:
        take: Called with each line that is not empty.
    """

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._pending = bytearray()
        self._skips = False

    def feed(self, piece: bytes) -> None:
        """Add a piece of the stream."""
        *whole, rest = _ENDS.split(piece)
        for line in whole:
            self._add(line)
            self.end()
        self._add(rest)

    def end(self) -> None:
        """End the current line."""
        line, skipped = bytes(self._pending).strip(), self._skips
        self._pending.clear()
        self._skips = False
        if line and not skipped:
            self._take(line.decode(errors="replace"))

    def _add(self, part: bytes) -> None:
        if self._skips or len(self._pending) + len(part) > _LINE_BYTES:
            self._skips = True
            self._pending.clear()
        else:
            self._pending += part


class Log:
    """The output of a program in a file: its start and its end, at most `LOG_BYTES` and `TAIL_BYTES`.

    A disk that is full costs the log, not the round.

    Args:
        path: The file; None: only the tail is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else _created(path)
        self.path = None if self._file is None else path
        self._tail = bytearray()
        self._written = self._omitted = 0

    def write(self, piece: bytes) -> None:
        """Append output."""
        self._tail += piece
        del self._tail[:-TAIL_BYTES]
        fits = piece[: LOG_BYTES - self._written]
        self._omitted += len(piece) - len(fits)
        self._written += len(fits)
        if fits and self._file is not None:
            try:
                self._file.write(fits)
                self._file.flush()
            except OSError:
                self._drop()

    def close(self) -> None:
        """Write the tail of output that did not fit."""
        if self._file is None:
            return
        try:
            if self._omitted:
                kept = bytes(self._tail[-min(self._omitted, TAIL_BYTES) :])
                note = f"\n[... {self._omitted - len(kept):,} bytes left out ...]\n"
                self._file.write(note.encode() + kept)
            self._file.close()
        except OSError:
            self._drop()
        self._file = None

    def tail(self, lines: int = 20) -> list[str]:
        """The last lines that are not empty."""
        text = bytes(self._tail).decode(errors="replace")
        return [line.rstrip() for line in re.split(r"[\r\n]", text) if line.strip()][-lines:]

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                return


def _created(path: Path) -> BinaryIO | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A new file: a link of that name, in a run of an unknown author, would lead elsewhere.
        path.unlink(missing_ok=True)
        return path.open("xb")
    except OSError:
        return None


def log_file(folder: Path, member: int, round_: int) -> Path:
    """The log of a member's round."""
    return folder / f"{member:06d}-{round_:06d}.log"


def remove_old_logs(folder: Path, member: int, keep: int) -> None:
    """Remove all but the newest logs of a member."""
    logs = sorted(folder.glob(f"{member:06d}-*.log"))
    for old in logs[: max(0, len(logs) - keep)]:
        with contextlib.suppress(OSError):
            old.unlink(missing_ok=True)
