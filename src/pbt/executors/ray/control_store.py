"""Ray's control store (GCS) on the head of a cluster: calls with a bound, and its loss."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from pbt.errors import InfrastructureError
from pbt.executors.retry import PAUSE_SECONDS

CALL_SECONDS = 10.0
HEAD_SECONDS = 30.0
"""Time without an answer after which the head counts as lost: less than the minute after which Ray ends its nodes."""
Result = TypeVar("Result")


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
