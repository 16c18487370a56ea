"""Strangers are turned away, whatever they ask for: each law here fails without the guard's line for it."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.client import BadStatusLine
from pathlib import Path
from typing import Any

import pytest

from pbt.dashboard import limits as bounds
from pbt.dashboard.security import HEADERS, Guard, Hosts
from tests.dashboard.climbs import Client, Written, served

TOKEN = "correct-horse-battery"
PATHS = ("/", "/run/0123456789abcdef", "/api/runs", "/api/run/0123456789abcdef", "/plotly.js", "/nowhere")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run."""
    folder = tmp_path_factory.mktemp("guarded")
    written = Written(folder / "one")
    written.round()
    written.store.close()
    return folder


@pytest.fixture(scope="module")
def open_(place: Path) -> Iterator[Client]:
    """A server for this machine alone."""
    with served(place) as client:
        yield client


@pytest.fixture(scope="module")
def locked(place: Path) -> Iterator[Client]:
    """A server that asks for a token."""
    with served(place, TOKEN) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST", "[::1]:{port}", "localhost:8080"]
)
def test_own_names(open_: Client, host: str) -> None:
    """This machine's own names are answered to, whatever the port: a tunnel has another one."""
    assert open_.ask(Host=host.format(port=open_.port)).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost@evil.example", "192.0.2.1", "[", ""],
)
def test_a_name_of_somebody_else_is_refused(open_: Client, host: str) -> None:
    """A name that was made to point here (DNS rebinding) gets nothing, whatever is asked for."""
    for path in PATHS:
        for method in ("GET", "HEAD", "POST"):
            answer = open_.ask(path, method, Host=host.format(port=open_.port))
            assert answer.status in ({400, 403} if not host else {403})
            assert b"one" not in answer.body  # type: ignore[attr-defined]


