"""The connection to a Ray cluster: its settings, its address, and its free resources."""

import contextlib
import logging
import os
import queue
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from urllib.parse import urlsplit

from pbt.errors import DeviceError, InfrastructureError, MissingExtraError, UsageError, WorkerError
from pbt.executors.cluster_data import ClusterData
from pbt.executors.machine import cores_here
from pbt.executors.ray import leftovers
from pbt.executors.retry import PAUSE_SECONDS

log = logging.getLogger("pbt")

ADDRESS = "RAY_ADDRESS"
"""Ray's own environment variable for the address of the cluster."""
_CONNECT_SECONDS = 5.0
CALL_SECONDS = 10.0
HEAD_SECONDS = 30.0
"""Time without an answer after which the head counts as lost: less than the minute after which Ray ends its nodes."""
_RAYS_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's setting after which it ends a process whose control store is gone, without an exception."""
Result = TypeVar("Result")
_FRAME, _KIND, _SETTINGS = 9, 3, b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0\0\0\0\0"
"""The start of an HTTP/2 connection, on which Ray's protocol (gRPC) is built; a server answers with a settings frame
(RFC 9113, sections 3.4 and 4.1). Ray itself would wait for minutes if another program listens."""
_TENTHS = 10_000
"""Ray counts fractions of a resource in these units."""


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


_ours = False
"""Whether this module connected and has to disconnect; Ray has one connection per process."""


def connected(cluster: Cluster) -> Any:
    """The `ray` module, connected to the cluster; an existing connection of the program is reused.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: The address has another form.
        WorkerError: The cluster does not answer, or refuses the connection.
    """
    global _ours  # noqa: PLW0603 (Ray's connection is global to the process too)
    ray = _imported(private=cluster.where is None)
    if ray.is_initialized():
        return ray
    where = cluster.where
    # The workers' output stays in Ray's own logs; on the driver's stdout it would mix with results.
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "include_dashboard": None}
    if where is None:
        options |= {"address": "local", "include_dashboard": False, "num_cpus": cores_here()}
    else:
        knock(where)
        options["address"] = where
    if cluster.runtime_env:
        # Of the whole job: only then does Ray send local folders (`working_dir`, `py_modules`) to the nodes.
        options["runtime_env"] = dict(cluster.runtime_env)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with leftovers.ended_with_driver() if where is None else contextlib.nullcontext():
            ray.init(**options)
    except Exception as error:
        leftovers.end()
        raise WorkerError(
            f"no Ray cluster can be reached at {where or 'this machine'} ({_first_line(error)}); start one with "
            "'ray start --head', check the address, and where it asks for a token set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH"
        ) from error
    finally:
        # Ray installs a handler with another exit code.
        if (
            threading.current_thread() is threading.main_thread()
            and before is not None
            and signal.getsignal(signal.SIGTERM) is not before
        ):
            signal.signal(signal.SIGTERM, before)
    _ours = True
    return ray


def connection_is_ours() -> bool:
    """Whether `connected` made the connection, with the runtime environment of its cluster."""
    return _ours


def disconnect() -> None:
    """End the connection made by `connected`, and the Ray instance it started; an earlier connection stays."""
    global _ours  # noqa: PLW0603
    if _ours:
        _ours = False
        with contextlib.suppress(TimeoutError):
            bounded(sys.modules["ray"].shutdown)
        leftovers.end()


def bounded(call: Callable[[], Result], seconds: float = CALL_SECONDS) -> Result:
    """The result of a call to Ray's control store, which blocks without end while the store is gone.

    Raises:
        TimeoutError: It takes longer than the bound; the call is left to a thread.
    """
    results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def answer() -> None:
        try:
            results.put((call(), None))
        except BaseException as error:  # noqa: BLE001 (raised in the caller)
            results.put((None, error))

    threading.Thread(target=answer, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:g} s") from None
    if error is not None:
        raise error
    return cast("Result", result)


class Head:
    """The control store (GCS) on the head of the cluster, watched by connections with a bound.

    Args:
        address: Its `host:port`.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._looked = self._answered = time.monotonic()

    @property
    def answers(self) -> bool:
        """Whether it answered the last time, at most a second ago.

        Raises:
            InfrastructureError: It has not answered for `HEAD_SECONDS`.
        """
        now = time.monotonic()
        if now - self._looked > PAUSE_SECONDS:
            self._answered += now - self._looked  # this process was suspended
        if now - self._looked >= 1.0 or self._answered < self._looked:
            self._looked = now
            host, _, port = self._address.rpartition(":")
            with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
                self._answered = now
        if now - self._answered > HEAD_SECONDS:
            raise InfrastructureError(
                f"the head of the Ray cluster at {self._address} has not answered for {HEAD_SECONDS:g} s; start it or "
                "another cluster, then resume: no finished round is lost"
            )
        return self._answered >= self._looked


def head_of(ray: Any) -> Head:
    """The control store of the connected cluster."""
    return Head(str(ray.get_runtime_context().gcs_address))


def nodes(ray: Any, left_out: Container[str] = ()) -> list[dict[str, float]]:
    """The total resources of each living node that is not left out.

    Raises:
        TimeoutError: The control store does not answer.
    """
    return [dict(node["Resources"]) for node in bounded(ray.nodes) if node["Alive"] and node["NodeID"] not in left_out]


def room(free: Sequence[Mapping[str, float]], need: Mapping[str, float]) -> int:
    """The number of workers that the nodes can hold; a worker cannot span two nodes."""
    need = {name: value for name, value in need.items() if value}
    return sum(min(_tenths(node.get(name, 0.0)) // _tenths(value) for name, value in need.items()) for node in free)


def check_room(ray: Any, cluster: Cluster) -> int:
    """The number of workers that the cluster can hold.

    Raises:
        DeviceError: It is 0.
    """
    found = nodes(ray)
    count = room(found, cluster.need)
    if count == 0:
        raise DeviceError(
            f"a worker needs {amounts(cluster.need)}, which no node of the Ray cluster has: "
            f"{'; '.join(f'node {i} has {amounts(node)}' for i, node in enumerate(found, 1)) or 'it has no nodes'}; "
            "request less, or add a node"
        )
    return count


def _tenths(amount: float) -> int:
    return max(0, round(_TENTHS * amount))


def amounts(resources: Mapping[str, float]) -> str:
    """Resources as text, without those that Ray counts for itself."""
    own = ("node:", "accelerator_type:", "object_store_memory", "memory")
    shown = [f"{value:g} {name}" for name, value in sorted(resources.items()) if value and not name.startswith(own)]
    return ", ".join(shown) or "nothing"


def _imported(*, private: bool) -> Any:
    """Import Ray. It reads its settings at import, so those of a local instance are set before."""
    if private and "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if "RAY_AUTH_MODE" not in os.environ:
            # Access to a Ray cluster allows running programs on it, so it is closed to other users and machines.
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if not private and "ray" not in sys.modules:
        # This process ends with an exception of its own, earlier.
        os.environ.setdefault(_RAYS_PATIENCE, "86400")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("the executor 'ray'", "ray") from error
    return ray


def knock(where: str) -> None:
    """Check that a Ray cluster answers at the address; Ray itself would try for minutes.

    Raises:
        UsageError: The address has another form.
        WorkerError: Nothing or another program answers.
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
    # Encrypted connections start differently.
    if os.environ.get("RAY_USE_TLS", "0") != "1" and answer[_KIND : _KIND + 1] != _SETTINGS:
        raise WorkerError(f"the program at {where} is not a Ray cluster; check the port: 'ray start --head' uses 6379")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
