"""The connection to a Ray cluster, and its nodes."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Container
from typing import Any

from pbt.errors import DeviceError, MissingExtraError, UsageError, WorkerError
from pbt.executors.machine import cores_here
from pbt.executors.ray import leftovers
from pbt.executors.ray.autoscaling import autoscaler_of
from pbt.executors.ray.cluster import Cluster
from pbt.executors.ray.control_store import CALL_SECONDS, HEAD_SECONDS, bounded
from pbt.executors.ray.resources import amounts, room
from pbt.executors.ray.sent_code import code_environment

log = logging.getLogger("pbt")

_CONNECT_SECONDS = 15.0
"""Time for the greeting of a control store, which may be on a busy machine; a closed port is noticed at once."""
_RAYS_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's setting after which it ends a process whose control store is gone, without an exception."""
_FRAME, _KIND, _SETTINGS = 9, 3, b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0\0\0\0\0"
"""The start of an HTTP/2 connection, on which Ray's protocol (gRPC) is built; a server answers with a settings frame
(RFC 9113, sections 3.4 and 4.1). Ray itself would wait for minutes if another program listens."""

_ours = False
"""Whether this module connected and has to disconnect; Ray has one connection per process."""


def connected(cluster: Cluster, task: Any) -> Any:
    """The `ray` module, connected to the cluster; an existing connection of the program is reused.

    Args:
        cluster: The settings.
        task: The task, whose code is sent to the nodes of a running cluster.

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
    environment = dict(cluster.runtime_env) if where is None else code_environment(task, cluster.runtime_env)
    if environment:
        # Of the whole job: only then does Ray send local folders (`working_dir`, `py_modules`) to the nodes.
        options["runtime_env"] = environment
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
    _redirect_errors(ray)
    return ray


def _redirect_errors(ray: Any) -> None:
    """Log errors of Ray's servers for debugging: Ray prints them on stdout, and the journal has those of the run."""
    module = ray._private.worker
    if hasattr(module, "print_to_stdstream"):
        module.print_to_stdstream = lambda data, **_: log.debug("ray: %s", " ".join(data.get("lines", ())))


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


def nodes(ray: Any, left_out: Container[str] = (), seconds: float = CALL_SECONDS) -> list[dict[str, float]]:
    """The total resources of each living node that is not left out, within some seconds.

    Raises:
        TimeoutError: The control store does not answer.
    """
    found = bounded(ray.nodes, seconds)
    return [dict(node["Resources"]) for node in found if node["Alive"] and node["NodeID"] not in left_out]


def check_room(ray: Any, cluster: Cluster) -> int:
    """The number of workers that the cluster can hold now; 0 if its autoscaler could add a node for one.

    Raises:
        DeviceError: It can never hold one.
        TimeoutError: The control store does not answer.
    """
    found = nodes(ray, seconds=HEAD_SECONDS)
    count = room(found, cluster.need)
    if count == 0:
        scaler = bounded(lambda: autoscaler_of(ray), HEAD_SECONDS)
        if scaler is None or not scaler.can_hold(cluster.need):
            has = "; ".join(f"node {i} has {amounts(node)}" for i, node in enumerate(found, 1)) or "it has no nodes"
            more = f", and its autoscaler adds none: {scaler.describe()}" if scaler else ""
            raise DeviceError(
                f"a worker needs {amounts(cluster.need)}, which no node of the Ray cluster has: {has}{more}; request "
                "less, or add a node"
            )
    return count


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
