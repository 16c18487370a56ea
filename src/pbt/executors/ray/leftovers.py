"""The processes of a local Ray that outlive its driver, and a small process that ends them.

When a driver is killed, the kernel kills the control store and the raylet with it. Two agents of the raylet stay: they
wait for the control store, which is gone, and give up after some 70 seconds. Whatever starts Ray here therefore first
starts this file as a process of its own, without this package: it waits until the driver is gone, then kills all
processes that have its mark, an environment variable which the processes of Ray inherit.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "PBT_RAY_DRIVER"
"""The environment variable of the mark."""
_TITLES = "SPT_NOENV"
"""Lets Ray's processes keep their environment readable: their titles would be written over it."""
GRACE_SECONDS = 2.0
"""Time for the processes of Ray to end by themselves."""
KILL_SECONDS = 5.0
"""Time for killed processes to disappear."""
_LOOK_SECONDS = 0.5


_watchers: list["subprocess.Popen[bytes]"] = []
"""Those started here; while their pipes are open, the driver lives."""


@contextlib.contextmanager
def ended_with_driver() -> Iterator[None]:
    """What the body starts ends with this process, however that ends, or at `end`; on systems with /proc."""
    from pbt.executors.process_tree import environment  # this file also runs alone, without the package

    if not Path("/proc/self/environ").exists():
        yield
        return
    mark = f"{os.getpid()}:{time.time_ns()}"
    with contextlib.suppress(OSError):
        words = [sys.executable, "-I", "-S", __file__, str(os.getpid()), mark]
        # In a session of its own: neither Ctrl-C nor a signal to the process group reaches it.
        _watchers.append(
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 (this file)
        )
    with environment({MARK: mark, _TITLES: "1"}):
        yield


def end() -> None:
    """End what is left of all that was started here."""
    while _watchers:
        watcher = _watchers.pop()
        if watcher.stdin is not None:
            watcher.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            watcher.wait(GRACE_SECONDS + KILL_SECONDS)


def marked(mark: str) -> list[int]:
    """The living processes of this mark."""
    variable = f"{MARK}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 (names only)
        with contextlib.suppress(OSError):
            if name.isdecimal() and variable in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


def _watch(driver: int, mark: str) -> None:
    # A process that the driver forked may hold the pipe too, so the driver is looked for as well.
    while os.getppid() == driver and not select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
        pass
    deadline = time.monotonic() + GRACE_SECONDS
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    deadline = time.monotonic() + KILL_SECONDS
    while (left := marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2])
