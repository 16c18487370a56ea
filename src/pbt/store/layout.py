"""Layout of a run directory: file names, checks before its creation, and valid run names."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pbt.errors import DiskError, RunError, RunExistsError, RunFormatError, UsageError

DATABASE = "run.db"
STATES = "states"
LOCK = "lock"
LOGS = "logs"
"""The folder of the logs of programs; derived, hence not one of `OWN_NAMES`."""
LATEST = "latest"
"""The link beside runs to the newest one."""
JOURNAL = f"{DATABASE}-journal"
SCRATCH = "scratch"
"""Working folders of the rounds in progress, removed when the run is opened."""
LIVE = "live"
"""Points of the rounds in progress, removed when the run is opened and closed."""
OWN_NAMES = frozenset({DATABASE, JOURNAL, STATES, LOCK, SCRATCH, LIVE})
OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM})
"""Error numbers of a full, failing or protected disk, which the user can remedy."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def check_run_name(name: str) -> str:
    """Return the name if it is safe as a folder name on every system.

    Raises:
        UsageError: It is not.
    """
    if not _NAME.fullmatch(name) or name.endswith(".") or _RESERVED.fullmatch(name):
        raise UsageError(
            "run name: expected 1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit, do not end with a dot "
            f"and are not a device name of Windows, got {name!r}"
        )
    return name


def check_own(path: Path) -> None:
    """Check that no part of a run directory is a link, through which writes and sweeps would reach other files.

    The directory itself may be a link.

    Raises:
        RunFormatError: A part is a link.
    """
    for name in sorted({*OWN_NAMES, LOGS}):
        if (path / name).is_symlink():
            raise RunFormatError(
                f"{path / name}: expected a file or folder of the run, found a link; replace it by its target"
            )


def check_vacant(path: Path) -> None:
    """Check that a directory is absent, empty or the left-over of an interrupted creation.

    Raises:
        RunExistsError: It is not.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise RunExistsError(f"{path}: expected a new or empty directory, found a file")
    held = {entry.name for entry in path.iterdir()}
    if held <= OWN_NAMES and not ((path / STATES).is_dir() and any((path / STATES).iterdir())):
        return  # whether the database holds a run is checked under the lock
    raise already_there(path, ", ".join(sorted(held)[:5]))


def already_there(path: Path, held: str) -> RunExistsError:
    """The error for a directory that is not empty."""
    return RunExistsError(
        f"{path}: expected a new or empty directory, found one with {held}; "
        f"resume a run with `pbt resume {path}`, or choose another directory"
    )


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Translate OSError into errors with a remedy.

    Raises:
        DiskError: The disk is full, failing or read-only.
        RunError: The directory cannot be used for another reason.
    """
    try:
        yield
    except OSError as error:
        what = f"{path}: cannot be used as a run directory ({error.strerror or error})"
        if error.errno in OF_THE_DISK:
            raise DiskError(f"{what}; make room or check its disk and permissions, then resume the run") from error
        raise RunError(f"{what}; check its disk and permissions") from error
