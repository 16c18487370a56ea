"""`pbt dashboard`, as people call it, and what docs/dashboard.md promises."""

import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import pbt
from pbt.cli.app import main
from pbt.cli.dashboard import TOKEN as VARIABLE
from pbt.dashboard import PORT
from pbt.dashboard import cache as desk
from pbt.dashboard import limits as bounds
from pbt.dashboard.security import METHODS
from pbt.dashboard.serve import SHORTEST, chosen, listen
from pbt.errors import MissingExtraError, UsageError
from pbt.runs.run_notes import Note, read_note
from tests.dashboard.climbs import CLIMB, Client, Written
from tests.helpers.command import python
from tests.helpers.paths import DOCS, SOURCE

PAGE = (DOCS / "dashboard.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one run in `runs`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    pbt.run(**CLIMB, run_dir=tmp_path / "runs" / "one")
    (tmp_path / "runs" / "latest").symlink_to("one", target_is_directory=True)
    return tmp_path


class Started:
    """The command in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stdout is not None
        self.url = urlsplit(process.stdout.readline().strip())
        assert self.url.port, process.communicate(timeout=10)
        self.client = Client(self.url.port)

    def stop(self, number: int) -> tuple[int, str, str]:
        """Its exit code, and what else it said."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@contextmanager
def started(folder: Path, *words: str, **environment: str) -> Iterator[Started]:
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pbt.cli.app import main; sys.exit(main())", "dashboard", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Started(process)
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(folder: Path, number: int) -> None:
    """Ctrl-C and SIGTERM end it at once, also with connections open, with the code that says so and no traceback."""
    with started(folder, "runs", "--port", "0") as one:
        assert one.client.ask("/api/runs").status == 200
        with socket.create_connection(("127.0.0.1", one.client.port), 10):
            code, out, err = one.stop(number)
    assert code == 128 + number
    assert (out, err) == ("", "pbt: press Ctrl-C to stop\n")


def test_an_orderly_end_does_not_wait_for_a_page(folder: Path) -> None:
    """A page that is being made does not keep the process alive."""
    code = (
        "import sys, time; from pathlib import Path; from pbt.dashboard import cache; from pbt.cli.app import main;"
        "cache.ResponseCache.__init__.__defaults__ = (lambda path, version: time.sleep(3600),);"
        "sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "dashboard", "runs", "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        one = Started(process)
        (run,) = json.loads(one.client.ask("/api/runs").body)["runs"]  # type: ignore[attr-defined]
        with socket.create_connection(("127.0.0.1", one.client.port), 10) as waiting:
            waiting.sendall(f"GET /api/run/{run['key']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            time.sleep(0.5)
            code, _, err = one.stop(signal.SIGTERM)
        assert (code, err) == (143, "pbt: press Ctrl-C to stop\n")
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_on_every_address_it_asks_for_a_token(folder: Path) -> None:
    """With another host than this machine a new token is printed once, in an address that works when it is pasted."""
    with (
        started(folder, "runs", "--port", "0", "--host", "0.0.0.0") as one,
        started(folder, "runs", "--port", "0", "--host", "0.0.0.0") as other,
    ):
        (token,) = parse_qs(one.url.query)["token"]
        assert one.url.hostname == socket.gethostname().lower()
        assert len(token) >= 40
        assert token not in other.url.query
        assert one.client.ask("/api/runs").status == 401
        assert one.client.ask("/api/runs", Host="evil.example", Authorization=f"Bearer {token}").status == 403
        assert one.client.ask("/api/runs", Host="192.0.2.1", Authorization=f"Bearer {token}").status == 200
        answer = one.client.ask(f"/?{one.url.query}", Host=one.url.netloc)
        assert answer.status == 303
        cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        assert one.client.ask("/api/runs", Host=one.url.netloc, Cookie=cookie).status == 200
        _, out, err = one.stop(signal.SIGINT)
        assert token not in out + err


def test_a_token_of_ones_own(folder: Path) -> None:
    """One that is given is asked for on this machine too, and is not printed; the variable does the same."""
    given = "correct horse battery"
    for words, environment in ((("--token", given), {}), ((), {VARIABLE: given})):
        with started(folder, "runs", "--port", "0", *words, **environment) as one:
            assert one.url.query == ""
            assert one.client.ask("/api/runs").status == 401
            assert one.client.ask("/api/runs", Authorization=f"Bearer {given}").status == 200
            assert given not in "".join(one.stop(signal.SIGINT)[1:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "expected a run directory, found nothing"),
        (["file"], "found a file"),
        (["empty"], "expected a run directory or a folder of runs, found a folder without runs"),
        (["old"], "older format 0"),
        (["runs", "--port", "{taken}"], "{taken} is in use on 127.0.0.1; choose another port, or --port 0"),
        (["runs", "--port", "70000"], "expected 0 to 65535, got 70000"),
        (["runs", "--port", "-1"], "expected 0 to 65535, got -1"),
        (["runs", "--host", "no.such.host.invalid"], "got 'no.such.host.invalid', which is unknown"),
        (["runs", "--host", "a" * 70], "which is unknown"),
        (["runs", "--host", "192.0.2.1", "--port", "0"], "got '192.0.2.1', which belongs to another machine"),
        (["runs", "--port", "0", "--token", "short"], "expected at least 16 characters, got 5"),
        (["runs", "--porth", "0"], "--porth"),
    ],
)
def test_wrong_input_is_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """What cannot be done exits with 2 and says why on stderr, without a traceback."""
    (folder / "file").write_text("")
    (folder / "empty").mkdir()
    Written(folder / "old").store.close()
    with sqlite3.connect(folder / "old" / "run.db") as connection:
        connection.execute("PRAGMA user_version = 0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["dashboard", *(word.format(taken=port) for word in words)]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert message.format(taken=port) in seen.err
    assert "Traceback" not in seen.err


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "at least 16 characters, got 0"),
        ("short", "at least 16 characters, got 5"),
        ("ü" * 20, "ASCII letters"),
        ("\udcff" * 20, "ASCII letters"),
        ("correct horse battery ", "without spaces at its ends"),
    ],
)
def test_a_wrong_token_in_the_environment_is_one_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str, message: str
) -> None:
    """It names the variable, and no server starts."""
    monkeypatch.setenv(VARIABLE, token)
    assert main(["dashboard", "runs", "--port", "0"]) == 2
    seen = capsys.readouterr()
    assert (seen.out, len(seen.err.splitlines())) == ("", 1)
    assert VARIABLE in seen.err
    assert message in seen.err


