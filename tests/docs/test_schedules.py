"""What docs/schedules.md and docs/sql.md promise: every block of them is run."""

import re
import shlex
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

import pbt
from pbt.cli.app import main
from pbt.runs.results import Run
from tests.helpers.paths import DOCS

SCHEDULES, SQL = ((DOCS / name).read_text(encoding="utf-8") for name in ("schedules.md", "sql.md"))
TASK = (DOCS.parent / "examples" / "quadrants.py").read_text()


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def lines(page: str) -> list[list[str]]:
    """The commands of a page, as words, without comments."""
    return [shlex.split(line, comments=True) for block in blocks(page, "") for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task and its run."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "task.py").write_text(TASK.replace("population=8, rounds=10", "population=5, rounds=4"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "task.py:experiment", "--out", "runs/one", "--threads", "1", "-q"]) == 0
    return folder


def test_the_page_of_schedules(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the page ends well, in its order, and every Python block runs on what they wrote."""
    monkeypatch.chdir(place)
    told = lines(SCHEDULES)
    assert {words[1] for words in told} == {"schedule", "replay", "export"}
    for words in told:
        capsys.readouterr()
        command, target = (words[: words.index(">")], words[-1]) if ">" in words else (words, None)
        assert main(command[1:]) == 0, command
        if target is not None:
            Path(target).write_text(capsys.readouterr().out)
    for words in (["lineage", "runs/one"], ["lineage", "runs/one", "2"]):
        assert main(words) == 0
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(blocks(SCHEDULES, "python")):
        exec(compile(block, f"schedules.md, block {number}", "exec"), names)
    assert names["schedule"] == Run.open("runs/one").best_schedule
    assert names["rest"] == {}


def test_the_same_seed_gives_the_same_bits_as_promised(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's replay says that the weights are the same, and the one with another seed that they are not."""
    monkeypatch.chdir(place)
    first, second = (words for words in lines(SCHEDULES) if words[1] == "replay")
    assert main([*first[1:], "--no-progress"]) == 0
    assert "identical, bit by bit, after each of" in capsys.readouterr().out
    assert main([*second[1:], "--no-progress"]) == 0
    assert "Another seed" in capsys.readouterr().out


def test_the_python_of_the_text_is_there() -> None:
    """The names that the page gives in passing are public."""
    for name in ("replay", "follow", "never", "Plan", "read_schedule"):
        assert name in SCHEDULES
        assert hasattr(pbt, name)


def test_the_queries(place: Path) -> None:
    """Each query of the page runs on a run and gives rows; the columns of the views are those of the table."""
    queries = blocks(SQL, "sql")
    assert len(queries) == 3
    with closing(sqlite3.connect((place / "runs/one/run.db").as_uri() + "?mode=ro", uri=True)) as connection:
        found = [connection.execute(query).fetchall() for query in queries]
        for view, columns in re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", SQL, re.MULTILINE):
            there = [row[0] for row in connection.execute(f"SELECT * FROM {view}").description]
            named = re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", columns)))
            assert named == [name for name in there if name != "lr"], view
    assert all(found)
    run = Run.open(place / "runs/one")
    copies = [event.decision for event in run.events if event.kind == "decided" and event.decision.kind == "exploit"]
    assert sum(row[1] for row in found[0]) == len(copies)
    assert found[1][-1][3] == run.best.score
    assert len(found[2]) == len([ref for ref in run.tree.reports if run.tree.decisions.get(ref) in copies])


@pytest.mark.needs("sqlite3")
def test_the_sqlite_command(place: Path) -> None:
    """The page's `sqlite3` line prints the schedule."""
    (words,) = (words for words in lines(SQL) if words[0] == "sqlite3")
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2 + len(Run.open(place / "runs/one").lineage())


@pytest.mark.needs("polars")
def test_the_duckdb_query(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where DuckDB and a writer of Parquet are installed, the page's query on an exported history gives all members."""
    import duckdb

    monkeypatch.chdir(place)
    export, query = (words for words in lines(SQL) if words[0] in {"pbt", "duckdb"})
    assert main(export[1:]) == 0
    assert len(duckdb.sql(query[-1]).fetchall()) == 5
