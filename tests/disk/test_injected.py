"""The disk fails at one of its calls, whichever: a clear end, nothing lost, and the same run after all."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pbt.errors import RunFormatError
from pbt.store.verify import verify_run
from tests.disk.damaged_runs import told
from tests.disk.walk_experiment import experiment
from tests.helpers.sampled import sampled

TASK = Path(__file__).with_name("walk_experiment.py")
PBT = [sys.executable, "-c", "from pbt.cli.app import main; raise SystemExit(main())"]
CALLS = {"write": "ENOSPC", "pwrite64": "ENOSPC", "fsync": "EIO", "fdatasync": "EIO", "rename": "ENOSPC"}
WORDS = r"full|cannot be (read|written|used|opened)|cannot write|cannot be read or written"

pytestmark = [pytest.mark.needs("strace")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    experiment.run(path)
    return told(path)


def pbt(*arguments, strace=()):
    """The command, with no other call of `write` than those that keep a run."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*strace, *PBT, *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stderr


def begin(path, call, error, when, log):
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(log), "-e", f"trace={call}"]
    strace += ["-e", f"inject={call}:error={error}:when={when}"]
    return pbt("run", f"{TASK}:experiment", "--out", path, "--quiet", strace=strace)


def count(path, call, log):
    """How often an undisturbed run makes the call."""
    code, _ = pbt(
        "run", f"{TASK}:experiment", "--out", path, "--quiet",
        strace=["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(log), "-e", f"trace={call}"],
    )  # fmt: skip
    assert code == 0
    return len(re.findall(rf"\b{call}\(", log.read_text()))


def check(tmp_path, call, error, when, undisturbed):
    path, log = tmp_path / f"{call}-{error}-{when}", tmp_path / f"{call}-{error}-{when}.strace"
    code, said = begin(path, call, error, when, log)
    assert "INJECTED" in log.read_text()
    assert "Traceback" not in said
    if code:
        assert code == 75, said
        lines = [line for line in said.splitlines() if line]
        assert len(lines) == 1, said
        assert lines[0].startswith("pbt: error: ")
        assert str(path) in lines[0]
        assert re.search(WORDS, lines[0])
        assert "resume" in lines[0] or "the permissions of its folder" in lines[0]
    else:
        assert said == ""  # what failed had no part in keeping the run
    if (path / "run.db").exists():
        with contextlib.suppress(RunFormatError):  # it could not even be made
            assert [problem for problem in verify_run(path) if not problem.harmless] == []
    code, said = pbt("run", f"{TASK}:experiment", "--out", path, "--quiet", "--resume")
    assert (code, said) == (0, "")
    assert told(path) == undisturbed
    assert verify_run(path) == []
    assert not [name for name in path.rglob("*") if name.name.endswith(".tmp") or "journal" in name.name]


SAMPLE = [
    ("write", "ENOSPC", 2),
    ("pwrite64", "ENOSPC", 3),
    ("pwrite64", "EDQUOT", 40),
    ("fsync", "EIO", 5),
    ("fsync", "ENOSPC", 12),
    ("rename", "ENOSPC", 3),
]


@pytest.mark.parametrize("fault", sampled(SAMPLE, SAMPLE[:3]))
def test_an_error_of_the_disk_ends_a_run_that_can_go_on(fault, tmp_path, undisturbed) -> None:
    """One line that names the file and the remedy, exit code 75, and a resumed run that is the undisturbed one."""
    check(tmp_path, *fault, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("call", "error"), [*CALLS.items(), ("fsync", "ENOSPC"), ("pwrite64", "EIO")])
def test_an_error_at_every_call(call, error, tmp_path, undisturbed) -> None:
    """The same at each call of its kind that a run makes."""
    times = count(tmp_path / "counted", call, tmp_path / "counted.strace")
    for when in range(1, times + 1):
        check(tmp_path, call, error, when, undisturbed)
