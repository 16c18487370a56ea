"""What uvicorn is asked to do otherwise: how many connections there may be, how long one may wait, and how it ends."""

import asyncio
from types import FrameType
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

MOST = 100
"""Connections at once; a browser has up to six."""
PATIENCE = 10.0
"""Seconds in which a request has to be there whole, from the beginning of the connection or the answer before."""


class Bounded(H11Protocol):
    """A connection that is closed at once where there are too many, and after a while where nothing comes of it."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept it, or not."""
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or all of it."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """The next request may come, or be here already in part."""
        super().on_response_complete()
        self._forget()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
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


class Stopped(Server):
    """A server that knows which signal ended it."""

    signal: int | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came: end in good order, at a second one at once."""
        self.signal = self.signal or sig
        super().handle_exit(sig, frame)
