"""The run directory: creation, locks, durability, views, and what a kill leaves behind."""

import errno
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pbt.core.checkpoint import to_plain, unfolded
from pbt.core.events import Born, Decided, Decision, Ended, Failed, Reported, Retired
from pbt.core.fold import empty_view
from pbt.core.population import StateRef
from pbt.domains import Float
from pbt.errors import CorruptError, RunError, RunExistsError, RunFormatError, RunLockedError, UsageError
from pbt.space import Space
from pbt.store import checksums
from pbt.store.files import StateFiles
from pbt.store.layout import check_run_name
from pbt.store.lock import WriterLock, is_locked
from pbt.store.reader import RunReader
from pbt.store.repair import repair_run
from pbt.store.sqlite import RunStore
from pbt.store.verify import verify_run
from pbt.testing.stores import HPARAMS, LARGE, META, decide, fill, make_state, report, same

HELD = """
import sys, time
from pbt.store.sqlite import RunStore
store = RunStore.open(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "a b#%?ö"


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HELD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_run_directory_holds_three_things(run: Path) -> None:
    """The layout is the one that is documented, and nothing else lies around."""
    with RunStore.create(run, META) as store:
        fill(store, size=LARGE)
        assert store.path == run
    assert sorted(entry.name for entry in run.iterdir()) == ["lock", "run.db", "states"]
    assert len(list((run / "states").iterdir())) == 4


def test_small_states_live_in_the_database_and_large_ones_in_files(run: Path) -> None:
    """A small state costs no file; a large one has a name that says whose it is."""
    with RunStore.create(run, META) as store:
        small, large = report(store, 0, 1), report(store, 1, 1, LARGE)
        store.commit([small[0], large[0]], {**small[1], **large[1]})
        assert store.stored(StateRef(0, 1)).blob is not None
        assert store.stored(StateRef(1, 1)).blob is None
        assert [entry.name for entry in (run / "states").iterdir()] == ["000001-000001.safetensors"]


def test_a_directory_that_holds_something_is_refused(run: Path, tmp_path: Path) -> None:
    """No run is ever overwritten, nor anything else; the message says how to go on."""
    with RunStore.create(run, META):
        pass
    with pytest.raises(RunExistsError, match="pbt resume"):
        RunStore.create(run, META)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(RunExistsError, match=r"thesis\.tex"):
        RunStore.create(tmp_path / "other", META)
    assert [entry.name for entry in (tmp_path / "other").iterdir()] == ["thesis.tex"]
    with pytest.raises(RunExistsError):
        RunStore.create(tmp_path / "other" / "thesis.tex", META)


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", "states/"], ["lock", "states/", "run.db"]])
def test_an_interrupted_creation_is_in_nobodys_way(run: Path, left: list[str]) -> None:
    """Whatever a kill during creation leaves is no run, and can be created again."""
    run.mkdir(parents=True)
    for name in left:
        (run / name).mkdir() if name.endswith("/") else (run / name).touch()
    with pytest.raises(RunFormatError, match=r"interrupted|run\.db"):
        RunStore.open(run)
    with RunStore.create(run, META) as store:
        fill(store)
    with RunStore.open(run) as store:
        assert store.meta == dict(META)


@pytest.mark.parametrize("name", ["application_id", "user_version"])
@pytest.mark.parametrize("number", [1, 99, 0x7FFFFFFF])
def test_another_format_is_named(run: Path, name: str, number: int) -> None:
    """A database of another program or version is refused by writer and reader, and not changed."""
    with RunStore.create(run, META):
        pass
    if (name, number) == ("user_version", 1):
        return
    connection = sqlite3.connect(run / "run.db")
    connection.execute(f"PRAGMA {name} = {number}")
    connection.close()
    before = (run / "run.db").read_bytes()
    for use in (RunStore.open, RunReader):
        with pytest.raises(RunFormatError, match=str(number) if name == "application_id" else f"newer format {number}"):
            use(run)
    assert (run / "run.db").read_bytes() == before


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    """An absent directory, an empty one and a foreign file are told apart from runs, and left alone."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.db").write_text("no database at all, but long enough to be looked at" * 50)
    for name in ("absent", ".", "foreign"):
        for use in (RunStore.open, RunReader):
            with pytest.raises(RunFormatError):
                use(tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["foreign"]


def test_a_second_writer_is_refused_with_the_name_of_the_first(run: Path) -> None:
    """One writer at a time, whether in this process or another; a dead one's lock is free by itself."""
    RunStore.create(run, META).close()
    process = holder(run)
    try:
        with pytest.raises(RunLockedError, match=f"pid {process.pid} on host {socket.gethostname()}"):
            RunStore.open(run)
        with pytest.raises(RunLockedError):
            RunStore.create(run, META)
    finally:
        kill(process)
    with RunStore.open(run), pytest.raises(RunLockedError, match=f"pid {os.getpid()} "):
        RunStore.open(run)
    RunStore.open(run).close()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """The lock dies with its process, also when a child that was forked from it lives on."""
    lock = WriterLock(tmp_path / "lock")
    (ready, say_ready), (end, say_end) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(say_ready, b"x")
        os.read(end, 1)
        os._exit(0)
    os.read(ready, 1)
    assert is_locked(tmp_path / "lock")
    lock.close()
    assert not is_locked(tmp_path / "lock")
    os.write(say_end, b"x")
    os.waitpid(child, 0)
    for descriptor in (ready, say_ready, end, say_end):
        os.close(descriptor)


def test_probes_do_not_keep_a_writer_out(run: Path) -> None:
    """Readers that ask all the time whether somebody writes never make a writer fail."""
    RunStore.create(run, META).close()
    code = "import sys; from pathlib import Path; from pbt.store.lock import is_locked\nprint(1, flush=True)\n"
    code += "while True: is_locked(Path(sys.argv[1]))"
    probes = [
        subprocess.Popen([sys.executable, "-c", code, str(run / "lock")], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for probe in probes:
            assert probe.stdout is not None
            probe.stdout.readline()
        for _ in range(30):
            RunStore.open(run).close()
    finally:
        for probe in probes:
            kill(probe)


KILLED_COMMIT = """
import os, sys
from pbt.store.sqlite import RunStore
from pbt.testing.stores import META, HPARAMS, LARGE, decide, report
from pbt.core.checkpoint import to_plain, unfolded
from pbt.core.fold import empty_view
from pbt.core.population import StateRef

store = RunStore.open(sys.argv[1])
folded = unfolded(empty_view(store.meta))
point = int(sys.argv[2])
seen = 0

def count(*_):
    global seen
    seen += 1
    if seen == point:
        os.kill(os.getpid(), 9)

store._connection.set_trace_callback(count)
for round_ in range(3, 5):
    reports = [report(store, member, round_, 4 if member else LARGE) for member in range(2)]
    events = [event for event, _ in reports] + [decide(m, round_ + 1, StateRef(m, round_)) for m in range(2)]
    store.commit(events, {ref: there for _, stored in reports for ref, there in stored.items()})
    print(round_, flush=True)
    folded = folded.after(store.events(folded.standings.last))
    store.save_checkpoint(folded.standings.last, to_plain(folded))
    store.sweep({StateRef(m, r) for m in range(2) for r in (round_, round_ - 1)} | {StateRef(1, 1)})
print("end", flush=True)
"""


def test_a_kill_at_any_statement_leaves_a_whole_run(tmp_path: Path) -> None:
    """After SIGKILL at any statement the log ends with a whole commit, every state it needs is there, no file more."""
    for point in range(1, 140, 6):
        run = tmp_path / f"run{point}"
        with RunStore.create(run, META) as store:
            fill(store)
        done = subprocess.run(
            [sys.executable, "-c", KILLED_COMMIT, str(run), str(point)], capture_output=True, text=True, check=False
        )
        committed = [int(line) for line in done.stdout.split() if line != "end"]
        with RunStore.open(run) as store:
            reported = [event.round for event in store.events() if isinstance(event, Reported)]
            rounds = max(reported)
            assert reported == sorted([*range(1, rounds + 1)] * 2)
            # The kill may come between the commit and the word that it was done.
            assert rounds - 2 - len(committed) in (0, 1)
            assert same(store.load_state(StateRef(1, rounds)), make_state(1, rounds))
            assert store.verify() == []
            saved = store.checkpoint()
            # At the newest commit, or at the one before it: written after it, in a transaction of its own.
            assert (0 if saved is None else saved.last) in (0, store.last(), store.last() - 4)
            fresh = report(store, 0, rounds + 1, LARGE)
            store.commit([fresh[0]], fresh[1])
        if done.stdout.endswith("end\n"):
            break
    else:
        pytest.fail("the last point was not reached")


KILLED_PUT = """
import os, sys, pathlib
from pbt.store.files import StateFiles
from pbt.core.population import StateRef
from pbt.testing.stores import make_state, LARGE

import pbt.store.durable as durable

def kill(*_):
    os.kill(os.getpid(), 9)

if sys.argv[2] == "fsync":
    os.fsync = kill
elif sys.argv[2] == "replace":
    pathlib.Path.replace = kill
else:
    durable.sync_folder = kill
StateFiles(pathlib.Path(sys.argv[1]) / "states").put(StateRef(7, 7), make_state(7, 7, LARGE))
"""


@pytest.mark.parametrize("point", ["fsync", "replace", "folder"])
def test_a_kill_while_a_state_is_written_leaves_nothing_behind(run: Path, point: str) -> None:
    """Before the rename there is a temporary file only; either way opening the run clears up what no row names."""
    with RunStore.create(run, META) as store:
        log = fill(store, size=LARGE)
    done = subprocess.run([sys.executable, "-c", KILLED_PUT, str(run), point], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((run / "states").iterdir())) == 5
    with RunReader(run) as reader:
        assert reader.events() == log
    assert [problem.harmless for problem in verify_run(run)] == [True]
    with RunStore.open(run) as store:
        assert len(list((run / "states").iterdir())) == 4
        assert store.events() == log
        assert store.verify() == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace", "pbt.store.durable.sync_folder"])
def test_a_failing_disk_is_an_error_without_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    """Whichever step fails, the error names the file and the remedy, and no temporary file stays."""

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(call, fail)
    with pytest.raises(RunError, match=rf"000001-000002\.safetensors .*{os.strerror(code)}.*resume"):
        StateFiles(tmp_path).put(StateRef(1, 2), make_state(1, 2, LARGE))
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_full_disk_is_an_error_without_litter(tmp_path: Path) -> None:
    """A real limit of the system on the size of files, met in the middle of writing: a clear error, an empty folder."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from pbt.store.files import StateFiles; from pbt.testing.stores import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try: StateFiles(Path(sys.argv[1])).put(StateRef(1, 2), make_state(1, 2, LARGE))\n"
        "except RunError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_full_database_is_an_error_and_writes_nothing(run: Path) -> None:
    """When the disk is full in the middle of a commit, the log is as before and can go on when there is room."""
    with RunStore.create(run, META) as store:
        log = fill(store)
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        event, stored = report(store, 0, 3, 3000)
        with pytest.raises(RunError, match=r"disk is full.*resume"):
            store.commit([event], stored)
        assert store.events() == log
        with pytest.raises(KeyError):
            store.stored(StateRef(0, 3))
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.commit([event], stored)
        assert store.verify() == []


def test_a_state_whose_file_is_not_there_is_not_named(run: Path) -> None:
    """A commit looks whether the files it names exist: an executor with another folder is found out at once."""
    with RunStore.create(run, META) as store:
        event, stored = report(store, 0, 1, LARGE)
        next((run / "states").iterdir()).unlink()
        with pytest.raises(RunError, match="expected the file"):
            store.commit([event], stored)
        assert store.events() == []


def test_a_sweep_removes_files_and_rows(run: Path) -> None:
    """Disk use is bounded: what is not kept has neither file nor row."""
    with RunStore.create(run, META) as store:
        fill(store, members=3, rounds=3, size=LARGE)
        assert store.sweep([StateRef(0, 3), StateRef(1, 2)]) == 7
        assert sorted(entry.name for entry in (run / "states").iterdir()) == [
            "000000-000003.safetensors",
            "000001-000002.safetensors",
        ]
    with RunReader(run) as reader:
        assert set(reader.refs()) == {StateRef(0, 3), StateRef(1, 2)}


def test_rows_of_small_states_go_with_the_next_transaction(run: Path) -> None:
    """A sweep that removes no file costs no transaction, and is done by the next one."""
    with RunStore.create(run, META) as store, RunReader(run) as reader:
        fill(store)
        store.sweep([StateRef(0, 2)])
        assert len(reader.refs()) == 4
        store.note("anything")
        assert set(reader.refs()) == {StateRef(0, 2)}


def test_flipped_bytes_are_found(run: Path) -> None:
    """A damaged state is never trained on: loading it is an error that names the file, and `verify` lists it."""
    with RunStore.create(run, META) as store:
        fill(store, size=LARGE)
        path = run / "states" / "000001-000002.safetensors"
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        with pytest.raises(CorruptError, match=r"000001-000002\.safetensors: expected content.*pbt verify"):
            store.load_state(StateRef(1, 2))
        (problem,) = store.verify()
        assert (problem.what, problem.harmless) == ("000001-000002.safetensors", False)
        path.unlink()
        with pytest.raises(CorruptError, match="found none"):
            store.load_state(StateRef(1, 2))


def test_run_names_are_safe_names() -> None:
    """What becomes a folder is a plain name on every system."""
    for name in ("a", "fc-20260101-120000-ab12", "v1.2_x", "a" * 64):
        assert check_run_name(name) == name
    for name in ("", ".", "..", ".x", "a/b", "a\\b", "x.", "a b", "CON", "nul.txt", "com1", "a" * 65, "ä", "a\n", "-x"):
        with pytest.raises(UsageError, match="run name"):
            check_run_name(name)


SPACE = Space(
    {"lr": Float(1e-4, 1.0, "log"), "optimizer.momentum": Float(0, 1), "step": Float(0, 9), "größe": Float(0, 1)}
)
VALUES = {"lr": 0.5, "optimizer.momentum": 0.25, "step": 3.0, "größe": 0.125}


def view(store: RunStore, name: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"{(store.path / 'run.db').as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    rows = [dict(row) for row in connection.execute(f"SELECT * FROM {name}")]
    connection.close()
    return rows


@pytest.fixture
def viewed(run: Path) -> Any:
    """Member 1 copies member 0 after round 1, gets best in round 2; member 2 fails and is retired, 3 is an elite."""
    with RunStore.create(run, {"seed": 1, "space": SPACE.to_dict()}) as store:
        later = {**VALUES, "lr": 0.75}

        def reported(member: int, round_: int, score: float) -> None:
            stored = store.states.put(StateRef(member, round_), {"x": np.ones(2)})
            event = Reported(
                member=member, round=round_, step=100 * round_, scores=(score,), state=StateRef(member, round_),
                digest=stored.digest, reported={"test_accuracy": 0.9, "loss": [1.0]},
            )  # fmt: skip
            store.commit([event], {StateRef(member, round_): stored})

        def decided(member: int, round_: int, start: StateRef, donor: int | None, kind: Any) -> None:
            decision = Decision(
                member=member, round=round_, start=start, step=100, hparams=later if donor is not None else VALUES,
                donor=donor, kind=kind, why="because",
            )  # fmt: skip
            store.commit([Decided(decision=decision)])

        roles = ("member", "member", "member", "elite")
        store.commit([Born(member=i, hparams=VALUES, role=role) for i, role in enumerate(roles)])  # type: ignore[arg-type]
        reported(0, 1, 0.5)
        reported(1, 1, float("nan"))
        store.commit([Failed(member=2, round=1, cause="score", message="nan")])
        reported(3, 1, 9.0)
        decided(0, 2, StateRef(0, 1), None, "continue")
        decided(1, 2, StateRef(0, 1), 0, "exploit")
        store.commit([Retired(member=2, round=1, why="failed")])
        reported(1, 2, 0.75)
        reported(0, 2, 0.75)
        store.commit([Ended(round=2, why="done")])
        yield store


def test_the_view_history_has_a_row_per_report(viewed: RunStore) -> None:
    """Everybody's history, with a column per hyperparameter; infinities and NaN are text."""
    rows = view(viewed, "history")
    assert [(row["member"], row["round"], row["step"], row["score"], row["kind"], row["donor"]) for row in rows] == [
        (0, 1, 100, 0.5, "born", None),
        (1, 1, 100, "nan", "born", None),
        (3, 1, 100, 9.0, "born", None),
        (1, 2, 200, 0.75, "exploit", 0),
        (0, 2, 200, 0.75, "continue", None),
    ]
    assert [row["lr"] for row in rows] == [0.5, 0.5, 0.5, 0.75, 0.5]
    assert (rows[0]["optimizer.momentum"], rows[0]["hparams.step"], rows[0]["größe"]) == (0.25, 3.0, 0.125)
    assert (rows[0]["test_accuracy"], rows[0]["reported"]) == (0.9, '{"test_accuracy":0.9,"loss":[1.0]}')


def test_the_view_members_says_where_everybody_stands(viewed: RunStore) -> None:
    """One row per member, with what it last reported."""
    rows = view(viewed, "members")
    assert [(row["member"], row["role"], row["status"], row["round"], row["score"]) for row in rows] == [
        (0, "member", "live", 2, 0.75),
        (1, "member", "live", 2, 0.75),
        (2, "member", "retired", 1, None),
        (3, "elite", "live", 1, 9.0),
    ]


def test_the_view_lineage_says_how_every_round_began(viewed: RunStore) -> None:
    """Births and decisions, with the state they started from."""
    rows = [tuple(row.values()) for row in view(viewed, "lineage")]
    assert rows == [
        *((i, 1, None, None, None, "born", None) for i in range(4)),
        (0, 2, 0, 1, None, "continue", "because"),
        (1, 2, 0, 1, 0, "exploit", "because"),
    ]


def test_the_view_schedule_follows_the_ancestry_of_the_best(viewed: RunStore) -> None:
    """The first of equally good states of a member (not an elite), back to its birth in another member."""
    rows = view(viewed, "schedule")
    assert [(r["first_step"], r["last_step"], r["lr"], r["member"], r["round"]) for r in rows] == [
        (0, 100, 0.5, 0, 1),
        (100, 200, 0.75, 1, 2),
    ]


def test_views_of_an_empty_run_are_empty(run: Path) -> None:
    """The views can be asked from the first moment on, also without any hyperparameter."""
    with RunStore.create(run, {}) as store:
        assert [view(store, name) for name in ("history", "members", "lineage", "schedule")] == [[]] * 4


@pytest.fixture
def saved(run: Path) -> Path:
    """A run with a checkpoint before its last commit."""
    with RunStore.create(run, META) as store:
        fill(store)
        folded = unfolded(empty_view(META)).after(store.events())
        store.save_checkpoint(store.last(), to_plain(folded))
        store.commit([Ended(round=2, why="done")])
    return run


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path / "run.db")
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


DAMAGE = {
    "its text": ["UPDATE checkpoints SET data = replace(data, '\"round\":2', '\"round\":1')"],
    "its event": ["UPDATE checkpoints SET last = 6"],
    "its type": ["UPDATE checkpoints SET data = x'00'"],
    "its seal": ["UPDATE seals SET digest = 'x' WHERE what = 'checkpoint'"],
    "no seal": ["DELETE FROM seals WHERE what = 'checkpoint'"],
    "missing": ["DELETE FROM checkpoints"],
    "two": ["INSERT INTO checkpoints SELECT 1, data FROM checkpoints"],
    "the table": ["DROP TABLE checkpoints"],
    "the log's seal": ["UPDATE seals SET digest = 'x' WHERE what = 'events' AND last = 10"],
    "an earlier log": [
        "DELETE FROM events WHERE id > 6", "DELETE FROM seals WHERE what = 'events' AND last > 6",
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_checkpoint_that_was_changed_is_not_believed(saved: Path, what: str) -> None:
    """Neither a reader nor a writer uses it; `verify` names it, and repair leaves it out."""
    assert verify_run(saved) == []
    with RunReader(saved) as reader:
        assert reader.checkpoint() is not None
    execute(saved, *DAMAGE[what])
    with RunReader(saved) as reader:
        assert (reader.checkpoint() is None) == (what != "two")
    if what == "the table":
        with pytest.raises(CorruptError, match="meta values"):
            RunStore.open(saved)
    else:
        with RunStore.open(saved) as store:
            assert (store.checkpoint() is None) == (what != "two")
    assert "checkpoint" in {problem.what for problem in verify_run(saved) if not problem.harmless}
    if what not in ("the table", "the log's seal"):  # damage of the head and the log, told apart elsewhere
        assert repair_run(saved) is not None
        assert verify_run(saved) == []
        with RunReader(saved) as reader:
            assert reader.checkpoint() is None
            assert reader.last() == (6 if what == "an earlier log" else 11)


def test_a_checkpoint_that_does_not_say_what_the_log_says_is_found(saved: Path) -> None:
    """With a seal of its own it is believed, as every row would be; `verify` folds the log and compares."""
    with RunStore.open(saved) as store:
        text = store.checkpoint().text  # type: ignore[union-attr]
        store.save_checkpoint(10, json.loads(text))
        assert store.verify() == []
        store.save_checkpoint(10, {**json.loads(text), "round": 1})
        assert [problem.what for problem in store.verify()] == ["checkpoint"]
        store.save_checkpoint(10, {"nothing": 1})
        assert [problem.what for problem in store.verify()] == ["checkpoint"]


def test_a_checkpoint_belongs_to_one_log(saved: Path, tmp_path: Path) -> None:
    """The checkpoint of another run, with its own seal, is not believed, although the log has as many events."""
    with RunStore.create(tmp_path / "other", META) as store:
        fill(store)
        assert store.last() == 10
    execute(
        tmp_path / "other",
        f"ATTACH '{saved.as_posix()}/run.db' AS a",
        "INSERT INTO checkpoints SELECT * FROM a.checkpoints",
        "INSERT INTO seals SELECT * FROM a.seals WHERE what = 'checkpoint'",
    )
    with RunReader(tmp_path / "other") as reader:
        assert reader.checkpoint() is None
    assert [problem.what for problem in verify_run(tmp_path / "other")] == ["checkpoint"]


def test_a_checkpoint_is_saved_only_where_a_commit_ends(run: Path) -> None:
    """There is no seal of the log to chain it to anywhere else."""
    with RunStore.create(run, META) as store:
        fill(store)
        for last in (0, 3, 11):
            store.save_checkpoint(last, {})
            assert store.checkpoint() is None
        assert store.verify() == []


def test_a_run_of_an_earlier_version_gets_the_table_when_it_is_resumed(run: Path) -> None:
    """Without it the run is read as before; from the next start on it has checkpoints."""
    with RunStore.create(run, META) as store:
        log = fill(store)
    execute(run, "DROP TABLE checkpoints")
    connection = sqlite3.connect(run / "run.db", isolation_level=None)
    checksums.seal_head(connection)
    connection.close()
    with RunReader(run) as reader:
        assert (reader.checkpoint(), reader.events()) == (None, log)
    assert verify_run(run) == []
    with RunStore.open(run) as store:
        assert store.events() == log
        store.save_checkpoint(10, to_plain(unfolded(empty_view(META)).after(log)))
        assert store.checkpoint() is not None
    assert verify_run(run) == []


def test_single_rounds_are_found_by_the_index(run: Path) -> None:
    """A report, and the rounds that led to a state; a missing row is an error with the remedy."""
    with RunStore.create(run, META) as store:
        log = fill(store)
    with RunReader(run) as reader:
        reports = {event.state: event for event in log if isinstance(event, Reported)}
        assert reader.reports(reports) == reports
        openings = [event for event in log if isinstance(event, Born)][1], log[5].decision  # type: ignore[union-attr]
        path = reader.path_to(StateRef(1, 2))
        assert path == list(zip(openings, [reports[StateRef(1, 1)], reports[StateRef(1, 2)]], strict=True))
        for ref in (StateRef(0, 3), StateRef(9, 1)):
            with pytest.raises(CorruptError, match=f"member {ref.member}, round {ref.round}: .*pbt verify"):
                reader.path_to(ref)
    with sqlite3.connect(run / "run.db") as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT * FROM events WHERE member = 1 AND round = 2").fetchall()
    connection.close()
    assert "USING INDEX events_by_member" in plan[0][-1]


def test_a_commit_is_one_transaction(run: Path) -> None:
    """Twenty members' events and small states are one transaction, which waits for the disk once."""
    with RunStore.create(run, META) as store:
        store.commit([Born(member=i, hparams=HPARAMS) for i in range(20)])
        statements: list[str] = []
        store._connection.set_trace_callback(statements.append)
        for round_ in range(1, 8):
            reports = [report(store, member, round_, 500) for member in range(20)]
            events = [e for e, _ in reports] + [decide(i, round_ + 1, StateRef(i, round_)) for i in range(20)]
            store.commit(events, {ref: there for _, stored in reports for ref, there in stored.items()})
        assert [statement for statement in statements if statement.startswith("COMMIT")] == ["COMMIT"] * 7
        assert len([statement for statement in statements if statement.startswith("BEGIN")]) == 7
