"""Readers: while a run runs, after its writer was killed, and without ever writing to it."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pbt.core.events import Ended, MemoryUpdated, Reported
from pbt.core.population import StateRef
from pbt.errors import CorruptError
from pbt.store.reader import RunReader
from pbt.store.sqlite import RunStore
from pbt.store.verify import verify_run
from pbt.testing.stores import LARGE, META, fill, make_state, report, same

HOT = """
import os, sys
from pbt.store.sqlite import RunStore
store = RunStore.open(sys.argv[1])
store._connection.execute("PRAGMA cache_size = 5")
with store._transaction() as connection:
    connection.execute("UPDATE events SET data = 'overwritten'")
    connection.executemany("INSERT INTO journal (kind, data, clock) VALUES (?, '{}', 0)", [("x" * 2000,)] * 500)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def contents(path: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(entry.relative_to(path)): (entry.stat().st_mtime_ns, entry.read_bytes())
        for entry in path.rglob("*")
        if entry.is_file()
    }


def make_hot(run: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HOT, str(run)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (run / "run.db-journal").stat().st_size > 0


def test_a_reader_sees_what_the_writer_committed(run: Path) -> None:
    """Events, meta, journal and states are there as soon as they are committed, each new event once."""
    with RunStore.create(run, META) as store, RunReader(run) as reader:
        log = fill(store, size=LARGE)
        assert reader.events() == log
        seen = reader.rows()
        store.commit([Ended(round=2, why="done")])
        store.note("late", x=1)
        assert reader.events(seen[-1].id) == [Ended(round=2, why="done")]
        (new,) = reader.rows(seen[-1].id)
        assert abs(new.clock - time.time()) < 100
        assert reader.clock(new.id) == new.clock
        assert reader.last() == new.id
        assert reader.events(new.id) == []
        assert reader.meta == dict(META)
        assert [entry.kind for entry in reader.journal()] == ["late"]
        assert reader.stored(StateRef(0, 1)) == store.stored(StateRef(0, 1))
        assert same(reader.load_state(StateRef(0, 1)), make_state(0, 1, LARGE))
        with pytest.raises(KeyError):
            reader.load_state(StateRef(9, 9))


def test_a_reader_knows_whether_somebody_writes(run: Path) -> None:
    """A run is being written exactly as long as its writer lives and has it open."""
    with RunStore.create(run, META), RunReader(run) as reader:
        assert reader.is_writing()
    with RunReader(run) as reader:
        assert not reader.is_writing()
        (run / "lock").unlink()
        assert not reader.is_writing()


def test_reading_changes_nothing(run: Path) -> None:
    """After every kind of read, and of a hot journal too, each file has the bytes and the time it had."""
    with RunStore.create(run, META) as store:
        fill(store, size=LARGE)
    for hot in (False, True):
        if hot:
            make_hot(run)
        before = contents(run)
        with RunReader(run) as reader:
            reader.events()
            reader.load_state(StateRef(0, 2))
            reader.journal()
            assert not reader.is_writing()
        assert verify_run(run) == []
        assert contents(run) == before


def test_a_hot_journal_is_rolled_back_in_a_copy(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed writer's half transaction is seen by nobody; the copy goes away with the reader or its memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with RunStore.create(run, META) as store:
        log = fill(store)
    make_hot(run)
    with RunReader(run) as reader:
        assert reader.events() == log
        assert len(list(tmp_path.glob("pbt-*"))) == 1
        with RunStore.open(run) as store:
            assert store.events() == log
            store.commit([Ended(round=2, why="done")])
            # The writer has rolled back: from now on the run directory itself is read.
            assert reader.events() == [*log, Ended(round=2, why="done")]
    assert list(tmp_path.glob("pbt-*")) == []
    make_hot(run)
    reader = RunReader(run)
    assert len(list(tmp_path.glob("pbt-*"))) == 1
    del reader
    assert list(tmp_path.glob("pbt-*")) == []


WRITER = """
import sys
from pbt.store.sqlite import RunStore
from pbt.testing.stores import LARGE, SMALL, decide, report
from pbt.core.population import StateRef
store = RunStore.open(sys.argv[1])
for round_ in range(3, 33):
    reports = [report(store, member, round_, SMALL if member else LARGE) for member in range(2)]
    events = [event for event, _ in reports] + [decide(m, round_ + 1, StateRef(m, round_)) for m in range(2)]
    store.commit(events, {ref: there for _, stored in reports for ref, there in stored.items()})
    store.sweep({StateRef(m, r) for m in range(2) for r in (round_, round_ - 1)} | {StateRef(1, 1)})
"""


def test_readers_and_a_writer_do_not_disturb_each_other(run: Path) -> None:
    """While a writer writes as fast as it can, readers see whole commits, growing, and nobody is told to wait."""
    with RunStore.create(run, META) as store:
        fill(store)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(run)])
    seen = 0
    with RunReader(run) as reader, RunReader(run) as other:
        while writer.poll() is None:
            events = reader.events()
            assert len(events) >= seen
            assert (len(events) - 2) % 4 == 0
            seen = len(events)
            last = max(event.round for event in events if isinstance(event, Reported))
            try:
                assert same(other.load_state(StateRef(0, last)), make_state(0, last, LARGE if last > 2 else 4))
            except KeyError:
                assert len(other.events()) > seen  # swept since, so the writer went on
            assert [problem for problem in verify_run(run) if not problem.harmless] == []
        assert writer.returncode == 0
        assert len(reader.events()) == 2 + 32 * 4


