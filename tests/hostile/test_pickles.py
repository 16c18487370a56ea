"""A run directory from a stranger: whatever lies in it, nothing of it is executed, followed or deleted."""

import contextlib
import io
import os
import pickle
import re
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pbt import Experiment, Float, Plan, Run, truncation
from pbt.cli.app import main
from pbt.errors import CorruptError, PBTError, RunFormatError
from pbt.store.reader import RunReader
from pbt.store.repair import repair_run
from pbt.store.sqlite import RunStore
from pbt.store.verify import verify_run


def walk(hparams, state, steps, ctx):
    """States large enough for files of their own."""
    return {"place": np.zeros(5000) + hparams["lr"]}, hparams["lr"]


experiment = Experiment(
    task=walk, space={"lr": Float(0.1, 1.0)}, plan=Plan(exploit=truncation(0.5), interval=1), population=2, rounds=2
)
TASK = f"{__file__}:experiment"


class Trap:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, sprung):
        self.sprung = sprung

    def __reduce__(self):
        return Path.touch, (self.sprung,)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "run"
    experiment.run(path)
    return path


@pytest.fixture
def run(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "run")


def use(path):
    """Everything that is done with a run that is there; errors are those that are documented."""
    for call in (
        lambda: verify_run(path),
        lambda: Run.open(path).load_state(),
        lambda: Run.open(path).history(),
        lambda: repair_run(path),
        lambda: RunStore.open(path).close(),
        lambda: main(["status", str(path)]),
        lambda: main(["resume", str(path), TASK, "--quiet", "--rounds", "3"]),
    ):
        with contextlib.suppress(PBTError, KeyError):
            call()


def blobs(sprung):
    trap = Trap(sprung)
    yield pickle.dumps(trap)
    yield pickle.dumps({"model": trap, "place": trap}, protocol=0)
    buffer = io.BytesIO()
    torch.save({"model": trap}, buffer)
    yield buffer.getvalue()


def test_the_trap_works(tmp_path) -> None:
    """What these tests place would do harm if it were loaded."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.long
def test_a_pickle_at_every_path_is_never_executed(run, kept, tmp_path) -> None:
    """In place of each file, and at names that other tools would load."""
    names = [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()]
    names += ["config.json", "args_train_0.json", "ckpts/latest_0.safetensors", "ckpts/best_0.pt", "best/state.pkl"]
    names += ["states/000009-000009.safetensors", "states/x.tmp", "mlflow.json", "results.csv", "history.csv"]
    assert "run.db" in names
    sprung = tmp_path / "sprung"
    for name in names:
        for blob in blobs(sprung):
            shutil.rmtree(run)
            shutil.copytree(kept, run)
            (run / name).parent.mkdir(exist_ok=True)
            (run / name).write_bytes(blob)
            use(run)
            assert not sprung.exists(), name


def test_a_pickle_in_every_column_is_never_executed(run, kept, tmp_path) -> None:
    """In place of each text and blob of the database."""
    sprung = tmp_path / "sprung"
    columns = {"meta": ["value"], "events": ["kind", "data"], "journal": ["data"], "states": ["digest", "blob"]}
    for table, names in columns.items():
        for name in names:
            for blob in blobs(sprung):
                shutil.rmtree(run)
                shutil.copytree(kept, run)
                with sqlite3.connect(run / "run.db") as connection:
                    connection.execute(f"UPDATE {table} SET {name} = ?", (blob,))
                connection.close()
                use(run)
                assert not sprung.exists(), (table, name)


@pytest.mark.parametrize("name", ["lock", "run.db", "states", "run.db-journal"])
def test_a_part_that_is_a_link_is_refused(run, name, tmp_path) -> None:
    """What it points to is neither read, nor written, nor swept."""
    outside = tmp_path / "outside"
    if name == "states":
        outside.mkdir()
        (outside / "mine.tmp").write_text("precious")
        shutil.rmtree(run / "states")
    else:
        outside.write_text("precious")
        (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside)
    for opened in (RunStore.open, RunReader, Run.open, repair_run):
        with pytest.raises(RunFormatError, match=r"link|expected a run directory"):
            opened(run)
    use(run)
    left = outside / "mine.tmp" if name == "states" else outside
    assert left.read_text() == "precious"


def test_the_directory_itself_may_be_a_link(run, tmp_path) -> None:
    """As `runs/latest` is."""
    (tmp_path / "latest").symlink_to(run)
    assert verify_run(tmp_path / "latest") == []
    RunStore.open(tmp_path / "latest").close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["link", "endless", "pipe", "folder", "hole"])
def test_a_state_that_is_no_plain_file_is_damage(run, kind, tmp_path) -> None:
    """Nobody waits for a pipe, follows a link, or reads without end."""
    path = run / "states" / "000000-000002.safetensors"
    content = path.read_bytes()
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    match kind:
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "endless":
            path.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "hole":
            with path.open("wb") as file:
                file.truncate(1 << 42)
    assert any("000000-000002" in problem.what for problem in verify_run(run) if not problem.harmless)
    state = next(s for s in (m.state for m in Run.open(run).view.members) if s == (0, 2))
    with pytest.raises(PBTError):
        Run.open(run).load_state(state)


@pytest.mark.timeout(60)
def test_a_lock_that_is_a_pipe_holds_nobody_up(run) -> None:
    """Readers ask whether somebody writes, and go on."""
    (run / "lock").unlink()
    os.mkfifo(run / "lock")
    with RunReader(run) as reader:
        assert not reader.is_writing()
    with pytest.raises(PBTError):
        RunStore.open(run)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
SCHEMES = {
    "a view without end": [
        "DROP TABLE events",
        f"CREATE VIEW events AS {ENDLESS} SELECT x AS id, 1 AS round, 1 AS member, 'born' AS kind, '' AS data FROM n",
    ],
    "meta without end": ["DROP TABLE meta", f"CREATE VIEW meta AS {ENDLESS} SELECT x AS key, x AS value FROM n"],
    "a trigger": ["CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM states; END"],
    "a generated column": [
        "DROP TABLE journal",
        "CREATE TABLE journal (id INTEGER PRIMARY KEY, kind TEXT, data TEXT AS (hex(zeroblob(100000000))), clock REAL)",
    ],
    "a table that is gone": ["DROP TABLE states"],
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_tables_that_are_not_ours_are_refused(run, scheme) -> None:
    """Our names are our tables before anything is asked of them."""
    with sqlite3.connect(run / "run.db") as connection:
        for statement in SCHEMES[scheme]:
            connection.execute(statement)
    connection.close()
    for opened in (RunStore.open, RunReader, Run.open):
        with pytest.raises(CorruptError, match="expected the tables of a run"):
            opened(run)
    assert verify_run(run)


@pytest.mark.timeout(120)
def test_a_row_beyond_all_measure_is_damage(run, monkeypatch) -> None:
    """Memory is taken for rows of a size that runs have."""
    monkeypatch.setattr("pbt.store.database.MOST_BYTES", 1 << 20)
    with sqlite3.connect(run / "run.db") as connection:
        connection.execute("UPDATE events SET data = hex(zeroblob(1000000)) WHERE id = 2")
    connection.close()
    with pytest.raises(CorruptError, match="rows of at most"):
        _ = Run.open(run).events
    assert verify_run(run)


def test_a_journal_that_names_another_file_is_refused(run, tmp_path) -> None:
    """SQLite would delete that file when it has rolled the journal back."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    page = 4096
    header = bytes.fromhex("d9d505f920a163d7") + (0).to_bytes(4, "big") * 2 + (1).to_bytes(4, "big")
    header += (512).to_bytes(4, "big") + page.to_bytes(4, "big")
    name = str(victim).encode()
    tail = (262145).to_bytes(4, "big") + name + len(name).to_bytes(4, "big")
    tail += sum(name).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    (run / "run.db-journal").write_bytes(header.ljust(512, b"\0") + tail)
    with pytest.raises(CorruptError, match="names another file"):
        RunStore.open(run)
    use(run)
    assert victim.read_text() == "precious"


