"""The code of a task on its way to the nodes: its folder or packages, as part of the job's runtime environment."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbt.executors.fingerprint import modules_of, named_in
from pbt.executors.transport import pickled, sources

log = logging.getLogger("pbt")

LIMIT = 100 * 2**20
"""Maximal size in bytes of a folder that is sent without a request."""
_EXCLUDES = (".git", ".hg", ".venv", "venv", "__pycache__", "node_modules", ".*_cache")
_RUN, _ENVIRONMENT = "run.db", "pyvenv.cfg"
"""Files by which run directories and virtual environments are recognized."""
_OWN = "pbt"
_SENT = ("working_dir", "py_modules")


def code_environment(task: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime environment of a job, with the code of its task.

    Args:
        task: The task.
        given: The requested environment: a `working_dir` or `py_modules` in it win; None there sends nothing.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if any(name in given for name in _SENT):
        return chosen
    folder, packages = _code_of(task)
    sent = [path for path in ([folder] if folder else packages) if _fits(path)]
    if not sent:
        return chosen
    place: dict[str, Any] = {"working_dir": str(folder)} if folder else {"py_modules": [str(path) for path in sent]}
    excludes = [*given.get("excludes", ()), *_EXCLUDES, *(name for path in sent for name in _results_in(path))]
    return chosen | place | {"excludes": excludes}


def _code_of(task: Any) -> tuple[Path | None, list[Path]]:
    """The folder of the program's file, or else the packages of the task; not of installed packages."""
    sent = pickled(task)
    # Other files that this process has loaded, such as those of an earlier run, have nothing to do with the task.
    if found := [source for source in sources() if source.name in named_in(sent)]:
        return Path(found[-1].file).parent, []
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if b"__main__" in sent and main:
        return Path(main).absolute().parent, []
    tops = sorted({name.partition(".")[0] for name in modules_of(sent)} - {_OWN})
    files = [Path(str(sys.modules[top].__file__)) for top in tops if getattr(sys.modules.get(top), "__file__", None)]
    packages = [file.parent for file in files if file.name == "__init__.py"]
    modules = [file.parent for file in files if file.name != "__init__.py"]
    return (modules[0], []) if modules else (None, packages)


def _fits(path: Path) -> bool:
    """Whether a folder is small enough; if not, a message has its size, the limit and the remedies."""
    size, largest = size_of(path)
    if size <= LIMIT:
        return True
    shown = ", ".join(f"{name} ({each / 2**20:.0f} MiB)" for name, each in largest)
    log.warning(
        "ray: %s is not sent to the nodes: it has %.0f MiB, and the limit is %.0f MiB; the largest parts are %s; name "
        "them in .gitignore or .rayignore, send them with Cluster(data=...), or set "
        "Cluster(runtime_env={'working_dir': None}) if every node has the files",
        path, size / 2**20, LIMIT / 2**20, shown,
    )  # fmt: skip
    return False


def size_of(folder: Path) -> tuple[int, list[tuple[str, int]]]:
    """The size of the files in a folder that Ray would send, in bytes, and its three largest entries."""
    # Ray's own choice of files (.gitignore, .rayignore), which has no public name.
    from ray._private.runtime_env import packaging

    sizes: dict[str, int] = {}

    def add(path: Path) -> None:
        if path.is_file():
            name = path.relative_to(folder).parts[0]
            sizes[name] = sizes.get(name, 0) + path.stat().st_size

    excludes = [packaging._get_excludes(folder, [*_EXCLUDES, *_results_in(folder)])]
    packaging._dir_travel(folder, excludes, add, include_gitignore=True, logger=logging.getLogger("pbt.ray.excludes"))
    return sum(sizes.values()), sorted(sizes.items(), key=lambda item: -item[1])[:3]


def _results_in(folder: Path) -> list[str]:
    """Run directories and virtual environments in a folder, as patterns."""
    marks = [mark for name in (_RUN, _ENVIRONMENT) for depth in ("*/", "*/*/") for mark in folder.glob(depth + name)]
    return [f"/{mark.parent.relative_to(folder).as_posix()}" for mark in marks]
