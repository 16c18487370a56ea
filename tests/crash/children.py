"""Runs in child processes, each a session of its own, that can be watched, traced, struck and waited for.

Children are forked from a process that has imported everything, so that a run begins within milliseconds. To the
kernel, which is what kills them, they are processes like any other.
"""

import contextlib
import mmap
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pbt.runs.engine import Observer
from pbt.tasks.command import supervisor
from tests.crash.tasks import may_be_traced, trace, train

PATIENCE = 120.0
"""Seconds after which a run counts as hung."""
MEMBERS, ROUNDS, ATTEMPTS = 16, 16, 32
SHARED = Path("/dev/shm")
"""Where shared memory would stay."""


class Ledger(Observer):
    """Counts what came back from training, in memory that this process shares with its children."""

    def __init__(self):
        self._memory = mmap.mmap(-1, ATTEMPTS * ROUNDS * MEMBERS)
        self.attempt = 0

    def on_outcome(self, engine, outcome):
        place = (self.attempt * ROUNDS + outcome.round) * MEMBERS + outcome.member
        self._memory[place] += 1

    def trained(self, attempt):
        """The rounds that came back in an attempt, as (member, round)."""
        start = attempt * ROUNDS * MEMBERS
        found = self._memory[start : start + ROUNDS * MEMBERS]
        return {(place % MEMBERS, place // MEMBERS) for place, count in enumerate(found) if count}

    def count(self):
        """How many outcomes came back in all attempts."""
        return sum(self._memory[:])

    def clear(self):
        self._memory[:] = bytes(len(self._memory))
        self.attempt = 0

    def lost(self):
        """For each attempt, the rounds that a later one trained again."""
        every = [self.trained(attempt) for attempt in range(self.attempt + 1)]
        return [own & set().union(*every[i + 1 :]) for i, own in enumerate(every)]


@dataclass
class Child:
    """A run that goes on."""

    pid: int
    code: int | None = None

    def poll(self):
        """Its exit status; None while it lives."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds=PATIENCE):
        """Its exit status; None where it does not end in time, and is killed."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill(group=True)
                return None
            time.sleep(0.001)
        return self.code

    def kill(self, *, group):
        """SIGKILL, to it alone or to everybody in its session, at an instant."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.001)


def begin(path, task, executor, ledger, *, environment=None, traced=(), out=None):
    """Fork a run.

    Args:
        path: Its directory; what it prints goes to a file beside it.
        task: What is trained.
        executor: Where.
        ledger: Counts what is trained.
        environment: Variables of the child.
        traced: Expressions for strace, which is put at the child before it begins.
        out: Where strace writes.
    """
    gate, opened = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _run(gate, opened, path, task, executor, ledger, environment or {})
    os.close(gate)
    child = Child(pid)
    try:
        tracer = trace(pid, traced, out) if traced else None
        os.write(opened, b"x")
    except BaseException:
        child.kill(group=False)
        raise
    finally:
        os.close(opened)
    if tracer is not None:
        child.tracer = tracer
    return child


def _run(gate, opened, path, task, executor, ledger, environment):
    """The child's life."""
    code = 1
    try:
        os.close(opened)
        os.setsid()
        log = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.environ.update(environment)
        may_be_traced()
        if not os.read(gate, 1):
            os._exit(1)
        train(path, task, executor, [ledger])
        code = 0
    except BaseException:  # noqa: BLE001 (told, and the child's end)
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def session(leader):
    """The living processes of a session, zombies not counted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(own) == leader and state not in "ZX":
                    found.append(int(entry.name))
    return found


def gone(leader, seconds=PATIENCE):
    """Wait until nobody of a session lives; whoever still does is killed, and returned."""
    deadline = time.monotonic() + seconds
    while left := session(leader):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return left
        time.sleep(0.005)
    return []


def workers(pid):
    """The children of a process, but for the one that Python keeps its own accounts with."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def mark_semaphores(mark):
    """Let semaphores of this process, and of all that it starts, have names with this mark."""
    multiprocessing.current_process()._config["semprefix"] = f"/mp-{mark}"


def semaphores(mark):
    """The semaphores of a marked program that are there; those of other programs are none of its affair."""
    return {path.name for path in SHARED.glob(f"sem.mp-{mark}-*")}


def memory():
    """What lies in shared memory under a name of Python's or torch's that no living process has mapped."""
    found = {path.name for pattern in ("psm_*", "torch_*") for path in SHARED.glob(pattern)}
    for maps in Path("/proc").glob("[0-9]*/maps") if found else ():
        with contextlib.suppress(OSError):
            text = maps.read_text()
            found = {name for name in found if f"{SHARED}/{name}" not in text}
    return {name for name in found if (SHARED / name).exists()}


def programs(path):
    """The programs that members of a run are, with their supervisors and children, wherever those belong now."""
    found = []
    marks = (b"PBT_OUT=" + os.fsencode(path), b"PBT_OUT=" + os.fsencode(path.resolve()))
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and any(mark in (entry / "environ").read_bytes() for mark in marks):
                    found.append(int(entry.name))
    return found


def worker_of(pid):
    """The worker whose program a process supervises; 0 if it is no supervisor."""
    with contextlib.suppress(OSError, ValueError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return int(words[words.index(os.fsencode(supervisor.__file__)) + 1].partition(b":")[0])
    return 0


def programs_left(path, seconds=8.0):
    """Wait until no program of a run lives; whichever still does is killed, and returned."""
    deadline = time.monotonic() + seconds
    while left := programs(path):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return left
        time.sleep(0.02)
    return []
