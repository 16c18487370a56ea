"""The programs of docs/report.md and docs/benchmarks-problems.md run as they stand."""

import re
from pathlib import Path

import pytest

import pbt
from tests.helpers.paths import DOCS


def programs(page: str) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def climb(hparams, state, steps, ctx):
    height = (state or 0.0) + float(hparams["rate"]) * steps
    return height, height


@pytest.mark.slow
def test_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to a figure writes it."""
    monkeypatch.chdir(tmp_path)
    pbt.run(climb, {"rate": pbt.Float(0.1, 1.0)}, population=5, rounds=3, run_dir="runs/latest")
    (program,) = programs("report.md")
    exec(compile(program, "docs/report.md", "exec"), {})
    assert (tmp_path / "tree.pdf").is_file()
    assert {file.suffix for file in (tmp_path / "runs/latest/report").iterdir()} == {".html", ".pdf"}


@pytest.mark.slow
def test_the_problems(capsys: pytest.CaptureFixture[str]) -> None:
    """The programs of the page train, and print what they found."""
    found = programs("benchmarks-problems.md")
    assert len(found) == 2
    for program in found:
        exec(compile(program, "docs/benchmarks-problems.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2
