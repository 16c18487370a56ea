"""What a local Ray leaves behind ends with its driver, also a killed one."""

import os
import signal
import subprocess
import sys

import pytest

from pbt.executors.ray import leftovers
from tests.helpers.paths import SOURCE
from tests.helpers.processes import runs, until

DRIVER = """
import subprocess, sys, time
from pbt.executors.ray import leftovers
with leftovers.ended_with_driver():
    words = [sys.executable, "-c", "import time; time.sleep(1000)"]
    child = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
other = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print(child.pid, other.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_a_killed_driver_started_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL of the driver's process group ends what it started under the watch, and nothing else."""
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    words = [sys.executable, "-c", DRIVER]
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert driver.stdout is not None
    child, other = map(int, driver.stdout.readline().split())
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    try:
        until(lambda: not runs(child))
        assert runs(other)
    finally:
        os.kill(other, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_end_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `end` what was started is gone, and the environment is as before."""
    monkeypatch.setattr(leftovers, "_watchers", [])
    before = dict(os.environ)
    with leftovers.ended_with_driver():
        assert os.environ[leftovers.MARK]
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    assert dict(os.environ) == before
    leftovers.end()
    assert child.wait() == -signal.SIGKILL
