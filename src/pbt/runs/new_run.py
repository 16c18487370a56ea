"""The directory of a new run: its name, the link to it, and its removal if the run is refused."""

import contextlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path

from pbt.errors import DiskError, UsageError
from pbt.runs.catalog import LATEST, RUNS
from pbt.runs.engine import Engine, Observer
from pbt.runs.results import Run
from pbt.store.layout import DATABASE, OWN_NAMES, check_run_name


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