def test_two_names_are_refused(open_: Client) -> None:
    """A request with two hosts, of which one is ours, is none of ours, also where the server below would pass it."""
    with socket.create_connection(("127.0.0.1", open_.port), 30) as connection:
        connection.sendall(b"GET /api/runs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert re.match(rb"HTTP/1.1 40[03] ", connection.recv(4096))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("passed")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "query_string": b"", "headers": headers}
    asyncio.run(Guard(app, Hosts(names=frozenset({"localhost"})), None, 1)(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 403


def test_another_sites_page_is_refused(open_: Client) -> None:
    """A request that a foreign page sends is refused on every method; our own page's is answered."""
    own = f"http://127.0.0.1:{open_.port}"
    assert open_.ask("/api/runs", Origin=own).status == 200
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{open_.port}", "http://127.0.0.1:1"):
        for method in ("GET", "HEAD", "OPTIONS", "POST"):
            assert open_.ask("/api/runs", method, Origin=origin).status == 403, (origin, method)


def test_what_another_site_embeds_is_refused(open_: Client) -> None:
    """What a foreign page embeds sends no origin, but says that it is foreign; a link may be followed."""
    for site in ("cross-site", "same-site"):
        for mode, dest in (("no-cors", "script"), ("no-cors", "image"), ("navigate", "iframe"), ("cors", "empty")):
            asked = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": dest}
            assert open_.ask("/api/runs", **asked).status == 403, asked
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert open_.ask("/", **followed).status == 200
    assert open_.ask("/api/runs", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
def test_it_only_reads(open_: Client, method: str) -> None:
    """Every method but GET and HEAD is refused on every address."""
    for path in PATHS:
        answer = open_.ask(path, method)
        assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD")
        assert b"GET or HEAD" in answer.body  # type: ignore[attr-defined]


def test_head_is_get_without_a_body(open_: Client) -> None:
    """HEAD says what GET would."""
    for path in ("/", "/api/runs", "/look.js"):
        head, get = open_.ask(path, "HEAD"), open_.ask(path)
        assert head.status == get.status == 200
        assert head.getheader("ETag") == get.getheader("ETag")
        assert head.body == b""  # type: ignore[attr-defined]


def test_every_answer_has_the_headers(open_: Client) -> None:
    """Also what is refused or not there forbids foreign scripts, frames and guesses of types."""
    policy = HEADERS["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe-eval" not in policy
    answers = [open_.ask(path) for path in PATHS] + [open_.ask(Host="evil.example"), open_.ask("/", "POST")]
    assert {answer.status for answer in answers} == {200, 403, 404, 405}
    for answer in answers:
        assert {name: answer.getheader(name) for name in HEADERS} == HEADERS
        assert answer.getheader("Server") is None
        assert answer.getheader("Access-Control-Allow-Origin") is None


class TestToken:
    def test_nothing_without_it(self, locked: Client) -> None:
        """No address says anything to whoever does not know the token, or knows a part of it."""
        for path in PATHS:
            for more in ("", "?token=", "?token=wrong", f"?token={TOKEN[:-1]}", f"?token={TOKEN}x", f"?tokens={TOKEN}"):
                answer = locked.ask(path + more)
                assert answer.status == 401
                assert TOKEN.encode() not in answer.body  # type: ignore[attr-defined]
        for given in ("Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN):
            assert locked.ask(Authorization=given).status == 401
        for cookie in (
            f"pbt-dashboard-{locked.port}=wrong",
            f"pbt-dashboard-{locked.port}={TOKEN}",
            f"x={TOKEN}",
            "=;;",
        ):
            assert locked.ask(Cookie=cookie).status == 401

    def test_the_first_visit_brings_a_cookie(self, locked: Client) -> None:
        """The address that was printed leads to one without the token, by a cookie that scripts cannot read."""
        answer = locked.ask(f"/run/abc?x=1&token={TOKEN}")
        assert (answer.status, answer.getheader("Location")) == (303, "/run/abc?x=1")
        cookie = answer.getheader("Set-Cookie") or ""
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert TOKEN not in cookie
        assert locked.ask("/api/runs", Cookie=cookie.partition(";")[0]).status == 200

    def test_it_leads_nowhere_else(self, locked: Client) -> None:
        """A path that looks like another server's name stays a path of this one."""
        for path in ("//evil.example/", "/\\evil.example/", "///evil.example"):
            assert locked.ask(f"{path}?token={TOKEN}").getheader("Location", "").startswith("/evil.example")

    def test_a_program_names_it_in_a_header(self, locked: Client) -> None:
        """`Authorization: Bearer` is enough for every request."""
        assert locked.ask("/api/runs", Authorization=f"Bearer {TOKEN}").status == 200

    def test_it_opens_nothing_else(self, locked: Client) -> None:
        """Whoever has the token still comes by the right name, from the right page, to read."""
        known = {"Authorization": f"Bearer {TOKEN}"}
        assert locked.ask(Host="evil.example", **known).status == 403
        assert locked.ask(Origin="http://evil.example", **known).status == 403
        assert locked.ask("/", "POST", **known).status == 405

    def test_servers_have_cookies_of_their_own(self, locked: Client, place: Path) -> None:
        """What one server gave says nothing to another one with another token."""
        cookie = (locked.ask(f"/?token={TOKEN}").getheader("Set-Cookie") or "").partition(";")[0]
        value = cookie.partition("=")[2]
        with served(place, "another-token-entirely") as other:
            assert other.ask(Cookie=f"pbt-dashboard-{other.port}={value}").status == 401


def test_the_comparison_takes_equally_long(monkeypatch: pytest.MonkeyPatch, locked: Client) -> None:
    """Tokens and cookies are compared by the standard library's constant-time function."""
    seen: list[bytes] = []
    from pbt.dashboard import security as guard

    def digest(a: bytes, b: bytes) -> bool:
        seen.append(a)
        return a == b

    monkeypatch.setattr(guard.hmac, "compare_digest", digest)
    locked.ask("/?token=one", Authorization="Bearer two", Cookie=f"pbt-dashboard-{locked.port}=three")
    assert seen == [b"two", b"three", b"one"]


def test_names_of_a_server_for_everybody() -> None:
    """On all addresses any number will do, since no name was looked up; of names only those that it was given."""
    hosts = Hosts(names=frozenset({"box"}), any_address=True)
    assert all(map(hosts.allow, ("192.0.2.1", "192.0.2.1:80", "[2001:db8::1]:80", "BOX:6007")))
    assert not any(map(hosts.allow, ("evil.example", "192.0.2.1.evil.example", "box.evil.example", "", "[box]")))
    assert not Hosts(names=frozenset({"box"})).allow("192.0.2.1")


def unread(port: int, sent: bytes) -> socket.socket:
    """A connection that sends and never reads, with the smallest buffer for what comes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    connection.connect(("127.0.0.1", port))
    connection.sendall(sent)
    return connection


def refused(connection: socket.socket) -> bool:
    """Whether the other side ends a connection, wait for it."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def answered(client: Client) -> bool:
    """Whether a request is answered within half a minute, tried again while it is refused."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return client.ask().status == 200
        except (ConnectionError, BadStatusLine):
            time.sleep(0.02)
    return False


class TestBounds:
    def test_too_many_connections_are_closed(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Above the bound a connection is closed at once; those before it are answered, and room comes back."""
        monkeypatch.setattr(bounds, "MOST", 4)
        with served(place) as client:
            held = [socket.create_connection(("127.0.0.1", client.port), 10) for _ in range(4)]
            time.sleep(0.3)
            with pytest.raises((ConnectionError, BadStatusLine)):
                client.ask()
            held[0].sendall(f"GET / HTTP/1.1\r\nHost: localhost:{client.port}\r\n\r\n".encode())
            assert held[0].recv(100).startswith(b"HTTP/1.1 200")
            for connection in held:
                connection.close()
            time.sleep(0.3)
            assert client.ask().status == 200

    @pytest.mark.parametrize(
        "sent", [b"", b"GET / HTTP/1.1\r\nHost: local", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"]
    )
    def test_a_request_that_does_not_come_is_not_waited_for(
        self, place: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
    ) -> None:
        """Silence, half a request, and half a second one end the connection."""
        monkeypatch.setattr(bounds, "PATIENCE", 0.5)
        with served(place) as client, socket.create_connection(("127.0.0.1", client.port), 60) as connection:
            connection.sendall(sent)
            found = b""
            while chunk := connection.recv(65536):
                found += chunk
            assert found.startswith(b"HTTP/1.1 200") == (b"\r\n\r\n" in sent)

    def test_readers_that_do_not_read_shut_nobody_out(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Answers larger than all buffers that are not read end their connections, and others are answered."""
        monkeypatch.setattr(bounds, "MOST", 3)
        monkeypatch.setattr(bounds, "PATIENCE", 0.3)
        with served(place) as client:
            ask = f"GET /plotly.js HTTP/1.1\r\nHost: localhost:{client.port}\r\n\r\n".encode()
            held = [unread(client.port, ask * 20) for _ in range(3)]
            assert answered(client)
            for connection in held:
                connection.close()

    def test_one_machine_does_not_take_all_connections(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beyond its share it is refused, and another one is answered; this machine's users share an address."""
        assert bounds.is_shared("127.0.0.1")
        assert bounds.is_shared("::1")
        assert not bounds.is_shared("192.0.2.1")
        monkeypatch.setattr(bounds, "EACH", 2)
        monkeypatch.setattr(bounds, "is_shared", lambda _: False)
        with served(place) as client:
            source = ("127.0.0.2", 0)
            held = [socket.create_connection(("127.0.0.1", client.port), 10, source) for _ in range(3)]
            assert refused(held[2])
            assert client.ask().status == 200
            for connection in held:
                connection.close()

    def test_slow_answers_are_not_cut(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The bound is for requests: an answer may take longer to be made."""
        from pbt.dashboard.cache import ResponseCache

        monkeypatch.setattr(bounds, "PATIENCE", 0.2)
        real = ResponseCache.runs

        async def slow(self: ResponseCache) -> object:
            await asyncio.sleep(0.8)
            return await real(self)

        monkeypatch.setattr(ResponseCache, "runs", slow)
        with served(place) as client:
            assert client.ask("/api/runs").status == 200


def test_what_goes_wrong_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is an answer of 500 and one line in the log, and the server goes on."""
    from pbt.dashboard.cache import ResponseCache

    async def broken(self: ResponseCache) -> object:
        raise ZeroDivisionError("of all things")

    with served(place) as client:
        with monkeypatch.context() as patch:
            patch.setattr(ResponseCache, "runs", broken)
            answer = client.ask("/api/runs")
        assert answer.status == 500
        assert b"Traceback" not in answer.body  # type: ignore[attr-defined]
        assert client.ask("/api/runs").status == 200
    assert [record.getMessage() for record in caplog.records if record.name == "pbt"] == [
        "the dashboard could not answer /api/runs: ZeroDivisionError: of all things"
    ]
    assert threading.active_count() < 50