def test_a_link_under_a_temporary_name_is_not_written_through(tmp_path) -> None:
    """A derived file takes the place of whatever has its temporary name."""
    from pbt.mnist.tables import write

    (tmp_path / "mine").write_text("precious")
    (tmp_path / ".history.csv.tmp").symlink_to(tmp_path / "mine")
    write(tmp_path / "history.csv", "a,b\n")
    assert (tmp_path / "mine").read_text() == "precious"
    assert (tmp_path / "history.csv").read_text() == "a,b\n"
    assert not (tmp_path / "history.csv").is_symlink()


@pytest.mark.parametrize("population", [1_000_001, 10_000_000])
def test_a_population_beyond_all_measure_is_refused(population, tmp_path, capsys) -> None:
    """With what it would take, and how to insist."""
    assert main(["run", TASK, f"--population={population}", "--out", str(tmp_path / "run"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "GiB of memory" in said
    assert "minutes per round" in said
    assert f"PBT_MAX_POPULATION={population}" in said
    assert not (tmp_path / "run").exists()


def test_a_population_may_be_insisted_on(monkeypatch) -> None:
    """The bound is a question, not an answer."""
    from pbt.runs.preflight import check_population

    check_population(1_000_000)
    monkeypatch.setenv("PBT_MAX_POPULATION", "10000000")
    check_population(10_000_000)


def test_no_module_here_can_load_a_pickle_from_a_file() -> None:
    """The only pickles: those sent to own workers, the original's checkpoints and Lightning's, with weights only."""
    source = Path(sys.modules["pbt"].__file__).parent
    words = ("pickle.load", "torch.load(", "joblib", "cloudpickle", "allow_pickle=True", "yaml.load", "eval(", "exec(")
    found = {
        f"{path.relative_to(source)}: {word}"
        for path in source.rglob("*.py")
        for word in words
        if word in path.read_text(encoding="utf-8").replace(".eval()", "").replace("def eval(", "")
    }
    loading = {"mnist/original.py: torch.load(", "tasks/lightning.py: torch.load("}
    assert {text for text in found if "executors/" not in text and "testing/" not in text} == loading
    for file in ("mnist/original.py", "tasks/lightning.py"):
        calls = re.findall(r"torch\.load\([^)]*\)", (source / file).read_text(encoding="utf-8"))
        assert calls
        assert all("weights_only=True" in call for call in calls)


def test_names_cannot_lead_out_of_the_folder() -> None:
    """A run's name is one folder; a state's name is made of two numbers."""
    from pbt.errors import UsageError
    from pbt.store.files import ref_of
    from pbt.store.layout import check_run_name

    for name in ("..", "../x", "/etc", "a/../b", "a\0b", "~", "."):
        with pytest.raises(UsageError):
            check_run_name(name)
    for name in (
        "../000001-000001.safetensors",
        "000001-../../1.safetensors",
        "-1--1.safetensors",
        "1-1.safetensors",
    ):
        assert ref_of(name) is None
