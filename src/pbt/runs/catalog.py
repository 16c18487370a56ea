"""Experiments and runs by the names used on the command line."""

import contextlib
import inspect
import os
import re
import secrets
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbt.core.population import View
from pbt.errors import DiskError, RunFormatError, TaskError, UsageError, nearest
from pbt.executors.transport import load_module
from pbt.runs.engine import FINISHED, Engine, Observer
from pbt.runs.experiment import Experiment
from pbt.runs.results import Run
from pbt.store.layout import DATABASE, OWN_NAMES, check_run_name
from pbt.text import printable

RUNS = Path("runs")
LATEST = "latest"
EXAMPLE = "task.py:experiment"
APPLICATIONS: Mapping[str, str] = {
    "mnist": "pbt.mnist.training:resume",
    "mnist-single": "pbt.mnist.training:resume",
}
"""Functions that resume a run, by the origin recorded in it; nothing else recorded in a run directory is ever
imported."""
UNREADABLE = "unreadable"
"""State of a run that cannot be read."""
REPLAY = "replay"
"""Recorded origin of replays."""


def load_experiment(named: str) -> Experiment:
    """Load the experiment named by `FILE.py:object`. The file is executed.

    Raises:
        UsageError: The file or object does not exist, or is not an experiment.
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
        raise UsageError(f"{file}: expected an object named '{name}', found none; {_would_do(module, file)}")
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
    """The experiment itself, or the one returned by a function."""
    if isinstance(target, Experiment):
        return target
    what = f"{file}:{name}: expected a pbt.Experiment or a function without arguments that returns one"
    if not callable(target) or inspect.isclass(target):
        kind = "a class" if inspect.isclass(target) else f"{type(target).__name__} {target!r:.60}"
        raise UsageError(f"{what}, found {kind}; {_would_do(module, file)}")
    with contextlib.suppress(ValueError):  # objects without a signature
        needed = [p.name for p in inspect.signature(target).parameters.values() if _is_needed(p)]
        if needed:
            raise UsageError(
                f"{what}, found a function of ({', '.join(needed)}); if that is the task, write "
                f"experiment = pbt.Experiment(task={name}, space=...) below it and name {file}:experiment"
            )
    try:
        made = target()
    except (Exception, SystemExit) as error:
        raise TaskError(f"{file}:{name}(): {_blame(error, file)}") from error
    if not isinstance(made, Experiment):
        raise UsageError(f"{what}, found a function that returned {type(made).__name__}; {_would_do(module, file)}")
    return made


def _is_needed(parameter: inspect.Parameter) -> bool:
    variadic = parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return parameter.default is parameter.empty and not variadic


def _would_do(module: Any, file: Path) -> str:
    """The names in a file that refer to an experiment, as the end of an error message."""
    good = sorted(name for name, value in vars(module).items() if isinstance(value, Experiment))
    if not good:
        return f"{file} has no pbt.Experiment; write experiment = pbt.Experiment(task=..., space=...)"
    return f"choose {' or '.join(f'{file}:{name}' for name in good)}"


def new_run_dir(stem: str) -> Path:
    """An unused name for a run: its task, the time and four random digits."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", stem).lstrip("._-")[:40] or "run"
    return RUNS / check_run_name(f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")


class LatestLink(Observer):
    """Points the link `latest` beside the run to it, on systems with links."""

    def on_start(self, engine: Engine) -> None:
        """Move the link when the run exists."""
        path = engine.store.path
        if path is None:
            return
        link, temporary = path.parent / LATEST, path.parent / f".{LATEST}.{os.getpid()}"
        if link.exists() and not link.is_symlink():
            return
        with contextlib.suppress(OSError):
            temporary.symlink_to(path.name, target_is_directory=True)
            temporary.replace(link)


class CleanupOnRefusal:
    """Removes a new run directory if the start of its run is refused.

    After a refusal the log has no report. A directory with anything more is kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        refused = isinstance(error, UsageError) and not isinstance(error, DiskError)
        if not refused or self._path not in self._made or not self._path.is_dir():
            return
        untouched = {entry.name for entry in self._path.iterdir()} <= OWN_NAMES
        with contextlib.suppress(UsageError, OSError):
            if not untouched or ((self._path / DATABASE).exists() and Run.open(self._path).tree.reports):
                return
            shutil.rmtree(self._path)
            link = self._path.parent / LATEST
            if link.is_symlink() and not link.exists():
                link.unlink()
            for folder in self._made[1:]:
                folder.rmdir()


def find_run(named: str) -> Path:
    """The run directory for a path or for a name in `runs`.

    Raises:
        RunFormatError: There is none.
    """
    for path in (Path(named), RUNS / named):
        if (path / DATABASE).is_file():
            # A link is resolved now, so that messages name the run itself.
            return path.resolve().relative_to(Path.cwd()) if _inside(path) else path.resolve()
    path = Path(named)
    if path.is_symlink() and not path.exists():
        raise RunFormatError(
            f"{path}: expected a run directory, found a link to {path.readlink()}, which does not exist"
        )
    runs = [run.name for run in runs_in(path if path.is_dir() else path.parent if path.parent.name else RUNS)]
    if path.is_dir():
        inside = f"; runs in it: {', '.join(sorted(runs)[-5:])}" if runs else ""
        raise RunFormatError(f"{path}: expected a run directory with {DATABASE}, found a folder without it{inside}")
    found = "a file" if path.exists() else "nothing"
    hint = nearest(path.name, runs) if runs else "; `pbt status runs` lists runs"
    raise RunFormatError(f"{path}: expected a run directory, found {found}{hint}")


def _inside(path: Path) -> bool:
    return not path.is_absolute() and path.resolve().is_relative_to(Path.cwd())


def runs_in(folder: Path) -> list[Path]:
    """The runs in a folder, by name, without links."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.is_symlink() and (path / DATABASE).is_file())


def state_of(view: View, *, writing: bool) -> str:
    """`running`, `finished`, `lost` (every member failed) or `interrupted`."""
    if writing:
        return "running"
    if view.ended is None:
        return "interrupted"
    return "finished" if view.ended == FINISHED else "lost"


def resume_command(path: Path, application: Mapping[str, Any]) -> str:
    """The command that resumes a run; it names the user's file, unless an application started the run."""
    if application.get("name") == REPLAY:
        given = {name: printable(value) for name, value in application.items() if value is not None}
        words = [given[name] for name in ("of", "object") if name in given]
        words += [f"--{name}={given[name]}" for name in ("seed", "member") if name in given]
        return " ".join([own_command(), *map(shlex.quote, ["replay", *words, "--out", str(path), "--resume"])])
    if application.get("name") in APPLICATIONS:
        return f"{own_command()} resume {shlex.quote(str(path))}"
    named = printable(application.get("object") or "FILE.py:object")
    return f"{own_command()} resume {shlex.quote(str(path))} {shlex.quote(named)}"


def own_command() -> str:
    """The command that starts this installation's `pbt`, ready to be pasted.

    `pbt` if the shell finds this installation (or no path is known), else its path.
    """
    own, on_path = Path(sys.executable).with_name("pbt"), shutil.which("pbt")
    if not own.is_file() or (on_path is not None and Path(on_path).resolve() == own.resolve()):
        return "pbt"
    shown = own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own
    return shlex.quote(str(shown))
