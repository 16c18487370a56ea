"""The routes: the page, its static files, the list of runs, and each run as JSON."""

import gzip
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from pbt.dashboard.cache import Answer, ResponseCache, in_thread
from pbt.report.page import SHARED, look

HTML, CSS, JS, SVG, JSON = "text/html", "text/css", "text/javascript", "image/svg+xml", "application/json"
SCRIPTS = ("main.js", "run.js", "runs.js", "overview.js", "overlay.js")
ALWAYS_ASK = "private, no-cache"
"""Browsers may cache the file but must revalidate it: an update of the package changes it."""


KNOWN = "known"
"""The query with the tags of the figures that the browser has, separated by points."""
LEVEL = 5
"""The level of compression: a sixth of the size in a few hundredths of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A static file."""

    body: bytes
    type: str
    encoding: str = ""

    @property
    def tag(self) -> str:
        """The entity tag: a hash of the body."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


def dashboard(responses: ResponseCache, library: Callable[[], str]) -> ASGIApp:
    """The ASGI application.

    Args:
        responses: The list of runs and their pages.
        library: Returns the source of plotly.js.
    """
    page = File(body=_own("page.html"), type=HTML)
    files: Mapping[str, File] = {
        **{f"/{name}": File(body=look(name).encode(), type=JS) for name in SHARED},
        "/page.css": File(body=look("page.css").encode() + _own("dashboard.css"), type=CSS),
        "/icon.svg": File(body=_own("icon.svg"), type=SVG),
        **{f"/{name}": File(body=_own(name), type=JS) for name in SCRIPTS},
    }

    @cache
    def packed() -> File:
        """plotly.js, compressed once to a third of its size for slow connections."""
        return File(body=gzip.compress(library().encode(), 6, mtime=0), type=JS, encoding="gzip")

    async def plotly(request: Request) -> Response:
        file, _ = await in_thread(packed)
        return _static(request, file)

    async def runs(request: Request) -> Response:
        return await _dynamic(request, await responses.runs())

    async def run(request: Request) -> Response:
        answer = await responses.run(request.path_params["key"])
        return await _dynamic(request, answer) if answer is not None else await not_found(request)

    async def member(request: Request) -> Response:
        answer = await responses.member(request.path_params["key"], request.path_params["number"])
        return await _dynamic(request, answer) if answer is not None else await not_found(request)

    async def series(request: Request) -> Response:
        answer = await responses.series(request.path_params["key"])
        return await _dynamic(request, answer) if answer is not None else await not_found(request)

    async def not_found(_: Request) -> Response:
        return PlainTextResponse("404 Not Found: unknown path\n", 404)

    async def static(file: File, request: Request) -> Response:
        return _static(request, file)

    return Router(
        [
            Route("/", partial(static, page)),
            Route("/run/{key}", partial(static, page)),
            Route("/runs", partial(static, page)),
            *(Route(path, partial(static, file)) for path, file in files.items()),
            Route("/plotly.js", plotly),
            Route("/api/runs", runs),
            Route("/api/run/{key}", run),
            Route("/api/run/{key}/series", series),
            Route("/api/run/{key}/member/{number:int}", member),
            Route("/{path:path}", not_found),
        ],
        redirect_slashes=False,
    )


def _own(name: str) -> bytes:
    return (resources.files(__package__) / "page" / name).read_bytes()


def _static(request: Request, file: File) -> Response:
    headers = {"Cache-Control": ALWAYS_ASK, "ETag": file.tag}
    if file.encoding:
        headers["Content-Encoding"] = file.encoding
    return _conditional(request, file.body, file.type, headers)


async def _dynamic(request: Request, answer: Answer) -> Response:
    # Not cached, so that browsers leave no data of a run on disk.
    headers = {"Cache-Control": "no-store", "ETag": answer.tag, "Vary": "Accept-Encoding"}
    if _is_known(request, answer.tag):
        return Response(status_code=304, headers=headers)
    packed = "gzip" in request.headers.get("accept-encoding", "")
    known = frozenset(request.query_params.get(KNOWN, "").split("."))

    def body() -> bytes:
        whole = answer.body if answer.page is None else answer.page.body(known)
        return gzip.compress(whole, LEVEL, mtime=0) if packed else whole

    if packed:
        headers["Content-Encoding"] = "gzip"
    content, _ = await in_thread(body)
    return Response(content, media_type=JSON, headers=headers)


def _conditional(request: Request, body: bytes, type_: str, headers: Mapping[str, str]) -> Response:
    if _is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=type_, headers=headers)


def _is_known(request: Request, tag: str) -> bool:
    return tag in request.headers.get("if-none-match", "")
