"""The help of each command: wrapped once at every width, with an example that is valid and, where it is short, runs."""

import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pbt.cli.app import app, main
from pbt.cli.help import wrapped
from tests.helpers import command

WIDTHS = (40, 80, 100, 120)
TASK = """
import pbt


def climb(hparams, state, steps, ctx):
    height = (state or 0.0) + steps * hparams["rate"]
    return height, height


experiment = pbt.Experiment(task=climb, space={"rate": pbt.Float(0.1, 1.0)}, population=3, rounds=2)
"""
LONG = {"compare", "completion", "dashboard", "demo", "doctor", "init", "mnist", "mnist predict", "mnist export",
        "mnist import", "report", "run"}  # fmt: skip
"""Commands whose example takes seconds, or reads files of its own: it is only parsed here."""


def names() -> Iterator[str]:
    """Every command, as typed after `pbt`."""
    for name in app.resolved_commands():
        if not name.startswith("-"):
            yield name
    yield from (f"mnist {name}" for name in app["mnist"].resolved_commands() if not name.startswith("-"))


COMMANDS = sorted(names())


def help_of(folder: Path, name: str, width: int) -> list[str]:
    """The lines of a command's help."""
    lines = command.pbt(folder, *name.split(), "--help", COLUMNS=str(width)).stdout.splitlines()
    assert max(map(len, lines)) <= width
    return lines


def description(lines: list[str]) -> list[str]:
    """The lines between the usage and the first panel."""
    panel = next((i for i, line in enumerate(lines) if line.startswith("╭")), None)
    return lines[lines.index("") + 1 : panel]


def wraps(lines: list[str]) -> Iterator[tuple[str, str, int]]:
    """In the panels: the text of each line that continues on the next one, that next text, and the width for both."""
    for line, after in itertools.pairwise(line[2:-2] for line in lines if line.startswith("│")):
        start = len(after) - len(after.lstrip())
        if start > 10 and line[start - 1] == " " and line[start:].strip() and line[start] != " ":
            yield line[start:].rstrip(), after.strip(), len(line) - start


def example(folder: Path, name: str) -> list[list[str]]:
    """The commands in the example of a command's help, as words; what follows a `>` is left out."""
    (line,) = [line for line in description(help_of(folder, name, 120)) if line.startswith("Example: ")]
    parts = line.removeprefix("Example: ").split(" && ")
    return [shlex.split(part.partition(" > ")[0]) for part in parts]


@pytest.mark.parametrize("width", WIDTHS)
def test_help_is_wrapped_once(width: int, tmp_path: Path) -> None:
    """No line ends before the first word of the next one needs it to, in the description and in the panels."""
    for name in ["", *COMMANDS] if width in (40, 120) else ["", "run", "resume"]:
        lines = help_of(tmp_path, name, width)
        for text, after, room in wraps(lines):
            assert len(text) + 1 + len(after.split()[0]) > room, (name, text, after)
        lines = description(lines)
        assert any(lines), name
        for line, after in itertools.pairwise(lines):
            if line and after and not re.match(r"\s+\d|Exit codes", after) and not line.endswith("codes:"):
                assert len(line) + 1 + len(after.split()[0]) > width, (name, line, after)


def test_lists_and_words_are_kept() -> None:
    """Lines of a list keep their place; a word longer than the line is not broken."""
    text = "one\ntwo\n\nCodes:\n   75  stopped by a disk\n  130  stopped\n\n--a-long-option"
    assert wrapped(text, 17).split("\n") == [
        "one two", "", "Codes:", "   75  stopped by", "       a disk", "  130  stopped", "", "--a-long-option"
    ]  # fmt: skip
    assert wrapped("--a-long-option", 5) == "--a-long-option"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_example_is_valid(name: str, tmp_path: Path) -> None:
    """The command of each example, with its options, exists."""
    first, *_ = found = example(tmp_path, name)
    assert first[: 1 + len(name.split())] == ["pbt", *name.split()]
    for words in found:
        app.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short ones end well, on a run of a small task."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(TASK)
    assert main(["run", "task.py:experiment", "-q"]) == 0
    for name in sorted(set(COMMANDS) - LONG):
        for words in example(tmp_path, name):
            assert main(words[1:]) == 0, words
    assert (tmp_path / "history.csv").is_file()


@pytest.mark.parametrize("shell", ["bash", *(pytest.param(name, marks=pytest.mark.slow) for name in ("zsh", "fish"))])
def test_completion(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script with every command is written below the home folder; bash completes with it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZSH", raising=False)
    monkeypatch.delenv("ZSH_CUSTOM", raising=False)
    assert main(["completion", shell]) == 0
    files = [file for file in tmp_path.rglob("*pbt*") if file.is_file()]
    assert len(files) == 1
    text = files[0].read_text()
    assert [name for name in COMMANDS if name.split()[-1] not in text] == []
    if shell == "bash":
        code = f". {files[0]}; COMP_WORDS=(pbt re); COMP_CWORD=1; _pbt pbt re pbt; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, timeout=30)
        assert sorted(done.stdout.split()) == ["replay", "report", "resume"]


def test_an_unknown_shell_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither another shell nor a home folder that cannot be written is a traceback."""
    assert main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert main(["completion", "fish"]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert "Traceback" not in error
