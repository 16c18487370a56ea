"""Windows and macOS, simulated: no `fcntl` and no POSIX names, `F_FULLFSYNC`, and no /proc (`sitecustomize.py`)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import SOURCE

TASK = """
import json
import sys
import numpy as np
import pbt
from pbt.store.verify import verify_run
from pbt.testing.invariants import violations


def train(hparams, state, steps, ctx):
    place = np.zeros(6000) if state is None else state["place"]
    ctx.report(ctx.first_step + steps, size=1.0)
    if (ctx.member, ctx.round) == (1, 1):
        raise ValueError("meant to fail")
    path = ctx.scratch / "folder"
    path.mkdir()
    (path / "a.txt").write_text("same")
    place = place + np.random.default_rng(ctx.key("x")).standard_normal(6000) * hparams["lr"]
    return {"place": place, "checkpoint": pbt.Folder(path)}, -float(np.abs(place).mean())


def runs(executors):
    for executor in executors:
        for rounds in (1, 2) if executor == "inline" else (2,):
            run = pbt.run(
                train, {"lr": pbt.Float(1e-3, 1e-1, "log")}, population=3, rounds=rounds, seed=1, run_dir=executor,
                resume=True, executor=executor, workers=1 if executor == "processes" else None,
            )
        assert not verify_run(run.path)
        assert not violations(run.path)
        print(json.dumps([run.best.score, run.load_state(run.best.state)["place"].tolist()]))


program = pbt.Experiment(task=pbt.Command(["true", "{lr}"]), space={"lr": pbt.Float(0.1, 1.0)}, population=2, rounds=1)
if __name__ == "__main__":
    runs(sys.argv[1:])
"""


def on(system: str, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """What Python did with these words on another system."""
    path = os.pathsep.join([str(Path(__file__).parent), str(SOURCE)])
    environment = {**os.environ, "PYTHONPATH": path, "ELSEWHERE": system, "ELSEWHERE_SYNCED": str(folder / "synced")}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("system", "executors"),
    [("windows", ["inline", "processes"]), pytest.param("macos", ["inline", "processes"], marks=pytest.mark.slow)],
)
def test_a_run_elsewhere(tmp_path: Path, system: str, executors: list[str]) -> None:
    """Inline and processes train, resume and store a whole run, with the bits of this system."""
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "here").mkdir()
    here = on("", tmp_path / "here", "../task.py", "inline")
    done = on(system, tmp_path, "task.py", *executors)
    assert done.returncode == here.returncode == 0, here.stderr + done.stderr
    assert done.stdout.splitlines() == [here.stdout.strip()] * len(executors)


def test_durable_on_macos(tmp_path: Path) -> None:
    """A file and its folder are made durable down to the drive, not only to its cache."""
    code = (
        "from pathlib import Path; from pbt.store.durable import write_durable; write_durable(Path('folder/a'), b'x')"
    )
    (tmp_path / "folder").mkdir()
    done = on("macos", tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    file, folder = (tmp_path / "synced").read_text().splitlines()
    assert folder == str(tmp_path / "folder")
    assert file.startswith(f"{folder}/a.")


SECOND = """
import sys
from pathlib import Path
from pbt.errors import RunLockedError
from pbt.store.lock import WriterLock, is_locked
path = Path(sys.argv[1])
lock = WriterLock(path)
assert is_locked(path)
if len(sys.argv) == 2:
    import os, subprocess
    words = [sys.executable, "-c", Path("code.py").read_text(), str(path), "second"]
    second = subprocess.run(words, capture_output=True)
    assert b"RunLockedError" in second.stderr and str(os.getpid()).encode() in second.stderr, second.stderr
    lock.close()
    assert not is_locked(path)
    WriterLock(path).close()
"""


def test_the_lock_of_windows(tmp_path: Path) -> None:
    """A second writer is refused with the holder's id, and the lock is free after it is closed."""
    (tmp_path / "code.py").write_text(SECOND)
    done = on("windows", tmp_path, "-c", SECOND, str(tmp_path / "lock"))
    assert done.returncode == 0, done.stderr


def test_shared_locks_of_windows(tmp_path: Path) -> None:
    """Several holders share a lock, which excludes an exclusive one until the last of them closes."""
    code = """
import os, sys
from pbt.store.system import lock
files = [os.open("f", os.O_RDWR | os.O_CREAT) for _ in range(4)]
lock(files[0], shared=True, wait=True)
lock(files[1], shared=True)
for held in (files[1], files[0]):
    try:
        lock(files[2])
    except BlockingIOError:
        os.close(held)
    else:
        sys.exit("not excluded")
lock(files[3])
"""
    # What a failed exclusive lock has not taken must not stay behind either.
    done = on("windows", tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr


def test_programs_elsewhere(tmp_path: Path) -> None:
    """A program as a member is refused on Windows in one line, before anything is written."""
    (tmp_path / "task.py").write_text(TASK)
    done = on("windows", tmp_path, "-m", "pbt", "run", "task.py:program", "--out", "run")
    assert done.returncode == 2
    assert "Linux or macOS" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
