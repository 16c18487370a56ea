"""Load experiments from Python files, by their names on the command line."""

import contextlib
import inspect
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from pbt.errors import TaskError, UsageError, nearest
from pbt.executors.transport import load_module
from pbt.runs.experiment import Experiment

EXAMPLE = "task.py:experiment"


def load_experiment(named: str) -> Experiment:
    """Load the experiment named by `FILE.py:object`. The file is executed.

    Raises:
        UsageError: The file or object does not exist, or the object is no experiment.
    """
    file_name, colon, name = named.rpartition(":")
    if not colon or not file_name.endswith(".py"):
        expected = named if named.endswith(".py") else "FILE.py"
        raise UsageError(f"expected {expected}:object, as in {EXAMPLE}, got '{named}'")
    file = Path(file_name)
    if not file.is_file():
        scripts = [path.name for path in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise UsageError(f"{file}: expected a Python file, found none{nearest(file.name, scripts) if scripts else ''}")
    module = _load(file)
    if not hasattr(module, name):
        raise UsageError(f"{file}: expected an object named '{name}', found none; {_known_experiments(module, file)}")
    return _experiment(getattr(module, name), name, file, module)


def _load(file: Path) -> Any:
    name = "pbt_file_" + re.sub(r"\W", "_", file.stem)
    # Appended to the path, so that files beside it can be imported but hide no installed package.
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return load_module(name, file)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise TaskError(f"{file}: expected a file that can be executed, {_blame(error, file)}") from error


def _blame(error: BaseException, file: Path) -> str:
    """The location of an error in the user's file, and its message."""
    if isinstance(error, SyntaxError):
        return f"found a syntax error in line {error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    lines = lines or [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file.resolve())]
    return f"line {lines[-1] if lines else 1} raised {type(error).__name__}: {error}"


def _experiment(target: Any, name: str, file: Path, module: Any) -> Experiment:
    """The object itself if it is an experiment, else the experiment that it returns."""
    if isinstance(target, Experiment):
        return target
    what = f"{file}:{name}: expected a pbt.Experiment or a function without arguments that returns one"
    if not callable(target) or inspect.isclass(target):
        kind = "a class" if inspect.isclass(target) else f"{type(target).__name__} {target!r:.60}"
        raise UsageError(f"{what}, found {kind}; {_known_experiments(module, file)}")
    with contextlib.suppress(ValueError):  # objects without a signature
        required = [p.name for p in inspect.signature(target).parameters.values() if _is_required(p)]
        if required:
            raise UsageError(
                f"{what}, found a function of ({', '.join(required)}); if that is the task, write "
                f"experiment = pbt.Experiment(task={name}, space=...) below it and name {file}:experiment"
            )
    try:
        experiment = target()
    except (Exception, SystemExit) as error:
        raise TaskError(f"{file}:{name}(): {_blame(error, file)}") from error
    if not isinstance(experiment, Experiment):
        kind = type(experiment).__name__
        raise UsageError(f"{what}, found a function that returned {kind}; {_known_experiments(module, file)}")
    return experiment


def _is_required(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return parameter.default is parameter.empty and not variadic


def _known_experiments(module: Any, file: Path) -> str:
    """The names of a file's experiments, as the end of an error message."""
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Experiment))
    if not names:
        return f"{file} has no pbt.Experiment; write experiment = pbt.Experiment(task=..., space=...)"
    return f"choose {' or '.join(f'{file}:{name}' for name in names)}"
