"""Threads and processes that a task in this process has left running: they cannot be ended here, so they are named."""

import os
import threading
from collections.abc import Iterable
from multiprocessing import active_children
from pathlib import Path

from pbt.executors.process_tree import Started, children, lives
from pbt.text import listed, printable

_KEPT = ("resource_tracker", "forkserver", "loky", "compile_worker", "ray::", "raylet", "gcs_server")
"""Processes that libraries keep for their next use, and end themselves."""
_POOL = "concurrent.futures.thread"
"""Idle threads of a pool end with the program."""


class LeftBehind:
    """What was running before a task trains, to find what runs after it."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._processes = set(_processes())

    def warning(self) -> str:
        """A sentence that names what is left since then; empty: nothing."""
        threads = [thread for thread in threading.enumerate() if thread not in self._threads and _lasts(thread)]
        processes = [process for process in _processes() if process not in self._processes and lives(process)]
        named = [f"the thread '{printable(thread.name)}'" for thread in threads]
        named += [f"the process {pid}{text}" for pid, _ in processes if (text := _command(pid)) is not None]
        if not named:
            return ""
        ends = "; the program cannot end before its threads" if threads else ""
        return f"the task left {listed(named)} running{ends}; end them in the task, or train with executor='processes'"


def _lasts(thread: threading.Thread) -> bool:
    return not thread.daemon and getattr(getattr(thread, "_target", None), "__module__", None) != _POOL


def _processes() -> Iterable[Started]:
    """The children of this process, on systems that list them; elsewhere those of `multiprocessing`."""
    if Path("/proc/self/stat").exists():
        return children(os.getpid())
    return [(child.pid, "") for child in active_children() if child.pid is not None]


def _command(pid: int) -> str | None:
    """How the process was started, as an addition to its id; None for one that a library keeps."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        own = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
    if any(word in words for word in _KEPT):
        return None
    return " (forked)" if words == own else f" ({printable(words[:60])})"
