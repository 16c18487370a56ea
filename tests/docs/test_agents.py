"""What AGENTS.md and llms.txt promise: the program and the commands run, every page named exists."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest

from pbt.cli.app import main
from tests.helpers.paths import ROOT

PAGE = (ROOT / "AGENTS.md").read_text()
LIST = (ROOT / "llms.txt").read_text()


def test_the_program_and_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is an experiment that the commands train, in their order."""
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"^ *```python\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "task.py").write_text(textwrap.dedent(program))
    (commands,) = re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    for line in commands.splitlines():
        assert main(shlex.split(line)[1:]) == 0, line


def test_what_is_named_exists() -> None:
    """Pages, scripts and files of both texts are in the repository; llms.txt names every guide."""
    linked = set(re.findall(r"\]\(([^)]+)\)", LIST))
    named = set(re.findall(r"`((?:docs|scripts|tests)/[\w./]+)[ `]", PAGE)) | {"ARCHITECTURE.md", "CONTRIBUTING.md"}
    assert [name for name in sorted(linked | named) if not (ROOT / name).exists()] == []
    guides = {f"docs/{page.relative_to(ROOT / 'docs')}" for page in (ROOT / "docs").rglob("*.md")}
    aside = {"docs/index.md", "docs/releasing.md", "docs/mnist.md", "docs/scaling.md"}
    assert {page for page in guides - linked if not re.search("benchmarks|results|recipes", page)} == aside
