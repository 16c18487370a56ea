"""Locate the user's code in a traceback, and recognize an interrupt behind another exception."""

import functools
import signal
import site
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

_OURS = str(Path(__file__).parents[1])
_LIBRARIES = tuple(
    {site.getusersitepackages(), *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))}
)
_PROMPTS = ("<stdin>", "<ipython-input", "<python-input")
"""File names of code typed at a prompt; other names in angle brackets are generated code."""
_INTERRUPTED = 128 + signal.SIGINT
"""The exit code of programs ended by Ctrl-C."""


class SourceLine(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line} in {self.function}"


def users_line(trace: TracebackType | None) -> SourceLine | None:
    """The innermost frame outside this package and installed libraries; None if there is none."""
    found = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if _is_users(code.co_filename):
            found = SourceLine(code.co_filename, trace.tb_lineno, code.co_name)
        trace = trace.tb_next
    return found


def metrics_line(task: Any) -> SourceLine | None:
    """The function that returns a task's metrics: the task itself or its `evaluate`; None if it is not user code."""
    task = getattr(task, "task", task)  # the user's class inside its adapter
    function = getattr(task, "evaluate", task)
    while isinstance(function, functools.partial) or hasattr(function, "__wrapped__"):
        function = function.func if isinstance(function, functools.partial) else function.__wrapped__
    code = getattr(function, "__code__", None) or getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004
    if code is None or not _is_users(code.co_filename):
        return None
    return SourceLine(code.co_filename, code.co_firstlineno, code.co_name)


def _is_users(file: str) -> bool:
    if file.startswith("<"):
        return file.startswith(_PROMPTS)
    inside = Path(file).parts
    return not (
        file.startswith((_OURS + "/", *(f"{path}/" for path in _LIBRARIES)))
        or "site-packages" in inside
        or "dist-packages" in inside
    )


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception is or stems from a KeyboardInterrupt, which libraries may turn into `sys.exit(1)`."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, KeyboardInterrupt) or (isinstance(one, SystemExit) and one.code == _INTERRUPTED):
            return True
        # The context is set even where `raise ... from None` hides it.
        waiting += [one.__cause__, one.__context__]
    return False


class Interrupts:
    """Detects a KeyboardInterrupt caught by a task, whose round is then incomplete.

    A context manager for the life of an executor in this process: installing a signal handler for each round would cost
    more than a small round.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._raised = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            for number, handler in self._before.items():
                if callable(handler):
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # A different handler was installed by a task, and stays.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise KeyboardInterrupt on exit if the body caught one and continued."""
        self._raised = False
        yield
        if self._raised:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before[number](number, frame)
        except KeyboardInterrupt:
            self._raised = True
            raise
