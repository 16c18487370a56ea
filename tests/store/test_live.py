"""Live points: written whole, read bounded, and never the reason why a reader or a round fails."""

import json
import math
import os
from pathlib import Path

import pytest

from pbt.errors import RunFormatError
from pbt.store.layout import LIVE
from pbt.store.live import HEAD, LARGEST, LiveFile, live_stamp, read_live, read_newest
from pbt.store.points import KEPT, NAMES
from pbt.store.reader import RunReader
from pbt.store.sqlite import RunStore

POINTS = {"loss": ((1, 0.5), (4, 0.25)), "acc": ((3, math.nan),)}
GOOD = '{"member":1,"round":2,"step":4,"values":{"loss":0.25}}\n{"loss":{"step":[1,4],"value":[0.5,0.25]}}\n'


def test_written_points_are_read(tmp_path: Path) -> None:
    """The newest numbers, and all points; members without a file are left out."""
    LiveFile(tmp_path / LIVE, 7, 2).write(POINTS)
    LiveFile(tmp_path / LIVE, 3, 1).write({"loss": ((9, 1.0),)})
    newest = read_newest(tmp_path, [7, 8])
    assert list(newest) == [7]
    assert (newest[7].round, newest[7].step, newest[7].values["loss"]) == (2, 4, 0.25)
    assert math.isnan(newest[7].values["acc"])
    three, seven = read_live(tmp_path)
    assert (three.member, three.round, three.points) == (3, 1, {"loss": ((9, 1.0),)})
    assert (seven.member, seven.round, seven.points["loss"]) == (7, 2, POINTS["loss"])
    assert sorted(path.name for path in (tmp_path / LIVE).iterdir()) == ["3.json", "7.json"]


def test_the_largest_file_can_be_read(tmp_path: Path) -> None:
    """As many names and points as a round may have, all as long as possible, are below the readers' bounds."""
    value = -1.2345678901234567e-300
    points = {f"{i:_<64}": tuple((2**62 + step, value) for step in range(KEPT)) for i in range(100, 100 + NAMES)}
    points = {f"n{name[1:]}": series for name, series in points.items()}
    live = LiveFile(tmp_path / LIVE, 2**62, 2**62)
    live.write(points)
    assert live.path.stat().st_size < LARGEST
    assert live.path.read_bytes().index(b"\n") < HEAD
    (found,) = read_live(tmp_path)
    assert found.points == points


@pytest.mark.parametrize("write", [lambda live: live.write(POINTS), lambda live: live.remove()])
def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, write: object) -> None:
    """The file is derived: a round goes on without it."""
    (tmp_path / "file").write_text("")
    write(LiveFile(tmp_path / "file" / LIVE, 1, 1))  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null\nnull\n",
        "[]\n[]\n",
        "[" * 100_000 + "\n",
        GOOD.replace('"member":1', '"member":"1"'),
        GOOD.replace('"member":1', '"member":2'),
        GOOD.replace('"round":2', '"round":true'),
        GOOD.replace('"step":4', '"step":-4'),
        GOOD.replace('"values":{"loss":0.25}', '"values":[]'),
        GOOD.replace('"step":4', f'"step":{"9" * 5000}'),
        GOOD.replace("0.25]", "0.25"),
        GOOD.replace("\n", "\r", 1),
        " " * HEAD + GOOD,
        GOOD + " " * LARGEST,
        "\udcff" + GOOD,
    ],
)
def test_bad_files_are_left_out(tmp_path: Path, text: str) -> None:
    """Bad JSON, other values, huge lines and files: the other files are read."""
    LiveFile(tmp_path / LIVE, 0, 1).write(POINTS)
    (tmp_path / LIVE / "1.json").write_text(text, errors="surrogateescape")
    assert [found.member for found in read_live(tmp_path)] == [0]
    assert set(read_newest(tmp_path, [0, 1])) <= {0, 1}


def test_links_and_pipes_are_left_out(tmp_path: Path) -> None:
    """No link is followed and no pipe waited for."""
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(GOOD)
    folder = tmp_path / "run" / LIVE
    folder.mkdir(parents=True)
    (folder / "1.json").symlink_to(elsewhere)
    os.mkfifo(folder / "2.json")
    (folder / "3.json").mkdir()
    assert read_live(tmp_path / "run") == []
    assert read_newest(tmp_path / "run", [1, 2, 3]) == {}


def test_a_linked_folder_is_not_read(tmp_path: Path) -> None:
    """Neither by readers of points nor by those of the run, which refuse it by name."""
    LiveFile(tmp_path / "elsewhere", 1, 1).write(POINTS)
    RunStore.create(tmp_path / "run", {}).close()
    (tmp_path / "run" / LIVE).symlink_to(tmp_path / "elsewhere")
    assert read_live(tmp_path / "run") == []
    assert read_newest(tmp_path / "run", [1]) == {}
    with pytest.raises(RunFormatError, match=LIVE):
        RunReader(tmp_path / "run")


def test_a_folder_of_countless_files_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of files and of bytes is the most that is read at a time."""
    for member in range(30):
        LiveFile(tmp_path / LIVE, member, 1).write(POINTS)
    assert len(read_live(tmp_path)) == 30
    monkeypatch.setattr("pbt.store.live.TOTAL", 5 * (tmp_path / LIVE / "10.json").stat().st_size + 50)
    assert len(read_live(tmp_path)) == 5
    monkeypatch.setattr("pbt.store.live.FILES", 3)
    assert len(read_live(tmp_path)) <= 3


def test_every_write_changes_the_stamp(tmp_path: Path) -> None:
    """A reader sees from the folder alone that there are new points; without a folder the stamp is 0."""
    assert live_stamp(tmp_path) == 0
    live = LiveFile(tmp_path / LIVE, 1, 1)
    live.write(POINTS)
    os.utime(tmp_path / LIVE, ns=(1, 1))
    live.write(POINTS)
    assert live_stamp(tmp_path) > 1


def test_live_points_end_with_the_writer(tmp_path: Path) -> None:
    """They are removed when a run is closed, and after a kill when it is opened; a reader leaves them."""
    store = RunStore.create(tmp_path / "run", {})
    folder = store.states.live
    assert folder == tmp_path / "run" / LIVE
    LiveFile(folder, 1, 1).write(POINTS)
    RunReader(tmp_path / "run").close()
    assert folder.is_dir()
    store.close()
    assert not folder.exists()
    LiveFile(folder, 1, 1).write(POINTS)
    RunStore.open(tmp_path / "run").close()
    assert not folder.exists()


def test_a_value_is_strict_json(tmp_path: Path) -> None:
    """NaN and infinities are written as in the log, for readers in other languages."""
    LiveFile(tmp_path / LIVE, 1, 1).write({"loss": ((1, math.nan), (2, -math.inf))})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for line in (tmp_path / LIVE / "1.json").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
