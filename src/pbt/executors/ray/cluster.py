"""A Ray cluster: what is asked of it, how it is reached, and whether it has room."""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import urlsplit

from pbt.errors import DeviceError, MissingExtraError, UsageError, WorkerError
from pbt.executors.machine import cores_here

log = logging.getLogger("pbt")

ADDRESS = "RAY_ADDRESS"
"""Ray's own variable: where the cluster is, if nothing else says so."""
_CONNECT_SECONDS = 5.0
_FRAME, _KIND, _SETTINGS = 9, 3, b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0\0\0\0\0"
"""How a client of HTTP/2 begins, on which Ray's protocol (gRPC) stands; the answer is a frame of settings too (RFC
9113, sections 3.4 and 4.1). Ray itself would wait for minutes where something else listens."""
_TENTHS = 10_000
"""Ray counts shares of a resource in these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What is asked of Ray; everything may be left as it is.

    Args:
        address: `host:port` of the cluster, or `"auto"` for the one that runs on this machine. Default: what
            `RAY_ADDRESS` says, else a Ray of its own on this machine, which ends with the run.
        cpus: CPU cores that a worker takes.
        gpus: GPUs that a worker takes, also a part of one, as 0.25.
        resources: Other resources that a worker takes, by the names that the nodes were started with.
        runtime_env: What Ray sets up for the workers (`pip`, `working_dir`, `env_vars`, ...), handed through.
        states_url: `file:///...`: the `states` folder of the run directory as every node sees it, where there is a
            shared file system. Workers then write there themselves. Default: the driver writes, and no folder is
            shared.

    Raises:
        UsageError: A negative number, or a URL that is no folder.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    states_url: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.need.items():
            if not value >= 0:
                raise UsageError(f"expected at least 0 of {name} for a worker, got {value}")
        if not any(self.need.values()):
            raise UsageError("expected a worker to take some CPU, GPU or other resource; without, they have no end")
        if self.states_url is not None and self.folder is None:
            raise UsageError(f"states_url: expected file:/// and a folder that all nodes see, got {self.states_url!r}")

    @property
    def need(self) -> dict[str, float]:
        """What one worker takes, by the names that Ray has for it."""
        return {"CPU": self.cpus, "GPU": self.gpus, **self.resources}

    def at(self, address: str | None) -> Self:
        """This cluster at that address, if it is one."""
        return self if address is None else replace(self, address=address)

    def asking(self, need: Mapping[str, float]) -> Self:
        """This cluster, with what a worker took when the run was begun, unless something else is asked for."""
        if not need or self.need != Cluster().need:
            return self
        others = {name: value for name, value in need.items() if name not in ("CPU", "GPU")}
        return replace(self, cpus=need["CPU"], gpus=need["GPU"], resources=others)

    @property
    def folder(self) -> str | None:
        """The folder that `states_url` means."""
        parts = urlsplit(self.states_url or "")
        return parts.path if parts.scheme == "file" and parts.path not in ("", "/") and not parts.netloc else None

    @property
    def where(self) -> str | None:
        """The address of a cluster that is there already; None: there is none."""
        return self.address or os.environ.get(ADDRESS) or None


_ours = False
"""Whether this module connected, and has to disconnect; Ray itself has one connection per process."""


def connected(cluster: Cluster) -> Any:
    """The `ray` module, connected to the cluster; where the program is connected already, that connection.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: The address is of another form.
        WorkerError: Nothing answers at the address, or it does not let us in.
    """
    global _ours  # noqa: PLW0603 (Ray's connection is one of the process too)
    ray = _imported(private=cluster.where is None)
    if ray.is_initialized():
        return ray
    where = cluster.where
    # What workers print stays in Ray's own logs: on the driver's stdout it would stand in the middle of a result.
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "include_dashboard": None}
    if where is None:
        options |= {"address": "local", "include_dashboard": False, "num_cpus": cores_here()}
    else:
        knock(where)
        options["address"] = where
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except Exception as error:
        raise WorkerError(
            f"no Ray cluster can be reached at {where or 'this machine'} ({_first_line(error)}); start one with "
            "'ray start --head', check the address, and where it asks for a token set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH"
        ) from error
    finally:
        # Ray sets its own, with another exit code.
        if (
            threading.current_thread() is threading.main_thread()
            and before is not None
            and signal.getsignal(signal.SIGTERM) is not before
        ):
            signal.signal(signal.SIGTERM, before)
    _ours = True
    return ray


def disconnect() -> None:
    """End the connection that `connected` made, and the Ray that it started; not one that was there before."""
    global _ours  # noqa: PLW0603
    if _ours:
        _ours = False
        sys.modules["ray"].shutdown()


def nodes(ray: Any) -> list[dict[str, float]]:
    """What each living node has in all."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def room(there: Sequence[Mapping[str, float]], need: Mapping[str, float]) -> int:
    """How many workers the nodes hold: one never stretches over two nodes."""
    need = {name: value for name, value in need.items() if value}
    return sum(min(_tenths(node.get(name, 0.0)) // _tenths(value) for name, value in need.items()) for node in there)


def check_room(ray: Any, cluster: Cluster) -> int:
    """How many workers the cluster holds.

    Raises:
        DeviceError: Not even one.
    """
    there = nodes(ray)
    count = room(there, cluster.need)
    if count == 0:
        raise DeviceError(
            f"a worker asks for {amounts(cluster.need)}; no node of the Ray cluster has that: "
            f"{'; '.join(f'node {i} has {amounts(node)}' for i, node in enumerate(there, 1)) or 'there is none'}. "
            "Ask for less, or add a node"
        )
    return count


def _tenths(amount: float) -> int:
    return max(0, round(_TENTHS * amount))


def amounts(resources: Mapping[str, float]) -> str:
    """Resources in words; without what Ray counts for itself."""
    own = ("node:", "accelerator_type:", "object_store_memory", "memory")
    shown = [f"{value:g} {name}" for name, value in sorted(resources.items()) if value and not name.startswith(own)]
    return ", ".join(shown) or "nothing"


def _imported(*, private: bool) -> Any:
    """The library. Its settings are read at import, so those of a Ray of our own are made before."""
    if private and "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if "RAY_AUTH_MODE" not in os.environ:
            # Whoever reaches a Ray cluster may run programs on it: nobody else on this machine or network shall.
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("executor='ray'", "ray") from error
    return ray


def knock(where: str) -> None:
    """Whether a Ray cluster is there: Ray itself would ask for minutes.

    Raises:
        UsageError: The address is of another form.
        WorkerError: Nothing answers there, or something else.
    """
    if where in ("auto", "local"):
        return
    host, colon, port = where.rpartition(":")
    if "//" in where or not (host and colon and port.isdecimal()):
        raise UsageError(
            f"address: expected host:port of the cluster, or auto, got {where!r}; a program is started on a node of "
            "the cluster, or sent there with 'ray job submit'"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as line:
            line.sendall(_GREETING)
            answer = line.makefile("rb").read(_FRAME)
    except (OSError, OverflowError) as error:
        raise WorkerError(
            f"no Ray cluster answers at {where} ({error}); start one with 'ray start --head', or check the address"
        ) from error
    # Encrypted connections begin otherwise.
    if os.environ.get("RAY_USE_TLS", "0") != "1" and answer[_KIND : _KIND + 1] != _SETTINGS:
        raise WorkerError(f"what listens at {where} is no Ray cluster; check the port: 'ray start --head' has 6379")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
