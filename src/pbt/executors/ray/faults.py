"""Ray's errors: which of them are the infrastructure's, and their text in a line."""

import re
from typing import Any, Literal

from pbt.errors import CorruptError, DiskError

Fault = Literal["worker", "cluster", "node"]
"""`worker`: it died or hung, perhaps through its round, which costs an attempt. `cluster`: a full disk, little memory,
a lost object; the round runs again, and the run stops if it persists. `node`: it went, which costs nothing.
"""
_CLUSTER = (
    "OutOfDiskError ObjectStoreFullError OutOfMemoryError ObjectLostError GetTimeoutError RpcError RaySystemError "
    "PlasmaObjectNotAvailable"
)
_MEMORY = "running low on memory"
_NODE = re.compile(r"node (?:has )?(?:was )?(?:died|terminated|dead|preempted|drained)|node is dead", re.IGNORECASE)
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
REMEDY = "remove the cause, then resume: no finished round is lost"


def fault_of(ray: Any, error: BaseException) -> Fault:
    """Whether an error of Ray is the worker's, the infrastructure's or that of a node that went."""
    exceptions = ray.exceptions
    if isinstance(error, exceptions.NodeDiedError) or getattr(error, "preempted", False):
        return "node"
    if isinstance(error, tuple(getattr(exceptions, name) for name in _CLUSTER.split())):
        return "cluster"
    if isinstance(getattr(error, "cause", None), (MemoryError, OSError, DiskError, CorruptError)):
        return "cluster"
    if isinstance(error, exceptions.RayActorError):
        if _MEMORY in str(error):
            return "cluster"
        if _NODE.search(str(error)):
            return "node"
    return "worker"


def brief(error: BaseException) -> str:
    """The reason of an error of Ray, which can be pages long, in a line without colors."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        error = cause
    lines = [line.strip() for line in _COLORS.sub("", str(error)).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300].rstrip(".") or type(error).__name__
