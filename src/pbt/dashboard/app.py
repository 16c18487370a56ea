"""The addresses: one page for everything, what it is made of, the list of runs, and each run."""

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
from pbt.report.page import look

HTML, CSS, JS, SVG, JSON = "text/html", "text/css", "text/javascript", "image/svg+xml", "application/json"
SCRIPTS = ("main.js", "parts.js", "figures.js", "run.js", "runs.js")
ALWAYS_ASK = "private, no-cache"
"""It may be kept, but must be asked for every time: an update of the package changes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """Something that does not change while the server runs."""

    body: bytes
    type: str
    encoding: str = ""

    @property
    def tag(self) -> str:
        """Names these bytes."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


def dashboard(desk: ResponseCache, library: Callable[[], str]) -> ASGIApp:
    """The application.

    Args:
        desk: Where everything that changes comes from.
        library: plotly.js.
    """
    page = File(body=_own("page.html"), type=HTML)
    files: Mapping[str, File] = {
        "/look.js": File(body=look("look.js").encode(), type=JS),
        "/page.css": File(body=look("page.css").encode() + _own("dashboard.css"), type=CSS),
        "/icon.svg": File(body=_own("icon.svg"), type=SVG),
        **{f"/{name}": File(body=_own(name), type=JS) for name in SCRIPTS},
    }

    @cache
    def packed() -> File:
        """A third of its size, packed once: the way here may be a slow one."""
        return File(body=gzip.compress(library().encode(), 6, mtime=0), type=JS, encoding="gzip")

    async def plotly(request: Request) -> Response:
        found, _ = await in_thread(packed)
        return _sent(request, found)

    async def runs(request: Request) -> Response:
        return _answered(request, await desk.runs())

    async def run(request: Request) -> Response:
        found = await desk.run(request.path_params["key"])
        return _answered(request, found) if found is not None else await nothing(request)

    async def nothing(_: Request) -> Response:
        return PlainTextResponse("404 Not Found: there is nothing of this name\n", 404)

    async def fixed(file: File, request: Request) -> Response:
        return _sent(request, file)

    return Router(
        [
            Route("/", partial(fixed, page)),
            Route("/run/{key}", partial(fixed, page)),
            *(Route(path, partial(fixed, file)) for path, file in files.items()),
            Route("/plotly.js", plotly),
            Route("/api/runs", runs),
            Route("/api/run/{key}", run),
            Route("/{path:path}", nothing),
        ],
        redirect_slashes=False,
    )


def _own(name: str) -> bytes:
    return (resources.files(__package__) / "page" / name).read_bytes()


def _sent(request: Request, file: File) -> Response:
    headers = {"Cache-Control": ALWAYS_ASK, "ETag": file.tag}
    if file.encoding:
        headers["Content-Encoding"] = file.encoding
    return _unless_known(request, file.body, file.type, headers)


def _answered(request: Request, answer: Answer) -> Response:
    # What a run holds is not left on the disk of whoever looks at it.
    return _unless_known(request, answer.body, JSON, {"Cache-Control": "no-store", "ETag": answer.tag})


def _unless_known(request: Request, body: bytes, type_: str, headers: Mapping[str, str]) -> Response:
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=type_, headers=headers)
