"""Room: looked for before it is needed, bounded where it is asked for, and a disk that is really full."""

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from pbt import Run
from pbt.cli.app import main
from pbt.errors import DiskError, UsageError
from pbt.runs import disk_space as disk
from pbt.runs.disk_space import Disk, bytes_of, size_of, sized
from pbt.store.verify import verify_run
from tests.disk.damaged_runs import told
from tests.disk.walk_experiment import SIZE, experiment, folders
from tests.helpers.sampled import sampled

TASK = f"{Path(__file__).with_name('walk_experiment.py')}:experiment"
FOLDERS = TASK.replace(":experiment", ":folders")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    experiment.run(path)
    return told(path)


@pytest.mark.parametrize(
    ("text", "count"), [("2G", 2 << 30), ("1.5 MiB", 3 << 19), ("4096", 4096), ("7k", 7168), ("1TB", 1 << 40)]
)
def test_a_size_is_read_as_people_write_it(text, count) -> None:
    """Units are powers of 1024, in any spelling."""
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "0", "G", "-1G", "1e9", "2 parsecs", "nan", "9" * 40])
def test_what_is_no_size_is_refused(text) -> None:
    """The error says what a size looks like."""
    with pytest.raises(UsageError, match="--max-disk"):
        bytes_of(text)


def test_sizes_are_told_for_people() -> None:
    """Three digits and a unit."""
    assert [sized(n) for n in (0, 1023, 1536, 5 << 30)] == ["0 B", "1.02e+03 B", "1.5 KiB", "5 GiB"]


def test_a_file_with_two_names_takes_its_room_once(tmp_path) -> None:
    """What a folder takes is what its disk would get back."""
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(bytes(8192))
    (tmp_path / "in" / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert 8192 <= size_of(tmp_path) < 2 * 8192


def test_a_run_stops_before_its_bound_and_goes_on_with_a_larger_one(tmp_path, undisturbed, capsys) -> None:
    """Never beyond --max-disk, stopped between two rounds, and after all the run that nobody stopped."""
    path = tmp_path / "run"
    bound = 600 * 1024
    assert main(["run", TASK, "--out", str(path), "--quiet", f"--max-disk={bound}"]) == 75
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert str(path) in said
    assert "--max-disk" in said
    assert "everything is kept" in said
    assert size_of(path) <= bound
    assert verify_run(path) == []
    assert 0 < len(told(path)[1]) < len(undisturbed[1]) or told(path)[0] != undisturbed[0]
    assert main(["resume", str(path), TASK, "--quiet", f"--max-disk={bound}"]) == 75
    assert main(["resume", str(path), TASK, "--quiet", "--max-disk=1G"]) == 0
    assert told(path) == undisturbed


def test_files_of_folders_count_once(tmp_path, capsys) -> None:
    """A file that all states share is in the run once, and so in the estimate; the bound holds with working copies."""
    folders.run(tmp_path / "whole")
    path, bound = tmp_path / "run", 900 * 1024
    assert main(["run", FOLDERS, "--out", str(path), "--quiet", f"--max-disk={bound}"]) == 75
    assert "--max-disk" in capsys.readouterr().err
    assert size_of(path) <= bound
    assert verify_run(path) == []
    assert 0 < Run.open(path).view.round < 3
    assert main(["resume", str(path), FOLDERS, "--quiet", "--max-disk=1G"]) == 0
    assert told(path) == told(tmp_path / "whole")
    # Eight copies of the shared file and the estimate of their round would exceed this bound.
    assert main(["run", FOLDERS, "--out", str(tmp_path / "enough"), "--quiet", "--max-disk=1500k"]) == 0


def test_a_bound_below_one_round_is_met_with_its_first_state(tmp_path) -> None:
    """The first report says what a wave takes; nothing of the wave is kept, and nothing is in the way."""
    path = tmp_path / "run"
    with pytest.raises(DiskError, match="--max-disk"):
        experiment.run(path, observers=[Disk(most=400 * 1024)])
    assert size_of(path) <= 400 * 1024
    experiment.run(path, resume=True)
    assert verify_run(path) == []


def test_a_disk_without_room_is_told_before_the_start(tmp_path, monkeypatch) -> None:
    """Too little for the log alone: nothing is trained."""
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(1 << 30, 1 << 30, 10_000))
    with pytest.raises(DiskError, match=r"expected room for the next round.*9\.77 KiB free.*resume"):
        experiment.run(tmp_path / "run")
    assert not list((tmp_path / "run" / "states").iterdir())


def test_a_disk_that_will_be_full_is_warned_of_once(tmp_path, monkeypatch, caplog) -> None:
    """Known with the first state: room for a round, but not for the run."""
    need = disk.SLACK + 4 * 8 * SIZE + 50_000
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(1 << 40, 0, need))
    experiment.run(tmp_path / "run")
    assert [record.message for record in caplog.records if "will need" in record.message]
    assert len(caplog.records) == 1


MOUNTED = """
set -e
mount -t tmpfs -o size=$5 none "$1"
exit_code=0
"$2" -c "from pbt.cli.app import main; raise SystemExit(main())" run "$3" --out "$1/run" --quiet || exit_code=$?
echo "first $exit_code" >&2
ls "$1/run/states" >&2
mount -o remount,size=64m "$1"
"$2" -c "from pbt.cli.app import main; raise SystemExit(main())" resume "$1/run" "$3" --quiet
cp -r "$1/run" "$4"
"""


@pytest.mark.long
@pytest.mark.parametrize("of", ["states", "folders"])
@pytest.mark.parametrize("is_seen", sampled([True, False], (False,)))
def test_a_disk_that_is_really_full(is_seen, of, tmp_path, undisturbed) -> None:
    """A file system of some hundred KB: stopped before it is full or, where nobody looks, by the system."""
    (tmp_path / "disk").mkdir()
    task = FOLDERS if of == "folders" else TASK
    if of == "folders":
        folders.run(tmp_path / "whole")
        undisturbed = told(tmp_path / "whole")
    if not is_seen:
        blind = tmp_path / "blind.py"
        blind.write_text(
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import pbt.runs.disk_space as space; space.Disk._check = lambda *_, **__: None\n"
            "from walk_experiment import experiment, folders\n"
        )
        task = f"{blind}:{task.rpartition(':')[2]}"
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", MOUNTED, "-", tmp_path / "disk", sys.executable, task, tmp_path / "copy",
         {"states": ("300k", "480k"), "folders": ("500k", "900k")}[of][is_seen]],
        capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    if done.returncode and ("unshare" in done.stderr or "mount:" in done.stderr):
        pytest.skip("needs the right to mount")
    assert done.returncode == 0, done.stderr
    assert "first 75" in done.stderr
    assert "Traceback" not in done.stderr
    assert ".tmp" not in done.stderr
    assert told(tmp_path / "copy") == undisturbed
    assert verify_run(tmp_path / "copy") == []
