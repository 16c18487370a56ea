"""How a command ends: one place that turns errors and signals into a message and an exit code.

Ctrl-C and SIGTERM raise KeyboardInterrupt, once, wherever the program is; the log is durable round by round, so
nothing has to be saved then. A second one, or five seconds without an end, ends the process at once.
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

from pbt.errors import PBTError
from pbt.terminal.text import printable

OK, FAILED, USAGE, SOME_FAILED = 0, 1, 2, 3
"""Exit codes: all well; the run failed; asked for in a wrong way; finished, but not with every member."""
PATIENCE = 4.5
"""Seconds that an orderly end may take."""

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
            tell(stopped(resume_line), program)
            return signals.code
        except PBTError as error:
            tell(f"error: {error}", program)
            return error.exit_code
        except BrokenPipeError:
            # Whoever read had enough; what was to be done is done.
            silence(sys.stdout)
            return OK
        except OSError as error:
            silence(sys.stdout)
            tell(f"error: {error.filename or 'the system'}: {error.strerror or error}", program)
            return FAILED
    return code


def stopped(resume_line: ResumeLine) -> str:
    """What to say after an interruption."""
    line = resume_line()
    return "stopped; nothing was begun" if line is None else f"stopped; state kept; go on with: {line}"


def tell(message: str, program: str = "pbt") -> None:
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


class _Signals:
    """The handlers of SIGINT and SIGTERM for a while; elsewhere than in the main thread nothing is changed."""

    def __init__(self, resume_line: ResumeLine, program: str) -> None:
        self.code = 128 + signal.SIGINT
        self._resume_line = resume_line
        self._program = program
        self._before: dict[int, object] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._timer is not None:
            self._end()
        self.code = 128 + number
        self._timer = threading.Timer(PATIENCE, self._late)
        self._timer.daemon = True
        self._timer.start()
        raise KeyboardInterrupt

    def _late(self) -> None:
        """The orderly end does not come: somebody swallowed the exception, or hangs."""
        tell(stopped(self._resume_line), self._program)
        self._end()

    def _end(self) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")  # a live display had hidden the cursor
        os._exit(self.code)
