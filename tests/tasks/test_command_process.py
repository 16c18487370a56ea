"""How programs end: by themselves, by a time-out, and with whatever started them, however that ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pbt.errors import TaskError, WorkerError
from pbt.tasks.command import output, process, supervisor
from tests.tasks.programs import written

PATIENCE = 60
"""Seconds after which a process counts as one that never ends, on a machine however busy."""
TREE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for kind in ("child", "in a session of its own", "an orphan"):
    if os.fork() == 0:
        if kind != "child":
            os.setsid()
        if kind == "an orphan" and os.fork() > 0:
            os._exit(0)
        break
with open(f"{sys.argv[1]}/{os.getpid()}", "w"):
    pass
time.sleep(1000)
"""
"""Four processes that ignore SIGTERM: a program, its child, one in another session, and an orphan in a third one."""


def run(folder: Path, text: str, *words: str, timeout=None, take=lambda stream, piece: None):
    """Run a program with this text."""
    argv = [sys.executable, "-S", str(written(folder, text)), *words]
    return process.run_program(argv, env=dict(os.environ), cwd=folder, timeout=timeout, output=take)


def waited(condition, what: str):
    """The first true value of a condition."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


def pids_in(folder: Path, count: int):
    """The ids of so many processes, which write them into a folder; None until they have."""
    found = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    return found if len(found) >= count else None


def gone(pids) -> bool:
    """Whether none of the processes lives."""
    return not any(map(supervisor.start_of, pids))


def test_output_and_exit_code_arrive(tmp_path) -> None:
    """All output of both streams arrives, with the exit code, or the number of the signal."""
    text = "import os, sys\nos.write(1, b'x' * 300_000)\nos.write(2, b'y' * 70_000)\nsys.exit(7)"
    found = {0: bytearray(), 1: bytearray()}
    end = run(tmp_path, text, take=lambda stream, piece: found[stream].extend(piece))
    assert (end.code, end.late) == (7, False)
    assert found == {0: b"x" * 300_000, 1: b"y" * 70_000}
    assert run(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)").code == -signal.SIGSEGV


def test_nothing_is_left_behind(tmp_path) -> None:
    """Processes that the program leaves behind end with it, in whatever session and without any parent."""
    pids = tmp_path / "pids"
    pids.mkdir()
    text = f"""
import os, subprocess, sys, time
first = subprocess.Popen([sys.executable, "-S", "tree.py", {str(pids)!r}])
while len(os.listdir({str(pids)!r})) < 4:
    time.sleep(0.01)
"""
    written(tmp_path, TREE, "tree.py")
    assert run(tmp_path, text).code == 0
    assert len(list(pids.iterdir())) == 4
    assert gone(pids_in(pids, 4))


def test_a_program_that_never_ends(tmp_path) -> None:
    """At its time-out a program that ignores SIGTERM is killed with all its processes."""
    pids = tmp_path / "pids"
    pids.mkdir()
    end = run(tmp_path, TREE, str(pids), timeout=2)
    assert end.late
    assert gone(int(path.name) for path in pids.iterdir())


def test_an_error_while_reading_ends_the_program(tmp_path) -> None:
    """An exception in the reader of the output ends the program, too."""
    found = []

    def take(stream: int, piece: bytes) -> None:
        found.append(int(piece))
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        run(tmp_path, "import os, time\nos.write(1, b'%d' % os.getpid())\ntime.sleep(1000)", take=take)
    assert gone(found)


def test_a_program_that_cannot_start(tmp_path) -> None:
    """The reason is that of the system, for a missing program and for a folder that is none."""
    for cwd in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TaskError, match=r"'absent' cannot be started.*No such file"):
            process.run_program(["absent"], env=dict(os.environ), cwd=cwd, timeout=None, output=lambda *_: None)


@pytest.mark.parametrize("victim", ["program", "supervisor"])
def test_killed_from_outside(tmp_path, victim) -> None:
    """A program that is killed, or whose supervisor is, has no result of its own: its round is to be run again."""
    text = "import os, time\nos.write(1, b'%d %d' % (VICTIM(), os.getpid()))\ntime.sleep(1000)"
    victims = {"program": "os.getpid", "supervisor": "os.getppid"}
    found = []

    def take(stream: int, piece: bytes) -> None:
        killed, own = map(int, piece.split())
        found.append(own)
        os.kill(killed, signal.SIGKILL)

    with pytest.raises(WorkerError, match=victim):
        run(tmp_path, text.replace("VICTIM", victims[victim]), take=take)
    assert gone(found)


DRIVER = """
import os, sys
from pathlib import Path
from pbt.tasks.command.process import run_program
run_program(sys.argv[1:], env=dict(os.environ), cwd=Path("."), timeout=None, output=lambda *_: None)
"""


@pytest.mark.parametrize("with_supervisor", [False, True])
def test_the_driver_is_killed(tmp_path, with_supervisor) -> None:
    """After SIGKILL of the process that runs the program, the supervisor ends it; else the next worker does."""
    pids = tmp_path / "pids"
    pids.mkdir()
    words = [sys.executable, "-S", str(written(tmp_path, TREE, "tree.py")), str(pids)]
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words], env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )
    found = waited(lambda: pids_in(pids, 4), "the program")
    owner = int(supervisor.mark_of(found[0]).partition(":")[0])
    for pid in (driver.pid, owner) if with_supervisor else (driver.pid,):
        os.kill(pid, signal.SIGSTOP)  # neither sees the other end
    for pid in (driver.pid, owner) if with_supervisor else (driver.pid,):
        os.kill(pid, signal.SIGKILL)
    driver.wait(PATIENCE)
    if with_supervisor:
        waited(lambda: gone([owner]), "the end of the supervisor")
        assert not gone(found)
        supervisor.end_orphans()
    waited(lambda: gone(found), "the end of the program")


FORKING = """
import os, sys, time
from pathlib import Path
from pbt.tasks.command.process import run_program

