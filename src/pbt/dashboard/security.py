"""Who is answered: requests that were meant for this server, that only read, from whoever has the token.

A page of somebody else's that is open in the same browser can send requests to this machine, and a name of somebody
else's can be made to point to it (DNS rebinding). So the name in `Host` must be one that this server was given, a
request that another page causes is refused whatever it asks for, and nothing but GET and HEAD is answered.
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
    # Styles: plotly.js writes the style sheet of its figures into the page, and there is no nonce that it would take.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NOT_KEPT = {"Cache-Control": "no-store"}
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The names by which this server may be called; whatever the port, which a tunnel may change."""

    names: frozenset[str]
    """In lower case."""
    any_address: bool = False
    """Any number will do, since no name was looked up to come here."""

    def allow(self, host: str) -> bool:
        """Whether this is such a name, as it stands in a request."""
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
    """Stands before an application.

    Args:
        app: The application.
        hosts: The names that are answered to.
        token: What has to be known; None: nothing.
        port: Distinguishes the cookies of several servers on one machine.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, token: str | None, port: int) -> None:
        self._app = app
        self._hosts = hosts
        self._token = token
        self._cookie = f"pbt-dashboard-{port}"
        # Not the token itself, which may be used elsewhere too, and which other servers on this machine would be sent.
        self._proof = hmac.new((token or "").encode(), self._cookie.encode(), hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":  # there is nothing else, but an application may be asked
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
        except Exception as error:  # noqa: BLE001 (a line instead of a traceback)
            logger.warning("the dashboard could not answer %s: %s: %s", scope["path"], type(error).__name__, error)
            if not begun:
                await _refused(HTTPStatus.INTERNAL_SERVER_ERROR, "this went wrong here")(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._hosts.allow(hosts[0]):
            return _refused(HTTPStatus.FORBIDDEN, "this dashboard does not go by that name (see --host)")
        if _is_foreign(headers, f"{scope['scheme']}://{hosts[0]}"):
            return _refused(HTTPStatus.FORBIDDEN, "this dashboard answers its own pages only")
        if scope["method"] not in METHODS:
            allowed = {"Allow": ", ".join(METHODS)}
            return _refused(HTTPStatus.METHOD_NOT_ALLOWED, "this dashboard only shows", allowed)
        if self._token is None:
            return None
        return self._unknown(scope, headers, self._token)

    def _unknown(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        """None: whoever asks has the token."""
        bearer = headers.get("authorization", "").partition(" ")
        if bearer[0].lower() == "bearer" and _same(bearer[2], token):
            return None
        if _same(_cookies(headers).get(self._cookie, ""), self._proof):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(name == TOKEN and _same(value, token) for name, value in query):
            rest = urlencode([(name, value) for name, value in query if name != TOKEN])
            # Only a path of this server: one that began with two slashes would be another server.
            path = "/" + scope["path"].lstrip("/\\")
            answer = RedirectResponse(
                path + (f"?{rest}" if rest else ""), HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"}
            )
            answer.set_cookie(self._cookie, self._proof, path="/", httponly=True, samesite="lax")
            return answer
        return _refused(
            HTTPStatus.UNAUTHORIZED,
            "this dashboard asks for a token: open the address that `pbt dashboard` printed when it was started, "
            "or add ?token=... to this one",
            {"WWW-Authenticate": "Bearer"},
        )


def _is_foreign(headers: Headers, own: str) -> bool:
    """Whether another site's page caused this request, other than by a link that somebody followed."""
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
    """Compared in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(), known.encode())


def _refused(status: HTTPStatus, why: str, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(
        f"{status.value} {status.phrase}: {why}\n", status, {"Cache-Control": "no-store", **(headers or {})}
    )
