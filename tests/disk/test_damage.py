"""Bytes that change under a run: found, named, and gone back from."""

import random
import shutil
import sqlite3

import pytest

from pbt import Run
from pbt.cli.app import main
from pbt.errors import CorruptError, PBTError
from pbt.store.reader import RunReader
from pbt.store.repair import repair_run
from pbt.store.sqlite import RunStore
from pbt.store.verify import verify_run
from tests.disk import walk_experiment
from tests.disk.damaged_runs import ROWS, digests, rows, told
from tests.disk.walk_experiment import experiment

TASK = f"{walk_experiment.__file__}:experiment"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "run"
    experiment.run(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(kept):
    return told(kept)


@pytest.fixture
def run(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "run")


def observable(path):
    """Everything that anybody gets to see of a run."""
    with RunReader(path) as reader:
        states = {ref: repr(reader.load_state(ref)["place"].tobytes()) for ref in reader.refs()}
        return reader.meta, reader.events(), reader.rows(), reader.journal(), reader.refs(), states


def findings(path):
    """What `pbt verify` says is wrong; a database that is not even one is named by its error."""
    try:
        return [f"{p.what}: {p.message}" for p in verify_run(path) if not p.harmless]
    except PBTError as error:
        return [str(error)]


def check_found(path, name, content, whole, before):
    """The change is found, under a name that leads to it, or nobody can see it."""
    (path / name).write_bytes(content)
    found = findings(path)
    if not found:
        assert observable(path) == before
    elif name != "run.db":
        assert any(name.rpartition("/")[2] in text for text in found)
    (path / name).write_bytes(whole)
    return bool(found)


def flips(path, name, places, before):
    """How many of the bytes at these places can be changed without anybody seeing it."""
    whole = (path / name).read_bytes()
    unseen = 0
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << random.Random(place).randrange(8)
        unseen += not check_found(path, name, bytes(changed), whole, before)
    return unseen


def some(count, most, salt):
    return sorted(random.Random(salt).sample(range(count), min(count, most)))


def test_a_changed_byte_of_a_state_is_found(run) -> None:
    """In the header, the padding and the numbers of a file."""
    name = "states/000000-000003.safetensors"
    size = (run / name).stat().st_size
    places = [*range(0, 400, 23), *some(size, 25, 1), size - 1]
    assert flips(run, name, places, observable(run)) <= 2  # a space for another


def test_a_changed_byte_of_the_database_is_found_or_means_nothing(run) -> None:
    """Everywhere in the file: header, tables, index, free space."""
    size = (run / "run.db").stat().st_size
    flips(run, "run.db", [*range(0, 100, 7), *some(size, 60, 2)], observable(run))


@pytest.mark.parametrize("place", [18, 19])
def test_a_header_that_asks_for_another_journal_is_found(run, place) -> None:
    """With it a reader would leave files behind."""
    content = bytearray((run / "run.db").read_bytes())
    content[place] = 2
    (run / "run.db").write_bytes(content)
    assert any("rollback journal" in text for text in findings(run))
    assert sorted(path.name for path in run.iterdir()) == ["lock", "run.db", "states"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["run.db", "states/000000-000003.safetensors"])
def test_every_third_byte(run, name) -> None:
    """The same at every third place."""
    flips(run, name, range(0, (run / name).stat().st_size, 3), observable(run))


TEXTS = {
    "an event": ("events", "data"), "its time": ("events", "clock"), "its kind": ("events", "kind"),
    "its round": ("events", "round"), "its member": ("events", "member"), "a note": ("journal", "data"),
    "the kind of a note": ("journal", "kind"), "meta": ("meta", "value"), "a digest": ("states", "digest"),
    "a size": ("states", "size"), "a small state": ("states", "blob"), "a seal": ("seals", "digest"),
}  # fmt: skip


@pytest.mark.parametrize("what", TEXTS)
def test_a_changed_value_is_found(run, what) -> None:
    """SQLite takes any value for good: the seals and the hashes do not."""
    table, column = TEXTS[what]
    with sqlite3.connect(run / "run.db") as connection:
        there = f"{column} IS NOT NULL AND {column} != ''"  # a note that is written alone has an empty seal
        values = [v for (v,) in connection.execute(f"SELECT {column} FROM {table} WHERE {there}")]
        value = values[len(values) // 2]
        if isinstance(value, str):
            place = len(value) // 2
            other = value[:place] + ("1" if value[place] != "1" else "2") + value[place + 1 :]
        else:
            other = bytes([*value[:-1], value[-1] ^ 1]) if isinstance(value, bytes) else value + 1
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (other, value))
    connection.close()
    assert findings(run)


@pytest.mark.parametrize("table", ["events", "journal", "states", "seals", "meta"])
@pytest.mark.parametrize("which", ["min", "max"])
def test_a_row_that_is_gone_is_found(run, table, which) -> None:
    """The first or the last of any table."""
    key = {"events": "id", "journal": "id", "states": "rowid", "seals": "last", "meta": "key"}[table]
    with sqlite3.connect(run / "run.db") as connection:
        connection.execute(f"DELETE FROM {table} WHERE {key} = (SELECT {which}({key}) FROM {table})")
    connection.close()
    assert findings(run)


def test_a_changed_view_is_found(run) -> None:
    """What people ask in SQL answers what it always did."""
    with sqlite3.connect(run / "run.db") as connection:
        connection.execute("DROP VIEW history")
        connection.execute("CREATE VIEW history AS SELECT 1 AS score")
    connection.close()
    assert any("meta" in text for text in findings(run))


@pytest.mark.parametrize("share", [0, 1, 100, 4096, 0.3, 0.9, -1])
@pytest.mark.parametrize("name", ["run.db", "states/000000-000003.safetensors"])
def test_a_cut_file_is_found(run, name, share) -> None:
    """Cut to nothing, in its first bytes, in the middle, or by a single byte."""
    whole = (run / name).read_bytes()
    size = int(share * len(whole)) if isinstance(share, float) else share % len(whole)
    (run / name).write_bytes(whole[:size])
    assert findings(run)


def test_a_cut_off_zero_is_found(run) -> None:
    """SQLite reads zeros behind the end of a file: its own check sees no difference."""
    edit(run, "CREATE TABLE room AS SELECT zeroblob(20000) AS zeros")
    edit(run, "DROP TABLE room")
    assert not findings(run)
    whole = (run / "run.db").read_bytes()
    assert whole.endswith(bytes(100))
    (run / "run.db").write_bytes(whole[:-1])
    assert findings(run) == [f"run.db: expected {len(whole):,} bytes, found {len(whole) - 1:,}"]


def test_a_writer_does_not_go_on_with_a_damaged_log(run) -> None:
    """Neither with other events nor with other meta values; the error says how to go back."""
    edit(run, "UPDATE events SET data = replace(data, '\"step\":4', '\"step\":5')")
    with RunStore.open(run) as store, pytest.raises(CorruptError, match="pbt resume --repair"):
        store.events()
    edit(run, "UPDATE meta SET value = '8' WHERE key = 'seed'")
    with pytest.raises(CorruptError, match="meta values"):
        RunStore.open(run)


def edit(path, statement):
    with sqlite3.connect(path / "run.db") as connection:
        connection.execute(statement)
    connection.close()


def resumed(path):
    return main(["resume", str(path), TASK, "--quiet", "--repair"])


def test_a_sound_run_is_not_repaired(run, capsys) -> None:
    """Nothing is changed, and it says so."""
    before = (run / "run.db").read_bytes()
    assert repair_run(run) is None
    assert (run / "run.db").read_bytes() == before
    assert resumed(run) == 0
    assert "intact, nothing to repair" in capsys.readouterr().err


def test_the_last_round_is_gone_back_from(run, undisturbed, capsys) -> None:
    """Where its events are damaged the round before is the newest whole one."""
    last = max(row[0] for row in rows(run))
    edit(run, f"UPDATE events SET data = '{{}}' WHERE id = {last}")
    damaged = (run / "run.db").read_bytes()
    assert resumed(run) == 0
    said = capsys.readouterr().err
    assert "resumes after round 2" in said
    assert "dropped 5 events" in said
    assert (run / "run.db.damaged-1").read_bytes() == damaged
    assert told(run) == undisturbed
    assert verify_run(run) == []


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_state_is_gone_back_from(run, how, undisturbed, capsys) -> None:
    """A run goes back to the newest round whose states are all whole, and comes to the same end."""
    path = run / "states" / "000000-000003.safetensors"
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if how == "flipped" else whole[:-1])
    assert findings(run)
    assert resumed(run) == 0
    said = capsys.readouterr().err
    assert "resumes after round 2" in said
    assert "rounds 3 of members 0 to 3" in said
    assert told(run) == undisturbed
    assert verify_run(run) == []


