"""A database whose pages are used repeatedly has rows without end: every reader ends with one line."""

import shutil
import sqlite3
import struct
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

import pbt
from pbt.cli.app import main
from pbt.errors import CorruptError
from pbt.runs.catalog import list_runs
from pbt.runs.results import Run
from pbt.store.bounded import BoundedConnection
from pbt.store.database import connect, plain_errors
from pbt.store.reader import RunReader

INTERIOR, LEAF = 5, 13
SPACE = {"lr": pbt.Float(1e-3, 1e-1, "log")}


def train(hparams, state, steps, ctx):
    return {"x": hparams["lr"]}, hparams["lr"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with enough rows for several pages per table."""
    path = tmp_path_factory.mktemp("runs") / "run"
    pbt.run(train, SPACE, population=6, rounds=30, run_dir=path)
    return path


def pages_shared(source: Path, target: Path, table: str, depth: int) -> Path:
    """A copy of a run in which every entry of the upper pages of a table leads to the same page below."""
    shutil.copytree(source, target)
    database = target / "run.db"
    with closing(sqlite3.connect(database)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(database.read_bytes())

    def page(number: int) -> bytes:
        return bytes(content[(number - 1) * size : number * size])

    def interior(child: int) -> bytes:
        count, made = 500, bytearray(size)
        start = size - 5 * count
        struct.pack_into(">BHHHBI", made, 0, INTERIOR, 0, count, start, 0, child)
        for i in range(count):
            struct.pack_into(">H", made, 12 + 2 * i, start + 5 * i)
            struct.pack_into(">IB", made, start + 5 * i, child, 100)
        return bytes(made)

    leaf = root
    while page(leaf)[0] == INTERIOR:
        (first,) = struct.unpack_from(">H", page(leaf), 12)
        (leaf,) = struct.unpack_from(">I", page(leaf), first)
    assert page(leaf)[0] == LEAF
    content += page(leaf)
    child = len(content) // size
    for _ in range(depth - 1):
        content += interior(child)
        child = len(content) // size
    content[(root - 1) * size : root * size] = interior(child)
    struct.pack_into(">I", content, 28, len(content) // size)
    content[92:96] = content[24:28]
    database.write_bytes(content)
    return target


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("table", ["events", "journal", "states"])
def test_every_command_ends(
    run: Path, tmp_path: Path, table: str, depth: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command says in one line that the run is damaged, or does not need the table."""
    bad = pages_shared(run, tmp_path / "bad", table, depth)
    words = {"export": [str(tmp_path / "out.csv")], "report": ["--out", str(tmp_path / "report.html")]}
    damaged = 0
    for command in ("status", "lineage", "schedule", "export", "report", "verify"):
        code = main([command, str(bad), *words.get(command, [])])
        lines = capsys.readouterr().err.splitlines()
        assert code in (0, 1, 2)
        assert (code == 0) == (lines == []) or command == "verify"
        assert not [line for line in lines if "Traceback" in line]
        damaged += code != 0
    assert damaged >= 1


@pytest.mark.parametrize("table", ["events", "journal"])
def test_the_others_are_listed(run: Path, tmp_path: Path, table: str) -> None:
    """`pbt ls` and the dashboard's list show the damaged run as unreadable, or from its checkpoint, and the others."""
    shutil.copytree(run, tmp_path / "good")
    pages_shared(run, tmp_path / "bad", table, 4)
    bad, good = sorted(list_runs(tmp_path), key=lambda entry: entry.path.name)
    assert (good.state, good.rounds_done) == ("finished", 30)
    assert bad.state in ("unreadable", "finished")
    if bad.problem:
        assert "expected rows that fit into the file" in bad.problem or "damaged" in bad.problem


def test_long_rows_on_shared_pages_take_no_memory(run: Path, tmp_path: Path) -> None:
    """A row whose data continue on other pages is read again and again, up to the size of the file and no further."""
    shutil.copytree(run, tmp_path / "long")
    with closing(sqlite3.connect(tmp_path / "long" / "run.db")) as connection:
        connection.execute("UPDATE events SET data = ? WHERE id = 3", ("y" * 60_000,))
        connection.execute("UPDATE events SET data = ? WHERE id = 4", ("z" * 60_000,))
        connection.commit()
    bad = pages_shared(tmp_path / "long", tmp_path / "bad", "events", 3)
    size = (bad / "run.db").stat().st_size
    tracemalloc.start()
    try:
        with RunReader(bad) as reader, pytest.raises(CorruptError, match="expected rows that fit into the file"):
            reader.everything()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * size


def test_the_message_names_the_database(run: Path, tmp_path: Path) -> None:
    """It says what was expected, and where."""
    bad = pages_shared(run, tmp_path / "bad", "events", 3)
    with pytest.raises(CorruptError, match=r"bad/run\.db: expected rows that fit into the file, found more"):
        _ = Run.open(bad).events
    with pytest.raises(CorruptError, match="expected rows that fit into the file"):
        RunReader(bad).everything()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT max(data) FROM events",
        "SELECT id FROM events NOT INDEXED WHERE data = ''",
    ],
)
def test_queries_without_rows_end_too(run: Path, tmp_path: Path, query: str) -> None:
    """A maximum, or a search that finds nothing, is interrupted after a multiple of what the file holds."""
    bad = pages_shared(run, tmp_path / "bad", "events", 5)
    with (
        closing(connect(bad / "run.db", "ro", 1.0)) as connection,
        pytest.raises(CorruptError, match="expected rows that fit into the file"),
        plain_errors(bad / "run.db"),
    ):
        connection.execute(query).fetchall()


def test_a_sound_database_is_read_as_before(run: Path) -> None:
    """Rows come by every way of fetching, and writing many rows is not interrupted."""
    with closing(connect(run / "run.db", "ro", 1.0)) as connection:
        assert isinstance(connection, BoundedConnection)
        query = "SELECT id, data FROM events ORDER BY id"
        rows = connection.execute(query).fetchall()
        assert rows == list(connection.execute(query)) == connection.execute(query).fetchmany(10_000)
        assert connection.execute(query).fetchone() == rows[0]
        assert connection.size() == (run / "run.db").stat().st_size
    with closing(sqlite3.connect(":memory:", factory=BoundedConnection)) as connection:
        connection.bound(run / "run.db")
        connection.execute("CREATE TABLE t (a, b)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ((i, "x" * 10) for i in range(300_000)))
        assert len(connection.execute("SELECT a, b FROM t").fetchall()) == 300_000
