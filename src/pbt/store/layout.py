"""What a run directory looks like: its file names, when it is free to be made, and which names a run may have."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pbt.errors import DiskError, RunError, RunExistsError, RunFormatError, UsageError

DATABASE = "run.db"
STATES = "states"
LOCK = "lock"
JOURNAL = f"{DATABASE}-journal"
OWN_NAMES = frozenset({DATABASE, JOURNAL, STATES, LOCK})
OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM})
"""What the system says of a disk or folder that somebody can mend."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def check_run_name(name: str) -> str:
    """The name itself, if it is safe as the name of a folder on every system.

    Raises:
        UsageError: It is not.
    """
    if not _NAME.fullmatch(name) or name.endswith(".") or _RESERVED.fullmatch(name):
        raise UsageError(
            "run name: expected 1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit, do not end with a dot "
            f"and are no device name of Windows, got {name!r}"
        )
    return name


def check_own(path: Path) -> None:
    """Check that the parts of a run directory are its own: a link in it would be written, or swept, elsewhere.

    The directory itself may be a link.

    Raises:
        RunFormatError: One of them is a link.
    """
    for name in sorted(OWN_NAMES):
        if (path / name).is_symlink():
            raise RunFormatError(
                f"{path / name}: expected a part of the run itself, found a link; put what it points to in its place"
            )


def check_vacant(path: Path) -> None:
    """Check that nothing is there but what an interrupted creation leaves.

    Raises:
        RunExistsError: There is.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise RunExistsError(f"{path}: expected a new or empty directory, found a file")
    held = {entry.name for entry in path.iterdir()}
    if held <= OWN_NAMES and not ((path / STATES).is_dir() and any((path / STATES).iterdir())):
        return  # whether its database holds a run is asked under the lock
    raise already_there(path, ", ".join(sorted(held)[:5]))


def already_there(path: Path, held: str) -> RunExistsError:
    """The error for a directory that holds something."""
    return RunExistsError(
        f"{path}: expected a new or empty directory, found one that holds {held}; "
        f"continue a run with `pbt resume {path}`, or choose another directory"
    )


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn what the system raises into errors that say what to do.

    Raises:
        DiskError: Its disk is full, failing or read-only.
        RunError: The directory cannot be used for any other reason.
    """
    try:
        yield
    except OSError as error:
        what = f"{path}: cannot be used as a run directory ({error.strerror or error})"
        if error.errno in OF_THE_DISK:
            raise DiskError(f"{what}; make room or check its disk and permissions, then resume the run") from error
        raise RunError(f"{what}; check its disk and permissions") from error