def test_a_state_that_nothing_needs_costs_nothing(run, undisturbed, capsys) -> None:
    """It is dropped and named; every event stays."""
    needed = {m.state for m in Run.open(run).view.members} | {Run.open(run).best.state}
    free = sorted(ref for ref in digests(run) if ref not in needed and ref.member % 2 == 0)
    name = f"{free[0].member:06d}-{free[0].round:06d}.safetensors"
    (run / "states" / name).write_bytes(b"nothing")
    assert resumed(run) == 0
    said = capsys.readouterr().err
    assert f"1 states were damaged or missing: {name}" in said
    assert "dropped" not in said
    assert rows(run) == undisturbed[0]
    assert verify_run(run) == []


def test_an_index_that_is_damaged_costs_nothing(run, undisturbed) -> None:
    """What can be made again is made again."""
    connection = sqlite3.connect(run / "run.db")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events_by_member'").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    content = bytearray((run / "run.db").read_bytes())
    content[page * size - 40 : page * size] = bytes(40)
    (run / "run.db").write_bytes(content)
    assert findings(run)
    assert resumed(run) == 0
    assert told(run) == undisturbed


def test_where_nothing_whole_is_left_there_is_one_error(run, capsys) -> None:
    """No round with all its states, or no meta values: everything stays as it was."""
    for path in (run / "states").iterdir():
        path.write_bytes(b"nothing")
    before = (run / "run.db").read_bytes()
    assert resumed(run) == 2
    assert "no intact round is left" in capsys.readouterr().err
    edit(run, "UPDATE meta SET value = '8' WHERE key = 'seed'")
    assert resumed(run) == 2
    assert "meta values are damaged" in capsys.readouterr().err
    assert not (run / "run.db.damaged-1").exists()
    assert not (run / "run.db.tmp").exists()
    assert len((run / "run.db").read_bytes()) == len(before)


