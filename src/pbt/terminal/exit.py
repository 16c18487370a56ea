"""Exit of a command: turn errors and signals into a message and an exit code.

Ctrl-C and SIGTERM raise KeyboardInterrupt once, wherever the program is; the log is durable round by round, so nothing
has to be saved then. A second signal, or five seconds without an orderly exit, ends the process immediately. A thread
receives the signals as well, because Python calls a handler only between two bytecode instructions, and a library or
system call may take long.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self, TextIO

from pbt.errors import DiskError, PBTError
from pbt.executors.process_tree import kill
from pbt.store.layout import OF_THE_DISK
from pbt.store.system import in_forked_child
from pbt.text import printable

OK, FAILED, USAGE, SOME_FAILED = 0, 1, 2, 3
"""Exit codes: success; a failed run; wrong usage; a finished run in which some members failed."""
STOPPED = DiskError.exit_code
"""Exit code of a resumable run, stopped by a disk that is full, failing or at its limit."""
PATIENCE = 4.5
"""Seconds that an orderly exit may take."""
_STOPPING = (signal.SIGINT, signal.SIGTERM)

ResumeLine = Callable[[], str | None]
"""Returns the command that resumes the interrupted run; None if no run was started."""


def exit_code_of(call: Callable[[], int | None], resume_line: ResumeLine = lambda: None, program: str = "pbt") -> int:
    """Call a function and return the exit code of the process; errors are printed on stderr without a traceback.

    Args:
        call: The command; an int that it returns is the exit code.
        resume_line: Called when the command is interrupted.
        program: The name at the start of every message.
    """
    with _Signals(resume_line, program) as signals:
        try:
            code = call() or OK
            if sys.stdout is not None:
                sys.stdout.flush()
        except KeyboardInterrupt:
            print_error(stopped(resume_line), program)
            return signals.code
        except PBTError as error:
            print_error(f"error: {error}", program)
            return error.exit_code
        except BrokenPipeError:
            # The reader closed the pipe; the work itself is done.
            silence(sys.stdout)
            return OK
        except OSError as error:
            silence(sys.stdout)
            line = resume_line() if error.errno in OF_THE_DISK else None
            remedy = "" if line is None else f"; the log is kept; make room or repair the disk, then: {line}"
            print_error(f"error: {error.filename or 'the system'}: {error.strerror or error}{remedy}", program)
            return STOPPED if remedy else FAILED
    return code


def stopped(resume_line: ResumeLine) -> str:
    """The message after an interruption."""
    line = resume_line()
    return "stopped before a run was started" if line is None else f"stopped; state kept; resume with: {line}"


def print_error(message: str, program: str = "pbt") -> None:
    """Print a message on stderr; a closed or missing stderr is no error."""
    lines = "\n".join(printable(line) for line in message.splitlines())
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"{program}: {lines}\n")
            sys.stderr.flush()


class StderrHandler(logging.Handler):
    """Writes log messages to the stderr of the moment: a live display redirects it, and prints them above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message; a closed or missing stderr is no error."""
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                lines = "\n".join(map(printable, self.format(record).splitlines()))
                sys.stderr.write(f"{lines}\n")
                sys.stderr.flush()


def silence(stream: TextIO | None) -> None:
    """Redirect a stream without a reader to the null device, so that flushing its buffer at exit cannot fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)


_wakeup_fds: set[int] = set()
"""The file descriptors to which Python writes signal numbers."""


def _disconnect_child() -> None:
    if _wakeup_fds:
        signal.set_wakeup_fd(-1)
        _wakeup_fds.clear()


# A forked child, such as a data loader's, would report its own signals to the parent.
in_forked_child(_disconnect_child)


class _Signals:
    """Context manager that handles SIGINT and SIGTERM; outside the main thread it changes nothing."""

    def __init__(self, resume_line: ResumeLine, program: str) -> None:
        self.code = 128 + signal.SIGINT
        self._resume_line = resume_line
        self._program = program
        self._before: dict[int, object] = {}
        self._handled, self._received = 0, 0
        self._timer = threading.Timer(PATIENCE, self._late)
        self._timer.daemon = True
        self._first = threading.Lock()
        self._wakeup = -1
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                self._before[number] = signal.signal(number, self._handle)
            pipe, self._wakeup = os.pipe()
            if hasattr(os, "set_blocking"):
                os.set_blocking(self._wakeup, False)
            self._wakeup_before = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
            _wakeup_fds.add(self._wakeup)
            threading.Thread(target=self._listen, args=(pipe,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._wakeup >= 0:
            signal.set_wakeup_fd(self._wakeup_before)
            _wakeup_fds.discard(self._wakeup)
            os.close(self._wakeup)  # which ends the thread
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._handled += 1
        self._arrived(number, self._handled)
        raise KeyboardInterrupt

    def _listen(self, pipe: int) -> None:
        """Receive the number of each signal as soon as it arrives, until the pipe is closed."""
        while number := os.read(pipe, 1):
            if number[0] in _STOPPING:
                self._received += 1
                self._arrived(number[0], self._received)
        os.close(pipe)

    def _arrived(self, number: int, count: int) -> None:
        """Start the timer at the first signal and exit at the second, as counted by the handler or by the thread."""
        if count > 1:
            self._end()
        self.code = 128 + number
        # A signal handler must not wait for a lock; this acquisition does not, and starts the timer once.
        if self._first.acquire(blocking=False):
            self._timer.start()

    def _late(self) -> None:
        """Exit without order, because the exception was swallowed or the program hangs."""
        try:
            print_error(stopped(self._resume_line), self._program)
        finally:
            self._end()

    def _end(self) -> None:
        kill(multiprocessing.active_children())
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # a live display had hidden the cursor
        os._exit(self.code)
