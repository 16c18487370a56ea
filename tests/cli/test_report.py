"""`pbt report`, as people call it."""

from pathlib import Path

import pytest

import pbt
from pbt.cli.app import main
from pbt.report.data.figures import NAMES
from pbt.report.matplotlib_figures import common
from tests.helpers.command import python
from tests.report.histories import CLIMB


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one finished run in it."""
    monkeypatch.chdir(tmp_path)
    # Pictures of few pixels: no test looks at them that closely.
    monkeypatch.setattr(common, "DPI", 30)
    pbt.run(**CLIMB | {"rounds": 3}, run_dir=tmp_path / "runs" / "one")
    return tmp_path


def test_writes_the_page_and_says_where(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pbt report RUN` prints the one file that it wrote."""
    assert main(["report", "runs/one"]) == 0
    assert capsys.readouterr().out == "runs/one/report/report.html\n"
    assert (folder / "runs/one/report/report.html").stat().st_size > 1_000_000


def test_writes_elsewhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--out` names the file, folders on the way to it are made, and the run's own folder stays as it was."""
    assert main(["report", "one", "--out", "paper/appendix.html"]) == 0
    assert capsys.readouterr().out == "paper/appendix.html\n"
    assert (folder / "paper" / "appendix.html").is_file()
    assert not (folder / "runs/one/report").exists()


def test_writes_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--png --svg` writes every picture in both formats, and no page."""
    assert main(["report", "one", "--png", "--svg", "--out", "figures"]) == 0
    names = [f"figures/{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")]
    assert capsys.readouterr().out.splitlines() == names
    assert sorted(str(path.relative_to(folder)) for path in (folder / "figures").iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report"], "RUN"),
        (["report", "nowhere"], "expected a run directory, found nothing"),
        (["report", "runs"], "found a folder without it; runs in it: one"),
        (["report", "one", "--out", "runs"], "found a folder"),
        (["report", "one", "--gif"], "--gif"),
    ],
)
def test_wrong_input_is_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """What cannot be done exits with 2 and says why on stderr, without a traceback."""
    assert main(words) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert message in seen.err
    assert "Traceback" not in seen.err


def test_looking_loads_nothing_heavy(folder: Path) -> None:
    """Making the page needs neither torch nor matplotlib, and importing the report needs no plotly."""
    code = (
        "import sys, pbt.report; assert 'plotly' not in sys.modules; pbt.report.write_report('runs/one');"
        "print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    )
    done = python(code, folder)
    assert (done.returncode, done.stdout) == (0, "[]\n")
