"""The data of `Cluster(data=...)`, as a task reads it: in the driver as given, in a worker as it arrived."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pbt.errors import TaskError

ClusterData = Mapping[str, Any] | Path
"""Arrays by name, or a folder."""
_held: ClusterData | None = None


def cluster_data() -> Any:
    """The data of `pbt.Cluster(data=...)`: the arrays by name, read-only on workers, or the path of the folder.

    Call it in a task, or in the `data` function of a `SupervisedTask`. In the driver it returns the data as given.

    Raises:
        TaskError: The placement has no such data, or its executor does not send it.
    """
    if _held is None:
        raise TaskError(
            "cluster_data: expected a placement with cluster=pbt.Cluster(data=...), and the executor 'ray' or 'inline'"
        )
    return _held


def hold(data: ClusterData | None) -> None:
    """Let `cluster_data` return this from now on."""
    global _held  # noqa: PLW0603 (a task has no other way to its placement)
    _held = data
