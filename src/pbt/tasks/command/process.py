"""Run a program under its supervisor, and read its output without ever waiting for it alone."""

import contextlib
import errno
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pbt.errors import TaskError, WorkerError
from pbt.tasks.command import supervisor
from pbt.tasks.command.supervisor import GRACE_SECONDS, KILL_SECONDS, kill_group

STDOUT, STDERR = 0, 1
_SHORT = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""Error numbers of a machine that is short of memory, processes or descriptors, which is not the member's fault."""
_STATUS = 2
_CHUNK = 1 << 16
_MOST_READS = 256
"""Reads after the program has ended: a pipe holds fewer, so only an escaped process could write more."""
_LOOK_SECONDS = 0.5
_STOP_SECONDS = GRACE_SECONDS + KILL_SECONDS + 1.0

Output = Callable[[int, bytes], None]
"""Takes a piece of output: the stream, and the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramEnd:
    """How a program ended."""

    code: int
    """Its exit code; -N after signal N."""
    seconds: float
    late: bool = False
    """Whether it was ended because it took too long."""


@dataclass(slots=True, eq=False)
class _Running:
    """A program and the reading ends of its pipes."""

    process: subprocess.Popen[bytes]
    """The parent of the supervisor, which ends at once."""
    lifeline: int
    readers: dict[int, int]
    """Stream by descriptor."""
    messages: dict[str, Any] = field(default_factory=dict)
    pending: bytes = b""
    supervised: bool = True
    """Whether the supervisor holds its end of the status pipe."""

    def take(self, reader: int, output: Output) -> int:
        """Read a piece from a pipe; returns its length, 0 at the end or if there is none."""
        try:
            piece = os.read(reader, _CHUNK)
        except BlockingIOError:
            return 0
        if self.readers[reader] != _STATUS:
            if piece:
                output(self.readers[reader], piece)
        elif not piece:
            self.supervised = False
        else:
            *lines, self.pending = (self.pending + piece).split(b"\n")
            for line in lines:
                self.messages |= json.loads(line)
        return len(piece)

    def release(self) -> None:
        """Let the supervisor end the program."""
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    def stop(self) -> None:
        """End the program and its supervisor within four seconds."""
        self.release()
        status = next(reader for reader, stream in self.readers.items() if stream == _STATUS)
        deadline = time.monotonic() + _STOP_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(status, selectors.EVENT_READ)
            while self.supervised and (left := deadline - time.monotonic()) > 0:
                if selector.select(left):
                    self.take(status, lambda *_: None)
        self.process.kill()
        self.process.wait()
        if "pid" in self.messages and "code" not in self.messages:
            owner, _, began = self.messages["mark"].partition(":")
            if supervisor.is_alive(int(owner), began):
                supervisor.send([int(owner)], signal.SIGKILL)
            kill_group(self.messages["pid"], self.messages["mark"])
        for reader in self.readers:
            os.close(reader)


def run_program(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout: float | None, output: Output
) -> ProgramEnd:
    """Run a program to its end; afterwards none of its processes is left.

    Args:
        argv: The program and its arguments.
        env: Its environment.
        cwd: Its working directory.
        timeout: Seconds after which it is ended; None: unlimited.
        output: Called with its output. An exception in it ends the program.

    Raises:
        TaskError: It cannot be started.
        WorkerError: It was killed, or its supervisor was; or the machine is short of memory or processes.
    """
    started = time.monotonic()
    running = _start(argv, env, cwd)
    late = False
    try:
        with _selector(running) as selector:
            while not {"code", "failed"} & running.messages.keys():
                left = None if timeout is None else started + timeout + late * _STOP_SECONDS - time.monotonic()
                if left is not None and left <= 0:
                    if late:
                        break
                    late = True
                    running.release()
                    continue
                for key, _ in selector.select(_LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS)):
                    if not running.take(key.fd, output):
                        selector.unregister(key.fd)
                if not running.supervised:
                    break
            _drain(running, output)
    finally:
        running.stop()
    return _ended(argv, running, time.monotonic() - started, late=late)


def _ended(argv: Sequence[str], running: _Running, seconds: float, *, late: bool) -> ProgramEnd:
    messages = running.messages
    if "failed" in messages:
        raise TaskError(f"the program '{argv[0]}' cannot be started: {messages['failed']}")
    code = messages.get("code")
    if not late and (code is None or code == -signal.SIGKILL):
        killed = "the program" if code is not None else "the supervisor of the program"
        raise WorkerError(f"{killed} was killed from outside after {seconds:.1f} s; is memory short?")
    return ProgramEnd(code=-signal.SIGKILL if code is None else code, seconds=seconds, late=late)


def _start(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> _Running:
    pipes = [os.pipe() for _ in range(4)]
    (held, lifeline), (out, out_end), (err, err_end), (status, status_end) = pipes
    # Isolated and without site-packages, it starts within some 20 ms.
    worker = f"{os.getpid()}:{supervisor.start_of(os.getpid())}"
    words = [sys.executable, "-I", "-S", supervisor.__file__, worker, str(held), str(status_end), *argv]
    try:
        process = subprocess.Popen(  # noqa: S603 (the user's program, without a shell)
            words,
            stdin=subprocess.DEVNULL,
            stdout=out_end,
            stderr=err_end,
            pass_fds=(held, status_end),
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        for end in (lifeline, out, err, status):
            os.close(end)
        kind = WorkerError if error.errno in _SHORT else TaskError
        raise kind(f"the program '{argv[0]}' cannot be started in {cwd}: {error.strerror or error}") from error
    finally:
        for end in (held, out_end, err_end, status_end):
            os.close(end)
    for reader in (out, err, status):
        os.set_blocking(reader, False)
    return _Running(process, lifeline, {out: STDOUT, err: STDERR, status: _STATUS})


@contextlib.contextmanager
def _selector(running: _Running) -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as selector:
        for reader in running.readers:
            selector.register(reader, selectors.EVENT_READ)
        yield selector


def _drain(running: _Running, output: Output) -> None:
    """Read what the pipes still hold."""
    for reader in running.readers:
        for _ in range(_MOST_READS):
            if not running.take(reader, output):
                break
