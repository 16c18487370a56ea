"""Two ways to do the same work, taking turns on the machine.

A side starts once, does a first turn that nobody counts, and then waits: each `turn` is work that is timed, and while
one side has its turn the others are idle. So start-up costs neither time nor truth, and what slows the machine down
for a while slows both.
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
    """One of the two."""

    def turn(self) -> float:
        """Do the work once; its seconds."""


def take_turns(sides: Sequence[Side], repeats: int) -> list[list[float]]:
    """Seconds of each side, by repeat."""
    turns = [[side.turn() for side in sides] for _ in range(repeats)]
    return [list(of) for of in zip(*turns, strict=True)]


class Child:
    """A side in a process of its own, started anew.

    Args:
        function: `function(connection, *args)`, at the top level of a module: sends something when it is ready, then
            for everything it receives the seconds of a turn, until the other end is closed.
        args: What can be sent.
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
        """Do the work once; its seconds."""
        self.begin()
        return self.end()

    def begin(self) -> None:
        """Begin a turn."""
        self._connection.send("go")

    def end(self) -> float:
        """Wait for the end of the turn; its seconds."""
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
    """A folder for a run, on the disk that runs are kept on, where `git` does not see it."""
    Path("runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="runs") as folder:
        yield Path(folder).resolve() / "run"


class EnoughError(Exception):
    """Nobody asks for another turn."""


class Gate(Observer):
    """Lets a run go on for so many rounds at a time, whenever it is asked; must be the last observer.

    A turn ends when everything that follows from its last round is durable, other observers' files included.

    Args:
        connection: To who asks; gets the name of the executor first.
        rounds: Of a turn.
    """

    def __init__(self, connection: Connection, rounds: int = 1) -> None:
        self._connection = connection
        self._rounds = rounds
        self._left = 1
        self._started: float | None = None

    def on_commit(self, engine: Engine, events: Sequence[Event]) -> None:
        """Answer at the end of a turn, and wait for the next."""
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