def fork(stream, piece):
    if os.fork() == 0:
        Path("forked").write_text(str(os.getpid()))
        time.sleep(1000)

run_program([sys.executable, "-S", "talk.py"], env=dict(os.environ), cwd=Path("."), timeout=None, output=fork)
"""
TALK = "import os, time\nopen('own', 'w').write(str(os.getpid()))\nos.write(1, b'x')\ntime.sleep(1000)"


def test_a_process_that_keeps_the_lifeline_open(tmp_path) -> None:
    """A process forked by the killed driver holds its end of the pipe; the program ends in spite of it."""
    written(tmp_path, TALK, "talk.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.Popen([sys.executable, "-c", FORKING], env=environment, cwd=tmp_path)
    waited(lambda: (tmp_path / "forked").exists() and (tmp_path / "forked").read_text(), "the fork")
    program, forked = (int((tmp_path / name).read_text()) for name in ("own", "forked"))
    driver.kill()
    driver.wait(PATIENCE)
    try:
        waited(lambda: gone([program]), "the end of the program")
        assert not gone([forked])
    finally:
        os.kill(forked, signal.SIGKILL)


def test_the_log_is_bounded(tmp_path, monkeypatch) -> None:
    """Of output without end the log keeps the start and the end."""
    monkeypatch.setattr(output, "LOG_BYTES", 1000)
    monkeypatch.setattr(output, "TAIL_BYTES", 100)
    log = output.Log(tmp_path / "a.log")
    for number in range(100_000):
        log.write(b"%06d\n" % number)
    log.close()
    text = (tmp_path / "a.log").read_text()
    assert len(text) < 1200
    assert text.startswith("000000\n000001\n")
    assert text.endswith("\n099998\n099999\n")
    assert "698,900 bytes left out" in text
    assert log.tail(2) == ["099998", "099999"]


@pytest.mark.long
def test_a_program_that_prints_gigabytes(tmp_path) -> None:
    """What a program prints is never in memory: of 256 MiB, a log of 8 MiB and a tail are left."""
    log = output.Log(tmp_path / "a.log")
    lines = output.Lines(lambda line: None)

    def take(stream: int, piece: bytes) -> None:
        log.write(piece)
        lines.feed(piece)

    assert run(tmp_path, "import os\nfor _ in range(4096):\n    os.write(1, b'x' * 65536)", take=take).code == 0
    log.close()
    assert (tmp_path / "a.log").stat().st_size < (8 << 20) + (17 << 10)


def test_lines_are_cut_at_both_ends() -> None:
    """A line may come in pieces, end with a carriage return, or be too long to be looked at."""
    found = []
    lines = output.Lines(found.append)
    for piece in (b"a", b"b\nc\rd\r\n", b"x" * 70_000, b"y\n", b"last"):
        lines.feed(piece)
    lines.end()
    assert found == ["ab", "c", "d", "last"]


def test_messages_are_json() -> None:
    """The tail of a log that is not text does not matter."""
    log = output.Log(None)
    log.write(b"\xff\xfe\n" + json.dumps({"a": 1}).encode())
    assert log.tail()[-1] == '{"a": 1}'
