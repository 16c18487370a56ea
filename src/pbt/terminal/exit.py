"""How a command ends: one place that turns errors and signals into a message and an exit code.

Ctrl-C and SIGTERM raise KeyboardInterrupt, once, wherever the program is; the log is durable round by round, so
nothing has to be saved then. A second one, or five seconds without an end, ends the process at once. Signals are also
heard by a thread of their own: Python calls a handler only between two of its own instructions, and a program can be
in a library's or the system's for a long time.
"""

import contextlib
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
from pbt.text import printable

OK, FAILED, USAGE, SOME_FAILED = 0, 1, 2, 3
"""Exit codes: all well; the run failed; asked for in a wrong way; finished, but not with every member."""
STOPPED = DiskError.exit_code
"""Exit code: stopped before its end by a disk that is full, failing or at its bound, and can go on."""
PATIENCE = 4.5
"""Seconds that an orderly end may take."""
_STOPPING = (signal.SIGINT, signal.SIGTERM)

ResumeLine = Callable[[], str | None]
"""The command that goes on with what was interrupted; None: nothing was begun."""


def exit_code_of(call: Callable[[], int | None], resume_line: ResumeLine = lambda: None, program: str = "pbt") -> int:
    """Call, and answer what the process should exit with; what went wrong is told on stderr, without a traceback.

    Args:
        call: What to do; an int that it returns is the exit code.
        resume_line: Asked when it was interrupted.
        program: The name at the head of every message.
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
            # Whoever read had enough; what was to be done is done.
            silence(sys.stdout)
            return OK
        except OSError as error:
            silence(sys.stdout)
            line = resume_line() if error.errno in OF_THE_DISK else None
            remedy = "" if line is None else f"; what was logged is kept; make room or repair the disk, then: {line}"
            print_error(f"error: {error.filename or 'the system'}: {error.strerror or error}{remedy}", program)
            return STOPPED if remedy else FAILED
    return code


def stopped(resume_line: ResumeLine) -> str:
    """What to say after an interruption."""
    line = resume_line()
    return "stopped; nothing was begun" if line is None else f"stopped; state kept; go on with: {line}"


def print_error(message: str, program: str = "pbt") -> None:
    """One message on stderr, whatever became of stderr."""
    lines = "\n".join(printable(line) for line in message.splitlines())
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"{program}: {lines}\n")
            sys.stderr.flush()


def silence(stream: TextIO | None) -> None:
    """Let what is still in the buffer of a stream that nobody reads go nowhere, instead of failing at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)


_told: set[int] = set()
"""Where signals are told to."""


def _be_deaf() -> None:
    if _told:
        signal.set_wakeup_fd(-1)
        _told.clear()


# A forked child (of a data loader, say) would tell us the signals that it is sent.
os.register_at_fork(after_in_child=_be_deaf)


class _Signals:
    """The handlers of SIGINT and SIGTERM for a while; elsewhere than in the main thread nothing is changed."""

    def __init__(self, resume_line: ResumeLine, program: str) -> None:
        self.code = 128 + signal.SIGINT
        self._resume_line = resume_line
        self._program = program
        self._before: dict[int, object] = {}
        self._handled, self._heard = 0, 0
        self._timer = threading.Timer(PATIENCE, self._late)
        self._timer.daemon = True
        self._first = threading.Lock()
        self._told = -1
        self._told_before = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                self._before[number] = signal.signal(number, self._handle)
            heard, self._told = os.pipe()
            os.set_blocking(self._told, False)
            self._told_before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)
            _told.add(self._told)
            threading.Thread(target=self._listen, args=(heard,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._told >= 0:
            signal.set_wakeup_fd(self._told_before)
            _told.discard(self._told)
            os.close(self._told)  # which ends the thread
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._handled += 1
        self._arrived(number, self._handled)
        raise KeyboardInterrupt

    def _listen(self, heard: int) -> None:
        """Take the number of each signal, as soon as it comes, until nobody tells any more."""
        while number := os.read(heard, 1):
            if number[0] in _STOPPING:
                self._heard += 1
                self._arrived(number[0], self._heard)
        os.close(heard)

    def _arrived(self, number: int, count: int) -> None:
        """The first one starts the clock, the second one ends it, whichever way they are counted."""
        if count > 1:
            self._end()
        self.code = 128 + number
        # A handler may not wait for a lock, but ask for one: the clock is started once.
        if self._first.acquire(blocking=False):
            self._timer.start()

    def _late(self) -> None:
        """The orderly end does not come: somebody swallowed the exception, or hangs."""
        try:
            print_error(stopped(self._resume_line), self._program)
        finally:
            self._end()

    def _end(self) -> None:
        kill(multiprocessing.active_children())
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # a live display had hidden the cursor
        os._exit(self.code)
