"""The server: its address, its token, and its shutdown."""

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

from pbt.dashboard import HOST, PORT, TOKEN
from pbt.errors import MissingExtraError, UsageError
from pbt.report.write import plotly_js

if TYPE_CHECKING:
    from pbt.dashboard.limits import SignalServer

SHORTEST = 16
"""The fewest characters of a token; a shorter one could be guessed."""
NEEDS = "pbt dashboard", "dashboard"
"""The feature and its extra, for the error about missing packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The address at which a server listens."""

    listener: socket.socket
    host: str
    """The requested host name or address."""
    bound: str
    """The IP address."""
    port: int
    loopback: bool
    """Whether only the local machine can connect."""
    wildcard: bool
    """Whether the server listens on every address of the machine."""

    @property
    def names(self) -> frozenset[str]:
        """Host names under which requests may arrive, in lower case."""
        names = {self.host.lower(), self.bound}
        if self.loopback:
            names |= {"localhost", "127.0.0.1", "::1"}
        if self.wildcard:
            names |= {"localhost", socket.gethostname().lower()}
        return frozenset(names)

    def url(self, token: str | None = None) -> str:
        """The URL to open in a browser."""
        host = socket.gethostname() if self.wildcard else self.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/" + (f"?token={quote(token, safe='')}" if token else "")


def listen(host: str = HOST, port: int = PORT) -> Address:
    """Start to listen.

    Args:
        host: A name or address of this machine.
        port: The port; 0 for any free one.

    Raises:
        UsageError: The host is unknown or belongs to another machine, or the port is out of range or in use.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port: expected 0 to 65535, got {port}")
    try:
        # The first address suffices: the URL contains the requested name.
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(
            f"--host: expected a name or address of this machine, got '{host}', which is unknown"
        ) from error
    try:
        listener = socket.create_server((str(address[0]), port), family=family)
    except OSError as error:
        raise UsageError(_refused(error, host, port)) from error
    bound = ipaddress.ip_address(str(listener.getsockname()[0]).partition("%")[0])
    return Address(
        listener=listener,
        host=host,
        bound=str(bound),
        port=listener.getsockname()[1],
        loopback=bound.is_loopback,
        wildcard=bound.is_unspecified,
    )


def _refused(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port: {port} is in use on {host}; choose another port, or --port 0 for any free one"
    if error.errno == errno.EACCES:
        return f"--port: no permission to listen on {port}; choose a port of at least 1024"
    if error.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
        return f"--host: expected a name or address of this machine, got '{host}', which belongs to another machine"
    return f"--host, --port: cannot listen on {host}:{port} ({error.strerror or error})"


def chosen(token: str | None, *, loopback: bool) -> str | None:
    """The required token: the given one, else none on a loopback address and a new random one elsewhere.

    Raises:
        UsageError: The token is shorter than `SHORTEST`, or has characters that a request cannot carry.
    """
    if token is None:
        return None if loopback else secrets.token_urlsafe(32)
    if not all(" " <= char <= "~" for char in token) or token != token.strip():
        raise UsageError(
            f"--token (or {TOKEN}): expected ASCII letters, digits and punctuation, without spaces at its ends, got "
            "other characters"
        )
    if len(token) < SHORTEST:
        raise UsageError(
            f"--token (or {TOKEN}): expected at least {SHORTEST} characters, got {len(token)}; without one, a random "
            "token is generated where other machines can connect"
        )
    return token


def serve(
    place: str | Path,
    host: str = HOST,
    port: int = PORT,
    token: str | None = None,
    announce: Callable[[Address, str | None], None] | None = None,
) -> int:
    """Serve the dashboard of a run, or of all runs in a folder, until SIGINT or SIGTERM.

    Args:
        place: The run directory or the folder; runs may still be training.
        host: A name or address of this machine; addresses other than loopback require a token.
        port: The port; 0 for any free one.
        token: The token that browsers must present. Default: none on a loopback address, else a new random one.
        announce: Called with the address and the token as soon as the server listens.

    Returns:
        The number of the signal.

    Raises:
        MissingExtraError: starlette, uvicorn or plotly is not installed.
        UsageError: The address cannot be used, or the token is too short.
    """
    # Missing packages are reported before the server starts.
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


def made(place: Path, address: Address, token: str | None) -> "SignalServer":
    """The server, not yet started.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
    """
    try:
        import uvicorn

        from pbt.dashboard.app import dashboard
        from pbt.dashboard.limits import LimitedConnection, SignalServer
        from pbt.dashboard.security import Guard, Hosts
    except ImportError as error:
        raise MissingExtraError(*NEEDS) from error
    from pbt.dashboard.cache import ResponseCache
    from pbt.dashboard.watch import Watch

    app = dashboard(ResponseCache(Watch(place)), lambda: plotly_js(*NEEDS))
    hosts = Hosts(names=address.names, any_address=address.wildcard)
    config = uvicorn.Config(
        Guard(app, hosts, token, address.port),
        http=LimitedConnection,
        ws="none",
        lifespan="off",
        loop="asyncio",
        # A log of requests would contain the token; `Guard` logs errors.
        access_log=False,
        log_config=None,
        log_level="critical",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    return SignalServer(config)


def _until_signal(server: "SignalServer", address: Address) -> int:
    """Serve; returns the signal that ended the server."""
    try:
        asyncio.run(server.serve([address.listener]))
    except KeyboardInterrupt:
        # After an orderly end, uvicorn raises the signal again for the previous handler.
        if server.signal is None:
            raise
    return server.signal or 0
