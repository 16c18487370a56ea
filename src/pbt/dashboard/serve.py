"""The server: where it listens, who may come, and how it ends."""

import asyncio
import errno
import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pbt.dashboard import HOST, PORT
from pbt.errors import MissingExtraError, UsageError
from pbt.report.write import plotly_js

if TYPE_CHECKING:
    from pbt.dashboard.limits import Stopped

SHORTEST = 16
"""Characters of a token: fewer could be guessed."""
NEEDS = "pbt dashboard", "dashboard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens."""

    listener: socket.socket
    host: str
    """As it was asked for."""
    bound: str
    """The number that it stands for."""
    port: int
    loopback: bool
    """Whether only this machine can come."""
    wildcard: bool
    """Whether every address of this machine will do."""

    @property
    def names(self) -> frozenset[str]:
        """By which it may be called, in lower case."""
        found = {self.host.lower(), self.bound}
        if self.loopback:
            found |= {"localhost", "127.0.0.1", "::1"}
        if self.wildcard:
            found |= {"localhost", socket.gethostname().lower()}
        return frozenset(found)

    def url(self, token: str | None = None) -> str:
        """To be pasted into a browser."""
        host = socket.gethostname() if self.wildcard else self.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/" + (f"?token={quote(token, safe='')}" if token else "")


def listen(host: str = HOST, port: int = PORT) -> Address:
    """Begin to listen.

    Args:
        host: A name or address of this machine.
        port: 0: any that is free.

    Raises:
        UsageError: The host is not known or not this machine, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port: expected 0 to 65535, got {port}")
    try:
        # The first address will do: whoever asks for a name is told the name.
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(
            f"--host: expected a name or address of this machine, got '{host}', which is unknown"
        ) from error
    try:
        found = socket.create_server((str(address[0]), port), family=family)
    except OSError as error:
        raise UsageError(_refused(error, host, port)) from error
    bound = ipaddress.ip_address(str(found.getsockname()[0]).partition("%")[0])
    return Address(
        listener=found,
        host=host,
        bound=str(bound),
        port=found.getsockname()[1],
        loopback=bound.is_loopback,
        wildcard=bound.is_unspecified,
    )


def _refused(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port: {port} is taken on {host}; choose another one, or --port 0 for any that is free"
    if error.errno == errno.EACCES:
        return f"--port: {port} may not be used by you; choose one from 1024 on"
    if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return f"--host: expected a name or address of this machine, got '{host}', which is another's"
    return f"--host, --port: {host}:{port} cannot be used ({error.strerror or error})"


def chosen(token: str | None, *, loopback: bool) -> str | None:
    """The token that is asked for: the given one, a new one where others can come, or none.

    Raises:
        UsageError: It is too short.
    """
    if token is None:
        return None if loopback else secrets.token_urlsafe(32)
    if len(token) < SHORTEST:
        raise UsageError(
            f"--token: expected at least {SHORTEST} characters, got {len(token)}; where none is given and others can "
            "come, one is made"
        )
    return token


def serve(
    place: str | Path,
    host: str = HOST,
    port: int = PORT,
    token: str | None = None,
    announce: Callable[[Address, str | None], None] | None = None,
) -> int:
    """Show a run, or the runs in a folder, to browsers until SIGINT or SIGTERM comes.

    Args:
        place: The run directory or the folder, which may still be written.
        host: A name or address of this machine; on any but a loopback address a token is asked for.
        port: 0: any that is free.
        token: What browsers have to know. Default: none on a loopback address, else a new one.
        announce: Told where it listens and the token, as soon as it does.

    Returns:
        The number of the signal.

    Raises:
        MissingExtraError: starlette, uvicorn or plotly is not installed.
        UsageError: Nobody can listen there, or the token is too short.
    """
    # What is missing is said before anything is begun.
    plotly_js(*NEEDS)
    address = listen(host, port)
    try:
        known = chosen(token, loopback=address.loopback)
        server = made(Path(place), address, known)
        if announce is not None:
            announce(address, known)
        return _until_signal(server, address)
    finally:
        address.listener.close()


def made(place: Path, address: Address, token: str | None) -> "Stopped":
    """The server, not yet begun.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
    """
    try:
        import uvicorn

        from pbt.dashboard.app import dashboard
        from pbt.dashboard.limits import Bounded, Stopped
        from pbt.dashboard.security import Guard, Hosts
    except ImportError as error:
        raise MissingExtraError(*NEEDS) from error
    from pbt.dashboard.cache import ResponseCache
    from pbt.dashboard.watch import Watch

    app = dashboard(ResponseCache(Watch(place)), lambda: plotly_js(*NEEDS))
    hosts = Hosts(names=address.names, any_address=address.wildcard)
    config = uvicorn.Config(
        Guard(app, hosts, token, address.port),
        http=Bounded,
        ws="none",
        lifespan="off",
        loop="asyncio",
        # Requests are not logged, which would log the token; what goes wrong is told by the guard.
        access_log=False,
        log_config=None,
        log_level="critical",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    return Stopped(config)


def _until_signal(server: "Stopped", address: Address) -> int:
    """Serve, and answer which signal ended it."""
    try:
        asyncio.run(server.serve([address.listener]))
    except KeyboardInterrupt:
        # It has ended in good order, and then gives the signal to whoever handled it before.
        if server.signal is None:
            raise
    return server.signal or 0
