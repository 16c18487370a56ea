"""Changes to uvicorn: a limit on connections, a time-out for requests, and a record of the signal that ended it."""

import asyncio
from types import FrameType
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

MOST = 100
"""The most simultaneous connections; a browser opens up to six."""
PATIENCE = 10.0
"""Seconds until a request must be complete, from the start of the connection or from the previous response."""


class LimitedConnection(H11Protocol):
    """A connection that is refused beyond `MOST`, and closed when a request takes longer than `PATIENCE`."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or abort it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request, or all of it."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """Restart the time-out for the next request, which may have arrived in part."""
        super().on_response_complete()
        self._forget()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time-out of a closed connection."""
        self._forget()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._is_answering():
            self._forget()
        elif self._timer is None:
            self._timer = self.loop.call_later(PATIENCE, self.transport.close)

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SignalServer(Server):
    """A server that records the signal that ended it."""

    signal: int | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down gracefully at the first signal, immediately at the second."""
        self.signal = self.signal or sig
        super().handle_exit(sig, frame)
