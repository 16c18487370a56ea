"""A small process between a worker and its program, which ends the program when the worker is gone.

It is started as a file of its own, without this package, so it imports the standard library only. It is not a child of
the worker, because some systems (Ray, among others) kill the children of a worker together with it. The worker holds
the writing end of a pipe, the lifeline: the kernel closes it however the worker ends. A process forked by the worker
may hold it too, so the worker is looked for as well.

The program runs in a session of its own. It is ended together with its process group, its descendants, and all
processes that inherited its mark: an environment variable with the id and the start time of this process. The mark
also finds processes that left the group and lost their parent, without help from the kernel.
"""

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

MARK = "PBT_SUPERVISOR"
"""The environment variable of the mark."""
GRACE_SECONDS = 1.0
"""Time between SIGTERM and SIGKILL."""
KILL_SECONDS = 1.0
"""Time for killed processes to disappear."""
_LOOK_SECONDS = 0.5
_PAUSE_SECONDS = 0.03
_STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))


def start_of(pid: int) -> str:
    """The start time of a process in the system's unit; empty if it is gone or a zombie."""
    fields = _stat(pid)
    return "" if not fields or fields[0] in "ZX" else fields[19]


def is_alive(pid: int, began: str) -> bool:
    """Whether a process that started at this time is there; without /proc, whether any of this id is."""
    if began:
        return start_of(pid) == began
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remaining(group: int, mark: str, root: int = 0) -> list[int]:
    """The living processes of a program.

    Args:
        group: Its process group.
        mark: The value of its mark.
        root: A process whose descendants are meant too; 0: none.
    """
    found, parents = set(), {}
    for pid in _pids():
        fields = _stat(pid)
        if not fields or fields[0] in "ZX":
            continue
        parents[pid] = int(fields[1])
        if group in (int(fields[2]), int(fields[3])) or mark_of(pid) == mark:
            found.add(pid)
    if root:
        found.update(pid for pid in parents if _descends(pid, root, parents))
    return sorted(found - {root, os.getpid()})


def mark_of(pid: int) -> str:
    """The mark of a process; empty if it has none, or belongs to another user."""
    start = f"{MARK}=".encode()
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return ""
    return next((e[len(start) :].decode(errors="replace") for e in content.split(b"\0") if e.startswith(start)), "")


def end_orphans() -> None:
    """Kill programs whose supervisor was killed together with its worker."""
    for pid in _pids():
        mark = mark_of(pid)
        owner, _, began = mark.partition(":")
        if owner.isdecimal() and began and start_of(int(owner)) != began and pid != os.getpid():
            send([pid], signal.SIGKILL)


def send(pids: list[int], number: int) -> None:
    """Send a signal to processes that may be gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def send_group(group: int, number: int) -> None:
    """Send a signal to a process group that may be gone."""
    try:
        os.killpg(group, number)
    except OSError:
        return


def kill_group(group: int, mark: str, root: int = 0) -> None:
    """Kill a program, all its processes, and wait for them a moment."""
    deadline = time.monotonic() + KILL_SECONDS
    while True:
        send_group(group, signal.SIGKILL)
        left = remaining(group, mark, root)
        send(left, signal.SIGKILL)
        if not left or time.monotonic() > deadline:
            return
        time.sleep(_PAUSE_SECONDS)


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 (names only)
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """State, parent, group, session and further fields of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    seen: set[int] = set()
    while pid in parents and pid not in seen:
        seen.add(pid)
        pid = parents[pid]
        if pid == root:
            return True
    return False


class _Supervised:
    """The program."""

    def __init__(self, argv: list[str], status: int) -> None:
        self._status = status
        self.mark = f"{os.getpid()}:{start_of(os.getpid())}"
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._become(argv)
        self.say({"pid": self.pid, "mark": self.mark})

    def _become(self, argv: list[str]) -> None:
        try:
            os.setsid()
            for number in (*_STOPPING, signal.SIGPIPE, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.environ[MARK] = self.mark
            os.execvp(argv[0], argv)  # noqa: S606 (the user's program, without a shell)
        except OSError as error:
            self.say({"failed": error.strerror or str(error)})
        finally:
            os._exit(127)

    def say(self, message: dict[str, object]) -> None:
        """Tell the worker, if it is still there."""
        try:
            os.write(self._status, (json.dumps(message) + "\n").encode())
        except OSError:
            return

    def poll(self) -> bool:
        """Whether the program has ended; its descendants may live on."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def end(self) -> None:
        """Ask all its processes to end, and kill them after a moment."""
        send_group(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        asked: set[int] = set()
        while left := self._left():
            send([pid for pid in left if pid not in asked and pid != self.pid], signal.SIGTERM)
            asked.update(left)
            if time.monotonic() > deadline:
                kill_group(self.pid, self.mark, os.getpid())
                break
            time.sleep(_PAUSE_SECONDS)
        if not self.poll() or not _pids():  # without /proc the group is all that is known
            send_group(self.pid, signal.SIGKILL)

    def _left(self) -> list[int]:
        ended = self.poll()
        left = remaining(self.pid, self.mark, os.getpid())
        return left if ended or left else [self.pid]


def supervise(worker: str, lifeline: int, status: int, argv: list[str]) -> None:
    """Run the program, and end it when it is finished or the worker is gone.

    Args:
        worker: Process id and start time of the worker, joined by a colon.
        lifeline: The reading end of the pipe that the worker holds.
        status: The writing end of a pipe for messages to the worker, one JSON object per line.
        argv: The program and its arguments.
    """
    if os.fork():
        os._exit(0)  # the parent of the supervisor; the worker keeps no child
    pid, _, began = worker.partition(":")
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (*_STOPPING, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for inherited in (lifeline, status):
        os.set_inheritable(inherited, False)
    program = _Supervised(argv, status)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)  # the program alone holds the output pipes
    poller = select.poll()
    for watched in (lifeline, woken):
        poller.register(watched, select.POLLIN)
    while not program.poll():
        ready = {descriptor for descriptor, _ in poller.poll(1000 * _LOOK_SECONDS)}
        stopped = woken in ready and any(number in _STOPPING for number in os.read(woken, 512))
        if lifeline in ready or stopped or not is_alive(int(pid), began):
            break
    program.end()
    program.poll()
    program.say({"code": program.code})


if __name__ == "__main__":
    supervise(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