def test_a_run_of_an_earlier_version_opens_and_gets_its_seals(run, undisturbed) -> None:
    """Without seals nothing is missing but the check; from the next start on they are there."""
    edit(run, "DROP TABLE seals")
    assert told(run) == undisturbed
    (problem,) = verify_run(run)
    assert (problem.harmless, "earlier version" in problem.message) == (True, True)
    RunStore.open(run).close()
    assert verify_run(run) == []
    edit(run, "UPDATE events SET clock = clock + 1 WHERE id = 3")
    assert findings(run)


def test_a_repair_that_is_interrupted_changes_nothing(run, undisturbed, monkeypatch) -> None:
    """Killed before the new database has its name, the run is the damaged one; after, the repaired one."""
    last = max(row[0] for row in rows(run))
    edit(run, f"UPDATE events SET data = '{{}}' WHERE id = {last}")
    damaged = (run / "run.db").read_bytes()
    monkeypatch.setattr("pbt.store.repair._write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(PBTError, match="No space left"):
        repair_run(run)
    assert (run / "run.db").read_bytes() == damaged
    assert sorted(path.name for path in run.iterdir()) == ["lock", "run.db", "states"]
    monkeypatch.undo()
    assert resumed(run) == 0
    assert told(run) == undisturbed


def test_rows_are_what_the_tests_compare() -> None:
    """The clock is the only column that two equal runs differ in."""
    assert "clock" not in ROWS
