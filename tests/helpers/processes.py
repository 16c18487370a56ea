"""Wait for a condition, and look at processes."""

import time
from collections.abc import Callable
from pathlib import Path


def until(true: Callable[[], object]) -> None:
    """Wait until this is true; the time limit is that of the test."""
    while not true():
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def has_received(pid: int, number: int) -> bool:
    """Whether no signal of this number waits for the process any more."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (pending,) = (int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd:"))
    return not pending >> (number - 1) & 1
