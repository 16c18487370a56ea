"""Sides of a comparison, which alternate on the machine.

A side starts once and does a first turn that is not counted. Each further `turn` is timed, while all other sides are
idle. Start-up is therefore excluded, and a temporary slowdown of the machine affects all sides.
"""

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from pbt.core.events import Event, Reported
from pbt.runs.engine import Engine, Observer


class Side(Protocol):
    """One side of a comparison."""

    def turn(self) -> float:
        """Do the work once; return the seconds."""


def take_turns(sides: Sequence[Side], repeats: int) -> list[list[float]]:
    """Seconds per side and repeat."""
    turns = [[side.turn() for side in sides] for _ in range(repeats)]
    return [list(of) for of in zip(*turns, strict=True)]


class Child:
    """A side in a new process.

    Args:
        function: `function(connection, *args)`, at the top level of a module: sends a message when it is ready, then
            the seconds of a turn for each message received, until the connection is closed.
        args: Picklable arguments.
    """

    def __init__(self, function: Callable[..., None], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=function, args=(theirs, *args))
        self._process.start()
        theirs.close()
        self.ready: Any = None
        """What it said when it was ready."""

    def turn(self) -> float:
        """Do the work once; return the seconds."""
        self.begin()
        return self.end()

    def begin(self) -> None:
        """Start a turn."""
        self._connection.send("go")

    def end(self) -> float:
        """Wait for the end of the turn; return the seconds."""
        seconds: float = self._connection.recv()
        return seconds

    def __enter__(self) -> Self:
        try:
            self.ready = self._connection.recv()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(60)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for a run, on the disk used for runs, ignored by git."""
    Path("runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="runs") as folder:
        yield Path(folder).resolve() / "run"


class EnoughError(Exception):
    """No further turn is requested."""


class Gate(Observer):
    """Lets a run continue for some rounds per request; must be the last observer.

    A turn ends when the results of its last round are durable, including the files of other observers.

    Args:
        connection: Connection to the requesting process; first receives the name of the executor.
        rounds: Rounds per turn.
    """

    def __init__(self, connection: Connection, rounds: int = 1) -> None:
        self._connection = connection
        self._rounds = rounds
        self._left = 1
        self._started: float | None = None

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Reply at the end of a turn, and wait for the next."""
        if not any(isinstance(event, Reported) for event in events):
            return
        self._left -= 1
        if self._left:
            return
        now = time.perf_counter()
        ready = engine.store.meta["place"]["executor"]
        self._connection.send(ready if self._started is None else now - self._started)
        try:
            self._connection.recv()
        except EOFError:
            raise EnoughError from None
        self._left, self._started = self._rounds, time.perf_counter()
