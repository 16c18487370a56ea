"""What there is here: cores, and the versions of what is installed."""

import functools
import os
from importlib import metadata


def cores_here() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def version_of(distribution: str) -> str | None:
    """The version of an installed distribution; None: it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
