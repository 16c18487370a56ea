"""Settings of Ray: the address of the cluster, the resources per worker, its data."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pbt.errors import UsageError
from pbt.executors.cluster_data import ClusterData

ADDRESS = "RAY_ADDRESS"
"""Ray's own environment variable for the address of the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Settings of Ray; every one has a default.

    Args:
        address: `host:port` of the cluster, or `"auto"` for the one that runs on this machine. Default: the value of
            `RAY_ADDRESS`, else a new local Ray instance that ends with the run.
        cpus: CPU cores per worker.
        gpus: GPUs per worker, also a fraction such as 0.25.
        resources: Other resources per worker, by the names given when the nodes were started.
        runtime_env: Ray's runtime environment of the workers (`pip`, `working_dir`, `env_vars`, ...). A local
            `working_dir` is sent to the nodes, and is the working folder of the workers; not if the program has
            connected to Ray itself: then give it to `ray.init`.
        states_url: `file:///...`: the `states` folder of the run directory as seen by every node, on a shared file
            system. Workers then write there themselves. Default: the driver writes, and no folder is shared.
        data: Data that is sent to the workers, once to each node: arrays by name, or the path of a folder; a task reads
            it with `pbt.cluster_data()`. Default: every machine has its own copy of the data.

    Raises:
        UsageError: A negative number, a URL that is not a folder, or data that is neither arrays nor a folder.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    states_url: str | None = None
    data: Mapping[str, Any] | str | Path | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, value in self.need.items():
            if not value >= 0:
                raise UsageError(f"expected at least 0 {name} per worker, got {value}")
        if not any(self.need.values()):
            raise UsageError(
                "a worker must reserve some CPU, GPU or other resource; otherwise Ray would start workers without limit"
            )
        if self.states_url is not None and self.folder is None:
            raise UsageError(
                f"states_url: expected file:/// and a folder that all nodes share, got {self.states_url!r}"
            )
        object.__setattr__(self, "data", _data(self.data))

    @property
    def need(self) -> dict[str, float]:
        """Resources per worker, by Ray's names."""
        return {"CPU": self.cpus, "GPU": self.gpus, **self.resources}

    def asking(self, need: Mapping[str, float]) -> Self:
        """This cluster with the recorded resources per worker, unless others are requested."""
        if not need or self.need != Cluster().need:
            return self
        others = {name: value for name, value in need.items() if name not in ("CPU", "GPU")}
        return replace(self, cpus=need["CPU"], gpus=need["GPU"], resources=others)

    @property
    def folder(self) -> str | None:
        """The folder of `states_url`."""
        parts = urlsplit(self.states_url or "")
        return parts.path if parts.scheme == "file" and parts.path not in ("", "/") and not parts.netloc else None

    @property
    def held(self) -> ClusterData | None:
        """The data to send."""
        return None if isinstance(self.data, str) else self.data

    @property
    def where(self) -> str | None:
        """The address of a running cluster; None: a new local instance."""
        return self.address or os.environ.get(ADDRESS) or None


def _data(given: Any) -> ClusterData | None:
    """The data to send: a folder, or arrays by name.

    Raises:
        UsageError: It is neither.
    """
    if given is None:
        return None
    import numpy as np  # a placement without data does without

    if isinstance(given, (str, Path)):
        if not Path(given).is_dir():
            raise UsageError(f"Cluster(data=...): expected a folder, and {str(given)!r} is none")
        return Path(given).absolute()
    arrays = {name: np.asarray(array) for name, array in given.items()} if isinstance(given, Mapping) else {}
    if not arrays or any(array.dtype.hasobject or not isinstance(name, str) for name, array in arrays.items()):
        raise UsageError(
            "Cluster(data=...): expected arrays of numbers by name, such as {'train': x}, or the path of a folder, got "
            f"{type(given).__name__}"
        )
    return arrays
