"""What the first pages promise: docs/index.md, start.md, concepts.md, bindings.md and faq.md."""

import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import pbt
from pbt.cli.app import main
from pbt.pytorch import bind
from tests.helpers.paths import DOCS, ROOT


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


@pytest.mark.parametrize("page", ["index.md", "concepts.md", "bindings.md", "faq.md"])
def test_programs_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The programs of each page run as they stand, without a failed member."""
    programs = blocks(page, "python")
    assert programs
    for program in programs:
        found: dict[str, pbt.Run] = {"__name__": "page"}  # type: ignore[dict-item]
        exec(compile(program, f"docs/{page}", "exec"), found)
        assert found["run"].failures() == []


def test_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command of the page ends well, in its order, on the file that the page tells to save."""
    task, reading = blocks("start.md", "python")
    assert task == (ROOT / "examples" / "quadrants.py").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(task.replace("interval=40), population=8", "interval=4), population=5"))
    lines = [shlex.split(line, comments=True) for block in blocks("start.md", "") for line in block.splitlines()]
    commands = [words for words in lines if words[:1] == ["pbt"] and words != ["pbt", "doctor"]]
    assert [words[1] for words in commands] == ["run", "status", "lineage", "schedule", "report", "resume"]
    for words in commands:
        quiet = ["--no-progress", "--threads", "1"] if words[1] in ("run", "resume") else []
        assert main([*words[1:], *quiet]) == 0, words
    assert (tmp_path / "runs/first/report/report.html").is_file()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "task", raising=False)
    found: dict[str, object] = {}
    exec(compile(reading, "docs/start.md", "exec"), found)
    monkeypatch.delitem(sys.modules, "task")
    assert found["run"].meta["rounds"] == 15  # type: ignore[attr-defined]
    assert isinstance(found["network"], torch.nn.Sequential)
    extras = re.findall(r"pip install '\.\[(\w+(?:,\w+)*)\]'", (DOCS / "start.md").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert extras
    assert all(re.search(rf"^{name} = \[", project, re.MULTILINE) for name in extras[0].split(","))


def test_all_bindings_and_the_whole_context_are_listed() -> None:
    """docs/bindings.md has every function that makes a binding, and every public attribute of the context."""
    page = (DOCS / "bindings.md").read_text()
    made = {
        name
        for name, value in vars(bind).items()
        if inspect.isfunction(value)
        and value.__module__ == bind.__name__
        and not name.startswith(("_", "check_", "bind_"))
    }
    assert made <= set(re.findall(r"`(\w+)\(", page[: page.index("## Context")]))
    listed = set(re.findall(r"`ctx\.(\w+)", page[page.index("## Context") :]))
    public = {name for name in dir(pbt.Context) if not name.startswith("_")}
    assert public - listed == {"workspace", "checked", "recorder"}
    assert listed <= public
