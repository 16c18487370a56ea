"""Ctrl-C and SIGTERM: an end that comes, with the right code, nothing left behind, and the run goes on afterwards.

`scripts/crash` holds the end to five seconds; here it comes by the timer that has them.
"""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.crash.children import mark_semaphores, semaphores
from tests.crash.test_kill import crash
from tests.helpers.processes import has_received, until

PROLOGUE = """
    import os, signal, sqlite3, subprocess, sys, threading, time
    from pathlib import Path
    from pbt.terminal import exit
    from pbt.terminal.exit import exit_code_of

    exit.PATIENCE = {patience}
    folder = Path(sys.argv[1])

    def ready():
        (folder / "ready").touch()
"""


def begin(text, folder, patience=0.5):
    """A program that makes the file `ready` when a signal may come; it is the leader of a session.

    An orderly end may take `patience` seconds.
    """
    file = folder / "program.py"
    file.write_text(textwrap.dedent(PROLOGUE.format(patience=patience)) + textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(file), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
    )
    until(lambda: (folder / "ready").exists() or process.poll() is not None)
    return process


def until_it_waits(pid):
    """Wait until its main thread has slept several times, as one does that waits for a lock of SQLite."""

    def slept():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))

    before = slept()
    until(lambda: slept() >= before + 3)


def test_only_its_own_semaphores_count(monkeypatch) -> None:
    """What a marked program leaves in shared memory is found; what another program has there is not."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "semprefix", "/mp-of-another")
    context = multiprocessing.get_context("spawn")
    locks = [context.Lock()]
    mark_semaphores(os.getpid())
    assert semaphores(os.getpid()) == set()
    locks.append(context.Lock())
    assert len(semaphores(os.getpid())) == 1
    assert len(semaphores("of-another")) == 1
    locks.clear()
    gc.collect()
    assert semaphores(os.getpid()) == set()


@pytest.mark.long
@pytest.mark.parametrize("executor", [pytest.param("inline", marks=pytest.mark.slow), "processes"])
def test_at_any_instant(executor) -> None:
    """Signals at random instants, to the program or to its group: the code, the time, orphans, /dev/shm, the bits."""
    names = [f"{executor}/walk/stop:{i}" for i in range(2)]
    assert crash(*names)[f"{executor}/walk/stop"][3:5] == [2, 0]


# A program that waits in a library, for a lock that somebody holds who was stopped: Python calls no handler then.
STUCK = """
    def stuck():
        holder = sqlite3.connect(folder / "some.db", isolation_level=None, check_same_thread=False)
        holder.execute("CREATE TABLE t (x)")
        holder.execute("BEGIN IMMEDIATE")
        waiter = sqlite3.connect(folder / "some.db", isolation_level=None, timeout=3600)
        ready()
        waiter.execute("BEGIN IMMEDIATE")

    sys.exit(exit_code_of(stuck, lambda: "the line that goes on"))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_python_hears_nothing(tmp_path, number) -> None:
    """A program that is inside of a library for an hour is ended, and says how to go on."""
    process = begin(STUCK, tmp_path)
    until_it_waits(process.pid)
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 128 + number
    assert "the line that goes on" in out


def test_a_second_signal_where_python_hears_nothing(tmp_path) -> None:
    """The second Ctrl-C ends it at once, there too."""
    process = begin(STUCK, tmp_path, patience=3600.0)
    until_it_waits(process.pid)
    process.send_signal(signal.SIGINT)
    # Two signals that wait at the same time are one.
    until(lambda: has_received(process.pid, signal.SIGINT))
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    # The end that time forces prints it.
    assert "the line that goes on" not in out


def test_a_line_that_cannot_be_made(tmp_path) -> None:
    """The forced end comes also where asking for the line that goes on fails."""
    process = begin(STUCK.replace('lambda: "the line that goes on"', "lambda: 1 / 0"), tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143


def test_signals_of_a_forked_child_are_its_own(tmp_path) -> None:
    """A process that a task had forked (a data loader) is ended by SIGTERM; that is no reason to end the program."""
    text = """
        def fork():
            ours, theirs = os.pipe()
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
                os.write(theirs, b"x")
                time.sleep(60)
            os.read(ours, 1)
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            ready()
            time.sleep(4 * exit.PATIENCE)
            return 7

        sys.exit(exit_code_of(fork))
    """
    process = begin(text, tmp_path)
    process.communicate()
    assert process.returncode == 7


def test_the_handlers_are_as_before() -> None:
    """Nothing stays behind of a call that ended: neither handlers nor threads nor descriptors."""
    from pbt.terminal.exit import exit_code_of

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    exit_code_of(lambda: 0)
    count = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        assert exit_code_of(lambda: 3) == 3
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= count)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
