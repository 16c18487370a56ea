"""The directory of a new run: its name, and the link to it."""

import contextlib
import os
import re
import secrets
import time
from pathlib import Path

from pbt.runs.catalog import RUNS
from pbt.runs.engine import Engine, Observer
from pbt.store.layout import LATEST, check_run_name


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
