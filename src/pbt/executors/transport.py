"""How a task gets into another process: by reference, with the files that the other one could not find by itself."""

import importlib.util
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pbt.errors import TaskError
from pbt.executors.worker import Task, TrainFunction

_MARK = "__pbt_source__"
"""The attribute of a module that `load_module` loaded: what it was made of."""


class TaskSource(NamedTuple):
    """A module that no import would find, as it was when this process loaded it."""

    name: str
    file: str
    text: bytes


def check_sendable(task: TrainFunction | Task) -> None:
    """Raise TaskError if the task cannot be sent to another process."""
    main = sys.modules.get("__main__")
    # A worker runs the file of the main program again to find what is defined there.
    if b"__main__" in pickled(task) and not hasattr(main, "__file__"):
        raise TaskError(
            "the task is defined at a prompt or in a notebook, where no other process can find it. Put it into a "
            "module, or use executor='inline'"
        )


def pickled(sent: Any) -> bytes:
    """What another process makes its own copy of.

    Raises:
        TaskError: Something in it has no name by which the other process could find it.
    """
    try:
        return pickle.dumps(sent)
    except Exception as error:
        raise TaskError(
            f"the task cannot be sent to another process ({error}). Define its functions and classes at the top level "
            "of a module (no lambda, no closure), or use executor='inline'"
        ) from error


def sources() -> list[TaskSource]:
    """The modules that `load_module` loaded, in that order: the task may use any of them."""
    marked = [getattr(module, "__dict__", {}).get(_MARK) for module in list(sys.modules.values())]
    return [source for source in marked if isinstance(source, TaskSource)]


def load_module(name: str, file: Path) -> Any:
    """Import a file under a name, and mark it so that workers can do the same.

    Raises:
        OSError: There is no such file.
    """
    return _load(TaskSource(name, str(file.resolve()), file.read_bytes()))


def load_sources(found: Sequence[TaskSource]) -> None:
    """In a worker: the same modules, of the same text, also where the file has changed since or is not there."""
    for source in found:
        _load(source)


def _load(source: TaskSource) -> Any:
    spec = importlib.util.spec_from_file_location(source.name, source.file)
    if spec is None:
        raise TaskError(f"{source.file}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    setattr(module, _MARK, source)
    sys.modules[source.name] = module
    try:
        exec(compile(source.text, source.file, "exec"), module.__dict__)  # noqa: S102 (the user's own program)
    except BaseException:
        del sys.modules[source.name]
        raise
    return module
