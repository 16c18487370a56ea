"""The directory of a new run: its name, and the link to it."""

import contextlib
import os
import re
import secrets
import time
from pathlib import Path

from pbt.runs.catalog import RUNS
from pbt.runs.engine import Engine, Observer
from pbt.store.layout import LATEST, check_run_name, check_vacant, os_errors
from pbt.store.reader import is_begun

PRIVATE = 0o700
"""Permissions of a directory for its owner only."""


def new_run_dir(stem: str) -> Path:
    """An unused name for a run: its task, the time and four random digits."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", stem).lstrip("._-")[:40] or "run"
    return RUNS / check_run_name(f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")


def make_private(path: Path) -> None:
    """Make a run directory, or that of a run to resume, accessible for its owner only.

    Raises:
        RunExistsError: It is a directory of something else.
        RunError: It cannot be made.
    """
    if not is_begun(path):
        check_vacant(path)
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE, exist_ok=True)
        path.chmod(PRIVATE)


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
