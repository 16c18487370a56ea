"""Changes to uvicorn: a limit on connections, a time-out for requests, and a record of the signal that ended it."""

import asyncio
import ipaddress
from types import FrameType
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

MOST = 100
"""The most simultaneous connections; a browser opens up to six."""
EACH = 30
"""The most of them from one other machine; the users of this one share its address."""
PATIENCE = 10.0
"""Seconds until a request must be complete, from the start of the connection or from the previous response; and for
reading `LEAST` bytes of an answer."""
LEAST = 1 << 16
"""The fewest bytes of a waiting answer that must be read within `PATIENCE`."""


class LimitedConnection(H11Protocol):
    """A connection that is refused beyond `MOST` or `EACH`, and ended when a request or its reader takes too long."""

    _timer: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or abort it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST or self._is_one_too_many():
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
        self._restart()

    def pause_writing(self) -> None:
        """Wait for the reader of the answer, within a bound."""
        super().pause_writing()
        if self._reading is None:
            self._expect_reading()

    def resume_writing(self) -> None:
        """The answer was read, but for a rest that fits into one packet or two."""
        super().resume_writing()
        self._forget()
        self._restart()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time-outs of a closed connection."""
        self._forget()
        super().connection_lost(exc)

    def _is_one_too_many(self) -> bool:
        peer = self.client[0] if self.client else None
        if peer is None or is_shared(peer):
            return False
        others: Any = self.connections
        count: int = sum(bool(other.client) and other.client[0] == peer for other in others)
        return count > EACH

    def _restart(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wait()

    def _wait(self) -> None:
        if self._is_answering():
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(PATIENCE, self._end)

    def _end(self) -> None:
        """End a connection without a request; one whose answer is still read has a bound of its own."""
        self._timer = None
        if self.flow.write_paused:
            self._wait()
        elif self.transport.get_write_buffer_size():
            self.transport.abort()  # to close it would wait for its reader
        else:
            self.transport.close()

    def _expect_reading(self) -> None:
        before = self.transport.get_write_buffer_size()

        def check() -> None:
            if before - self.transport.get_write_buffer_size() < LEAST:
                self.transport.abort()
            else:
                self._expect_reading()

        self._reading = self.loop.call_later(PATIENCE, check)

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _forget(self) -> None:
        for timer in (self._timer, self._reading):
            if timer is not None:
                timer.cancel()
        self._timer = self._reading = None


def is_shared(address: str) -> bool:
    """Whether several users may have this address: that of this machine, also behind a tunnel or a proxy on it."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


class SignalServer(Server):
    """A server that records the signal that ended it."""

    signal: int | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down gracefully at the first signal, immediately at the second."""
        self.signal = self.signal or sig
        super().handle_exit(sig, frame)
