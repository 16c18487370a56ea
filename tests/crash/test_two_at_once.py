"""Two at one run directory: a second writer is refused, a dead one replaced, and readers never see half a round."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from pbt.errors import RunLockedError
from tests.crash.picture import Picture, differences, read
from tests.crash.tasks import NAP, experiment

ROUNDS = 12
WRITE = f"import sys, pathlib; from tests.crash import tasks; tasks.experiment('walk', 'inline', rounds={ROUNDS})"
WRITE += ".run(pathlib.Path(sys.argv[1]), resume=True)"


def begin(*words, nap=0.0):
    environment = {**os.environ, NAP: str(nap), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def until_logged(path, events, process):
    deadline = time.monotonic() + 60
    while read(path) < events:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    experiment("walk", "inline", rounds=ROUNDS).run(path)
    return Picture.of(path)


def test_a_second_writer(tmp_path, undisturbed) -> None:
    """While one process writes another is refused, and told who it is; once that is dead, it takes over at once."""
    path = tmp_path / "run"
    first = begin("-c", WRITE, str(path), nap=0.1)
    try:
        until_logged(path, 10, first)
        with pytest.raises(RunLockedError, match=f"pid {first.pid} on host {socket.gethostname()}"):
            experiment("walk", "inline", rounds=ROUNDS).run(path, resume=True)
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    experiment("walk", "inline", rounds=ROUNDS).run(path, resume=True)
    assert differences(path, undisturbed) == []


@pytest.mark.slow
def test_eight_readers(tmp_path, undisturbed) -> None:
    """Eight readers look all the time, while the run is written, killed and taken up again: each sees whole rounds."""
    path = tmp_path / "run"
    writer = begin("-c", WRITE, str(path), nap=0.05)
    readers = begin("-m", "tests.crash.readers", str(path), "8")
    try:
        for events in (15, 40):
            until_logged(path, events, writer)
            writer.kill()
            writer.communicate()
            writer = begin("-c", WRITE, str(path), nap=0.05)
        told, _ = readers.communicate(timeout=120)
        said, _ = writer.communicate(timeout=60)
    finally:
        readers.kill()
        writer.kill()
    assert (readers.returncode, writer.returncode) == (0, 0), told + said
    looks = [tuple(map(int, line.split())) for line in told.splitlines()]
    assert len(looks) == 8
    assert {events for _, events in looks} == {len(undisturbed.rows)}
    assert min(count for count, _ in looks) > 2
    assert differences(path, undisturbed) == []