def test_missing_packages_are_named(folder: Path) -> None:
    """Without uvicorn, starlette or plotly one line says what to install, and help still works."""
    for module in ("uvicorn", "starlette", "plotly"):
        code = (
            f"import sys; sys.modules[{module!r}] = None; from pbt.cli.app import main;"
            "assert main(['dashboard', '--help']) == 0; sys.exit(main(['dashboard', 'runs', '--port', '0']))"
        )
        done = python(code, folder)
        assert done.returncode == 2
        assert "the extra 'dashboard'" in done.stderr
        assert "Traceback" not in done.stderr
    assert issubclass(MissingExtraError, UsageError)


def test_looking_loads_nothing_heavy(folder: Path) -> None:
    """Serving needs neither torch nor matplotlib, and the command line alone loads no server."""
    code = (
        "import sys; import pbt.cli.app; assert not {'uvicorn', 'starlette', 'plotly', 'asyncio'} & set(sys.modules);"
        "from pathlib import Path; from pbt.dashboard.serve import listen, made;"
        "from pbt.dashboard.payload import run_page;"
        "made(Path('runs'), listen(port=0), None); assert b'figures' in run_page(Path('runs/one'), '').body();"
        "print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_addresses() -> None:
    """Loopback addresses of both kinds need no token; the names are those that lead there."""
    for host, loopback in (("127.0.0.1", True), ("127.0.0.2", True), ("localhost", True), ("0.0.0.0", False)):
        address = listen(host, 0)
        address.listener.close()
        assert address.loopback == loopback
        assert "localhost" in address.names
        assert (chosen(None, loopback=address.loopback) is None) == loopback
    with pytest.raises(UsageError, match="at least 16"):
        chosen("x" * (SHORTEST - 1), loopback=True)
    assert chosen("x" * SHORTEST, loopback=True) == "x" * SHORTEST


def blocks(language: str) -> list[str]:
    """The fenced blocks of the page in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


class TestPage:
    def test_its_notes_are_written(self, folder: Path) -> None:
        """The commands of the page write a note and a tag of the newest run, and remove the tag."""
        (block,) = blocks("shell")
        kept = []
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            assert main(words[1:]) == 0
            kept.append(read_note(folder / words[2]))
        assert kept == [Note(text="diverges above 0.1", tags=("baseline",)), Note(text="diverges above 0.1")]

    def test_its_commands_show_runs(self, folder: Path) -> None:
        """Every command of the page listens where it says, and shows the runs that it says."""
        (block,) = blocks("")
        commands = [shlex.split(line, comments=True) for line in block.splitlines()]
        shown = [command[1:] for command in commands if command[0] == "pbt"]
        assert [words[0] for words in shown] == ["dashboard"] * 3
        for words in shown:
            # Any port, since those of the page may be taken on this machine.
            rest = words[1:] if "--port" not in words else words[1 : words.index("--port")]
            with started(folder, *rest, "--port", "0") as one:
                token = parse_qs(one.url.query).get("token", [""])[0]
                known = {"Authorization": f"Bearer {token}"} if token else {}
                found = json.loads(one.client.ask("/api/runs", **known).body)  # type: ignore[attr-defined]
                assert [run["name"] for run in found["runs"]] == ["one"]
                assert found["single"] == ("runs/latest" in words)
                assert bool(token) == ("--host" in words)

    def test_its_python(self, folder: Path) -> None:
        """The Python of the page serves until a signal comes."""
        (block,) = blocks("python")
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", block],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            one = Started(process)
            assert one.client.ask("/api/runs").status == 200
            code, _, err = one.stop(signal.SIGINT)
            assert (code, err) == (0, "")
        finally:
            process.kill()
            process.communicate(timeout=30)

    def test_its_numbers(self) -> None:
        """What the page says in numbers is what the code does."""
        assert f"than {PORT}" in PAGE
        assert f"at least {SHORTEST} characters" in PAGE
        assert f"at most {bounds.MOST} connections, each with {bounds.PATIENCE:.0f} seconds" in PAGE
        assert f"{bounds.PATIENCE:.0f} seconds to read {bounds.LEAST >> 10} KiB" in PAGE
        assert f"at most {bounds.EACH} of them from one other machine" in PAGE
        assert f"{100 * desk.SHARE:g} % of the machine's CPU time" in PAGE
        assert f"only {' and '.join(METHODS)} are answered" in PAGE
        assert VARIABLE in PAGE
        main_js = (SOURCE / "pbt" / "dashboard" / "page" / "main.js").read_text()
        assert "asks every two seconds" in PAGE
        assert "PACE = 2000;" in main_js


def test_status_of_a_folder_lists_what_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pbt status FOLDER --json` says of one unreadable run why, and everything of the others."""
    Written(folder / "runs" / "old").store.close()
    with sqlite3.connect(folder / "runs" / "old" / "run.db") as connection:
        connection.execute("PRAGMA user_version = 0")
    assert main(["status", "runs", "--json"]) == 0
    seen = capsys.readouterr()
    old, one = sorted(json.loads(seen.out), key=lambda item: item["run"] != "runs/old")
    assert old == {"run": "runs/old", "state": "unreadable", "error": old["error"]}
    assert "older format 0" in old["error"]
    assert one["state"] == "finished"
    assert "older format 0" in seen.err
