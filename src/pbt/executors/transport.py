"""Transport of a task to another process: by reference, with the source files that it could not import by itself."""

import importlib.util
import multiprocessing
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pbt.errors import TaskError, UsageError
from pbt.executors.fingerprint import SENT
from pbt.executors.worker import Task, TrainFunction

WORKER_NAME = "pbt-worker"
"""The name of a worker process."""
UNGUARDED = 78
"""Exit code of a worker whose main program starts a run: EX_CONFIG, which no interpreter uses."""
GUARD = (
    "each worker process runs the program's file from the top, and there the run would start again; put the call "
    "under `if __name__ == \"__main__\":`, or use the executor 'inline'"
)


class TaskSource(NamedTuple):
    """A module that cannot be imported by name, as this process loaded it."""

    name: str
    file: str
    text: bytes


def check_sendable(task: TrainFunction | Task) -> None:
    """Raise TaskError if the task cannot be sent to another process."""
    main = sys.modules.get("__main__")
    sent = pickled(task)
    # A worker runs the file of the main program again, whether or not the task is defined there.
    if getattr(main, "__file__", None) == "<stdin>":
        raise TaskError(
            "the program is read from standard input, where other processes cannot find it; put it into a file, or "
            "use the executor 'inline'"
        )
    if b"__main__" in sent and not hasattr(main, "__file__"):
        raise TaskError(
            "the task is defined at a prompt or in a notebook, where other processes cannot find it; put it into a "
            "module, or use the executor 'inline'"
        )


def check_guarded() -> None:
    """Refuse to start a run while this process is only loading its main program to become a worker.

    A worker of this package exits without a traceback, and its parent reports `GUARD` once.

    Raises:
        UsageError: Another package started the process.
    """
    process = multiprocessing.current_process()
    if not getattr(process, "_inheriting", False):  # set by multiprocessing until the main program is loaded
        return
    if process.name == WORKER_NAME:
        raise SystemExit(UNGUARDED)
    raise UsageError(GUARD)


def pickled(sent: Any) -> bytes:
    """Pickle an object for another process.

    Raises:
        TaskError: A part of it cannot be found by name in the other process.
    """
    try:
        return pickle.dumps(sent)
    except Exception as error:
        raise TaskError(
            f"the task cannot be sent to another process ({error}); define its functions and classes at the top level "
            "of a module (no lambda, no closure), or use the executor 'inline'"
        ) from error


def sources() -> list[TaskSource]:
    """The modules loaded by `load_module`, in that order; the task may use any of them."""
    marked = [getattr(module, "__dict__", {}).get(SENT) for module in list(sys.modules.values())]
    return [source for source in marked if isinstance(source, TaskSource)]


def load_module(name: str, file: Path) -> Any:
    """Import a file under a name, and record its source for workers.

    Raises:
        OSError: The file does not exist.
    """
    return _load(TaskSource(name, str(file.resolve()), file.read_bytes()))


def load_sources(found: Sequence[TaskSource]) -> None:
    """In a worker: load the same modules from the same text, even if the file has changed or is missing."""
    for source in found:
        _load(source)


def _load(source: TaskSource) -> Any:
    spec = importlib.util.spec_from_file_location(source.name, source.file)
    if spec is None:
        raise TaskError(f"{source.file}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    setattr(module, SENT, source)
    sys.modules[source.name] = module
    try:
        exec(compile(source.text, source.file, "exec"), module.__dict__)  # noqa: S102 (the user's own program)
    except BaseException:
        del sys.modules[source.name]
        raise
    return module