@pytest.mark.slow
def test_a_writer_that_is_killed_while_readers_read_leaves_a_readable_run(run: Path) -> None:
    """Wherever the kill hits, readers see whole commits only, and the next writer goes on from there."""
    with RunStore.create(run, META) as store:
        fill(store)
    kept = run.with_name("kept")
    shutil.copytree(run, kept)
    for delay in (0.0, 0.03):
        shutil.rmtree(run)
        shutil.copytree(kept, run)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(run)])
        with RunReader(run) as reader:
            while len(reader.events()) == 10 and writer.poll() is None:
                pass
            time.sleep(delay)
            writer.kill()
            writer.wait()
            log = reader.events()
            assert (len(log) - 2) % 4 == 0
            assert [problem for problem in verify_run(run) if not problem.harmless] == []
        with RunStore.open(run) as store:
            assert store.events() == log
            assert store.verify() == []


def test_damage_of_every_kind_is_found(run: Path) -> None:
    """Each check of `verify` finds its own kind of damage, and no other check hides it."""
    with RunStore.create(run, META) as store:
        fill(store, size=LARGE)
    (run / "states" / "000000-000002.safetensors").unlink()
    (run / "states" / "000001-000001.safetensors").write_bytes(b"nothing")
    (run / "states" / "000009-000009.safetensors").write_bytes(b"stray")
    (run / "states" / "x.tmp").write_bytes(b"stray")
    found = {problem.what: problem for problem in verify_run(run)}
    assert sorted(found) == [
        "000000-000002.safetensors",
        "000001-000001.safetensors",
        "states/000009-000009.safetensors",
        "states/x.tmp",
    ]
    assert [found[what].harmless for what in sorted(found)] == [False, False, True, True]
    connection = sqlite3.connect(run / "run.db")
    connection.execute('UPDATE events SET data = \'{"kind": "unheard"}\' WHERE id = 1')
    connection.commit()
    assert "event 1" in {problem.what for problem in verify_run(run)}
    with RunReader(run) as reader, pytest.raises(CorruptError, match="events 1 to 2"):
        reader.events()
    connection.execute("DELETE FROM events WHERE id = 1")
    connection.commit()
    assert "events" in {problem.what for problem in verify_run(run)}
    connection.execute("UPDATE meta SET value = '3' WHERE key = 'space'")
    connection.commit()
    connection.close()
    assert "meta" in {problem.what for problem in verify_run(run)}


def test_a_damaged_database_is_found(run: Path) -> None:
    """Bytes of the database that are not SQLite's any more are a finding, never a traceback."""
    with RunStore.create(run, META) as store:
        fill(store)
        store.commit([MemoryUpdated(round=2, memory={"x": "y" * 50_000})])
    whole = (run / "run.db").read_bytes()
    for place in range(4096, len(whole), 4096):
        (run / "run.db").write_bytes(whole[:place] + b"\xa5" * 300 + whole[place + 300 :])
        assert [problem for problem in verify_run(run) if not problem.harmless], place
    (run / "run.db").write_bytes(whole[: len(whole) // 2])
    assert verify_run(run)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_directory_that_may_not_be_written_can_be_read(run: Path) -> None:
    """Somebody else's run, or one on a read-only disk, is read like any other."""
    with RunStore.create(run, META) as store:
        log = fill(store)
    run.chmod(0o555)
    try:
        with RunReader(run) as reader:
            assert reader.events() == log
    finally:
        run.chmod(0o755)


def test_a_state_that_was_damaged_is_told_from_one_that_was_swept(run: Path) -> None:
    """A reader that comes too late gets a KeyError; damage stays a CorruptError."""
    with RunStore.create(run, META) as store, RunReader(run) as reader:
        event, stored = report(store, 0, 1, LARGE)
        store.commit([event], stored)
        (run / "states" / "000000-000001.safetensors").unlink()
        with pytest.raises(CorruptError):
            reader.load_state(StateRef(0, 1))
        store.sweep([])
        with pytest.raises(KeyError):
            reader.load_state(StateRef(0, 1))
