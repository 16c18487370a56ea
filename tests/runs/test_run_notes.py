"""Notes and tags of a run: a file beside its log, written by `pbt note` and shown wherever runs are."""

import json
from pathlib import Path

import pytest

import pbt
from pbt.cli.app import main
from pbt.report import write_report
from pbt.runs.run_notes import NOTES, Note, read_note, write_note
from pbt.store.verify import verify_run
from tests.dashboard.climbs import CLIMB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run."""
    found = tmp_path_factory.mktemp("noted")
    pbt.run(**CLIMB | {"rounds": 1}, run_dir=found / "one")
    return found


def test_a_note_lies_beside_the_log(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes a note and tags, changes and shows them; the run itself stays as it is, and is intact."""
    run = folder / "one"
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert main(["note", str(run), "diverges above 0.1", "--tag", "base", "--tag", "old"]) == 0
    assert main(["note", str(run), "--tag", "new", "--untag", "old"]) == 0
    assert read_note(run) == Note(text="diverges above 0.1", tags=("base", "new"))
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != NOTES} == before
    assert verify_run(run) == []
    capsys.readouterr()
    assert main(["ls", str(folder), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["note"], listed["tags"]) == ("diverges above 0.1", ["base", "new"])
    assert main(["note", str(run)]) == 0
    assert capsys.readouterr().out.splitlines() == ["#base #new", "diverges above 0.1"]
    page = write_report(run, folder / "page.html").read_text()
    assert '<p id="note"><span class="tag">#base</span><span class="tag">#new</span>' in page
    assert main(["note", str(run), "", "--untag", "base", "--untag", "new"]) == 0
    assert not (run / NOTES).exists()


def test_what_cannot_be_a_note_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tag of two words, too many tags and a note that is a book are errors that name them; nothing is written."""
    for words in (["--tag", "two words"], ["x" * 5000], [word for i in range(21) for word in ("--tag", f"t{i}")]):
        assert main(["note", str(folder / "one"), *words]) == 2
    error = capsys.readouterr().err
    assert "'two words'" in error
    assert "5,000" in error
    assert "21" in error
    assert not (folder / "one" / NOTES).exists()


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"text": 3, "tags": [{}]}', b"[" * 5000, b'{"text": "\\ud800"', b"x" * 70_000]
)
def test_a_strangers_file_is_no_note(tmp_path: Path, content: bytes) -> None:
    """A file of another kind, too large or too deep is an empty note, never an error."""
    (tmp_path / NOTES).write_bytes(content)
    assert read_note(tmp_path) == Note()


def test_a_strangers_link_is_not_followed(tmp_path: Path) -> None:
    """A link could lead to any file; control characters could move a terminal's cursor."""
    (tmp_path / "a").mkdir()
    write_note(tmp_path / "a", Note(text="secret"))
    (tmp_path / NOTES).symlink_to(tmp_path / "a" / NOTES)
    assert not read_note(tmp_path)
    (tmp_path / NOTES).unlink()
    (tmp_path / NOTES).write_text(json.dumps({"text": "a\x1b[2Jb\nc", "tags": ["x\x1b"]}))
    assert read_note(tmp_path) == Note(text="a?[2Jb\nc", tags=("x?",))
