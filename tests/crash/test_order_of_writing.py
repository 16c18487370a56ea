"""What is named is durable before: told by the system calls of a run, because no kill of a process can show it.

What a process has written outlives the process, synced or not; only a loss of power forgets it.
"""

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.needs("strace")

# In a process of its own, because the harness forks.
TRACE = "import sys, pathlib; from tests.crash import trials as t; b = t.Bench(pathlib.Path(sys.argv[1])); "
TRACE += "text, path = b.trace_of('inline', 'walk'); print(path); print(text)"
TEMPORARY = re.compile(r"(\d{6}-\d{6}\.safetensors)\.[0-9a-f]+\.tmp")


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """The calls of an undisturbed run on its own durable files, in order, as (name, rest of the line)."""
    folder = tmp_path_factory.mktemp("traced").resolve()
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", TRACE, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    path, *lines = done.stdout.splitlines()
    found = [
        re.match(r"(\w+)\((.*)", line.replace(path, "/run")) for line in lines if path in line and "/live/" not in line
    ]
    return [(match[1], match[2]) for match in found if match is not None]


def test_a_state_is_synced_before_it_has_its_name(calls) -> None:
    """Written, synced, renamed, and its folder synced, in this order, before the database says a word."""
    files = [TEMPORARY.search(rest)[1] for name, rest in calls if name == "rename"]
    assert len(files) == len(set(files)) > 5
    for file in files:
        own = [i for i, (_, rest) in enumerate(calls) if f"{file}." in rest and ".tmp" in rest]
        names = [calls[i][0] for i in own]
        assert names[0] == "openat"
        assert names[-2:] == ["fsync", "rename"]
        assert set(names[1:-2]) == {"write"}
        after = calls[own[-1] + 1 :]
        synced = next(i for i, (name, rest) in enumerate(after) if name == "fsync" and "/states>)" in rest)
        assert not [name for name, rest in after[:synced] if "run.db" in rest]


def test_the_journal_is_synced_before_the_database_is_changed(calls) -> None:
    """No page of the database is overwritten before the journal that could undo it, and its name, are on disk."""
    changed = 0
    dirty = False
    for name, rest in calls:
        if "run.db-journal" in rest:
            if name in ("pwrite64", "write"):
                dirty = True
            elif name in ("fsync", "fdatasync"):
                dirty = False
        elif "run.db>" in rest and name == "pwrite64":
            assert not dirty, rest
            changed += 1
    assert changed > 20


def test_the_database_is_synced_before_its_journal_goes(calls) -> None:
    """A commit is the removal of the journal: the pages are on disk by then, and the folder is synced right after."""
    commits = [i for i, (name, rest) in enumerate(calls) if name == "unlink" and "run.db-journal" in rest]
    assert len(commits) > 5
    for i in commits:
        assert [name for name, _ in calls[i - 1 : i + 3]] == ["fdatasync", "unlink", "openat", "fdatasync"]
        assert "run.db>" in calls[i - 1][1]
        assert "/run>" in calls[i + 2][1]


def test_a_state_loses_its_row_before_its_file(calls) -> None:
    """A file is removed only after the commit that no longer names it."""
    removed = [i for i, (name, rest) in enumerate(calls) if name == "unlink" and "safetensors" in rest]
    assert removed
    for i in removed:
        # The commit of a round names its states, and the next one no longer names what is not needed.
        named = max(j for j in range(i) if calls[j][0] == "rename")
        commits = [call for call in calls[named:i] if call[0] == "unlink" and "run.db-journal" in call[1]]
        assert len(commits) == 2
        before = [call for call in calls[:i] if not (call[0] == "unlink" and "/states/" in call[1])]
        assert [name for name, _ in before[-2:]] == ["openat", "fdatasync"]
