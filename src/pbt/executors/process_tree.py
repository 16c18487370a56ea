"""Start worker processes, and shut them down: ask, wait with a time-out, kill, then kill their descendants."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path

STOP_SECONDS = 3.0
"""Time for a worker to stop by itself before it is killed."""
DEATH_SECONDS = 1.0
"""Time for a killed process to disappear; bounded, because a process in a stuck driver cannot be killed."""
_LOOK = 0.01
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows: both end a process at once

Started = tuple[int, str]
"""A process: its id and its start time, because ids are reused."""


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which processes that the body starts inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block SIGINT; a process started in the body inherits that.

    Ctrl-C reaches the whole process group. It would end a process that is still starting, with a traceback in the
    middle of a live display.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # The resource tracker of multiprocessing starts with the first child and would unblock the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_interrupts() -> None:
    """Undo `interrupts_blocked` in the started process."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end(processes: Sequence[BaseProcess], patience: float = STOP_SECONDS) -> None:
    """Wait until these processes have ended; kill late ones, and all descendants.

    Args:
        processes: Processes that were already asked to stop, where intended.
        patience: Seconds for all of them together.
    """
    children = descendants(process.pid for process in processes if process.is_alive())
    _wait(processes, patience)
    _kill(process.pid for process in processes if process.is_alive())
    _wait(processes, DEATH_SECONDS)
    # A process that watches its parent is about to end, and cleans up first.
    deadline = time.monotonic() + DEATH_SECONDS / 2
    while any(lives(child) for child in children) and time.monotonic() < deadline:
        time.sleep(_LOOK)
    _kill(pid for pid, _ in filter(lives, children))


def kill(processes: Sequence[BaseProcess]) -> None:
    """Kill these processes and their descendants without waiting."""
    pids = [process.pid for process in processes if process.is_alive()]
    _kill([*pids, *(pid for pid, _ in descendants(pids))])


def ending(code: int | None) -> str:
    """The exit status of a process as text."""
    if code is None or code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"


def descendants(pids: Iterable[int | None]) -> list[Started]:
    """The descendants of these processes, on systems that list them."""
    found: list[Started] = []
    waiting = [pid for pid in pids if pid is not None]
    while waiting:
        for pid in _children(waiting.pop()):
            waiting.append(pid)
            found.append((pid, _start_of(pid)))
    return found


def children(pid: int) -> list[Started]:
    """The children of a process, on systems that list them."""
    return [(child, _start_of(child)) for child in _children(pid)]


def _children(pid: int) -> list[int]:
    """The children of a process; none if it is gone."""
    found: list[int] = []
    # It may end between any two of these steps.
    with contextlib.suppress(OSError):
        for file in list(Path(f"/proc/{pid}/task").glob("*/children")):
            with contextlib.suppress(OSError):
                found += map(int, file.read_text().split())
    return found


def _kill(pids: Iterable[int | None]) -> None:
    for pid in pids:
        if pid is not None:
            with contextlib.suppress(OSError):
                os.kill(pid, _KILL)


def _wait(processes: Sequence[BaseProcess], seconds: float) -> None:
    # `join` would wait for a pipe that a forked descendant may hold open.
    deadline = time.monotonic() + seconds
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        time.sleep(_LOOK)


def lives(process: Started) -> bool:
    """Whether a process has not ended yet, on systems that tell."""
    return process[1] != "" and _start_of(process[0]) == process[1]


def _start_of(pid: int) -> str:
    """The start time of a process in the system's unit; empty if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
