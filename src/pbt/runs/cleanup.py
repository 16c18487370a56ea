"""Removal of the directory of a new run whose start is refused."""

import contextlib
import shutil
from pathlib import Path

from pbt.errors import DiskError, InfrastructureError, UsageError, WorkerError
from pbt.runs.results import Run
from pbt.store.layout import DATABASE, LATEST, OWN_NAMES


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
        refused = isinstance(error, (UsageError, WorkerError))
        refused = refused and not isinstance(error, (DiskError, InfrastructureError))
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
