"""Access control: only read requests, addressed to this server, with the token, are answered.

A foreign page open in the same browser can send requests to this machine, and a foreign name can resolve to it (DNS
rebinding). So the name in `Host` must be one of this server's, a request caused by another site's page is refused, and
so is every method but GET and HEAD.
"""

import hashlib
import hmac
import ipaddress
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("pbt")

METHODS = ("GET", "HEAD")
TOKEN = "token"  # noqa: S105 (the name of it)
HEADERS: Mapping[str, str] = {
    # Inline styles, because plotly.js writes a style sheet into the page and accepts no nonce for it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The names of this server that a `Host` header may contain, with any port, since a tunnel may change it."""

    names: frozenset[str]
    """Names and addresses in lower case."""
    any_address: bool = False
    """Allow every IP address: without a name, DNS rebinding is impossible."""

    def allow(self, host: str) -> bool:
        """Whether the value of a `Host` header names this server."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = (match["six"] or match["name"]).lower()
        return name in self.names or (self.any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware that refuses requests without permission and adds the security headers.

    Args:
        app: The application.
        hosts: The allowed names of the server.
        token: The token that requests must carry; None for no token.
        port: Distinguishes the cookies of several servers on one machine.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, token: str | None, port: int) -> None:
        self._app = app
        self._hosts = hosts
        self._token = token
        self._cookie = f"pbt-dashboard-{port}"
        # Not the token itself, which may be in use elsewhere: browsers send cookies to all servers on this machine.
        self._proof = hmac.new((token or "").encode(), self._cookie.encode(), hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it to the application."""
        if scope["type"] != "http":  # websockets and lifespan are switched off
            return
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await (self._refusal(scope) or self._app)(scope, receive, guarded)
        except Exception as error:  # noqa: BLE001 (one line instead of a traceback)
            logger.warning("the dashboard could not answer %s: %s: %s", scope["path"], type(error).__name__, error)
            if not begun:
                message = "the dashboard failed; its log has the error"
                await _refused(HTTPStatus.INTERNAL_SERVER_ERROR, message)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._hosts.allow(hosts[0]):
            return _refused(HTTPStatus.FORBIDDEN, "the host name in the request is not this server's; set --host")
        if _is_foreign(headers, f"{scope['scheme']}://{hosts[0]}"):
            return _refused(HTTPStatus.FORBIDDEN, "requests from pages of other sites are refused")
        if scope["method"] not in METHODS:
            allowed = {"Allow": ", ".join(METHODS)}
            return _refused(HTTPStatus.METHOD_NOT_ALLOWED, f"expected {' or '.join(METHODS)}", allowed)
        if self._token is None:
            return None
        return self._unauthorized(scope, headers, self._token)

    def _unauthorized(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        """The response to a request without the token, or with it in the URL; None if the request is authorized."""
        bearer = headers.get("authorization", "").partition(" ")
        if bearer[0].lower() == "bearer" and _same(bearer[2], token):
            return None
        if _same(_cookies(headers).get(self._cookie, ""), self._proof):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(name == TOKEN and _same(value, token) for name, value in query):
            rest = urlencode([(name, value) for name, value in query if name != TOKEN])
            # A path that begins with two slashes would redirect to another server.
            path = "/" + scope["path"].lstrip("/\\")
            answer = RedirectResponse(
                path + (f"?{rest}" if rest else ""), HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"}
            )
            answer.set_cookie(self._cookie, self._proof, path="/", httponly=True, samesite="lax")
            return answer
        return _refused(
            HTTPStatus.UNAUTHORIZED,
            "this dashboard requires a token: open the address printed by `pbt dashboard`, or add ?token=... to this "
            "one",
            {"WWW-Authenticate": "Bearer"},
        )


def _is_foreign(headers: Headers, own: str) -> bool:
    """Whether a page of another site caused this request, other than by a link that the user followed."""
    if any(origin != own for origin in headers.getlist("origin")):
        return True
    followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return headers.get("sec-fetch-site") in {"cross-site", "same-site"} and not followed


def _cookies(headers: Headers) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _same(given: str, known: str) -> bool:
    """Compare in constant time, which reveals nothing about a partial match."""
    return hmac.compare_digest(given.encode(), known.encode())


def _refused(status: HTTPStatus, why: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(
        f"{status.value} {status.phrase}: {why}\n", status, {"Cache-Control": "no-store", **(headers or {})}
    )
