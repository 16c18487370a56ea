"""What README.md promises: its examples run, its commands exist."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import pbt
from tests.helpers import command
from tests.helpers.paths import ROOT, SOURCE

README = (ROOT / "README.md").read_text()
EXAMPLE = ROOT / "examples" / "quadrants.py"


def blocks(language: str) -> list[str]:
    """The fenced blocks of README.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def python(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_is_in_the_readme_word_for_word() -> None:
    """`examples/quadrants.py` is one of the README's Python blocks."""
    assert EXAMPLE.read_text() in blocks("python")


def accuracy_in(printed: str) -> float:
    match = re.search(r"validation accuracy ([0-9.]+)", printed)
    assert match, printed
    return float(match[1])


def test_the_example_runs_as_a_script(tmp_path: Path) -> None:
    """The example ends with an accuracy above 0.9 and prints the schedule that made it."""
    printed = python(tmp_path, str(EXAMPLE))
    assert accuracy_in(printed) > 0.9
    assert "Segment(start=0" in printed
    assert not list(tmp_path.iterdir())


def test_the_example_is_an_experiment() -> None:
    """The object in the example is a `pbt.Experiment` that trains to an accuracy above 0.9."""
    experiment = runpy.run_path(str(EXAMPLE))["experiment"]
    assert isinstance(experiment, pbt.Experiment)
    run = experiment.run()
    assert run.best.score > 0.9
    assert run.best_schedule.segments[-1].stop == run.best.step


def test_the_readmes_blocks_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of the README is executed; a run that one of them opens is trained before."""
    monkeypatch.chdir(tmp_path)
    space = {"lr": pbt.Float(0.1, 1.0)}
    pbt.run(_climb, space, population=3, rounds=2, run_dir=tmp_path / "runs" / "latest")
    found = blocks("python")
    assert len(found) >= 3
    for number, block in enumerate(found):
        exec(compile(block, f"README.md, block {number}", "exec"), {"__name__": "readme"})


def _climb(hparams: pbt.space.HParams, state: object, steps: int, ctx: pbt.Context) -> tuple[object, float]:
    height = (state["height"] if isinstance(state, dict) else 0.0) + float(hparams["lr"]) * steps
    return {"height": height}, height


def commands() -> list[str]:
    """The commands of the README's table, as written there."""
    return re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)


def test_every_command_of_the_table_exists(tmp_path: Path) -> None:
    """Each `pbt ...` of the README is in `pbt --help`, and each script is in the repository."""
    told = commands()
    names = [line.split()[1] for line in told if line.startswith("pbt ")]
    assert {"run", "status", "resume", "verify", "doctor", "demo"} <= set(names)
    assert {"ls", "lineage", "schedule", "replay", "export"} <= set(names)
    help_ = command.pbt(tmp_path, "--help", COLUMNS="200").stdout
    assert [name for name in names if not re.search(rf"^\W*{name}\b", help_, re.MULTILINE)] == []
    scripts = [line.split()[1] for line in told if line.startswith("python3 ")]
    assert scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_every_option_of_the_table_exists(tmp_path: Path) -> None:
    """An option that the README gives a command is in that command's help."""
    lines = [line for line in README.splitlines() if line.startswith("| `pbt ")]
    told = [(line.split("`")[1].split()[1], option) for line in lines for option in re.findall(r"--[a-z-]+", line)]
    assert told
    for name, option in told:
        assert option in command.pbt(tmp_path, name, "--help", COLUMNS="200").stdout, (name, option)


def test_what_scripts_the_readme_names_are_there() -> None:
    """Every `scripts/...` that the README names is an executable file."""
    named = set(re.findall(r"scripts/[a-z]+", README))
    assert named
    assert [name for name in sorted(named) if not os.access(ROOT / name, os.X_OK)] == []


def test_the_readme_links_to_the_other_pages() -> None:
    """Architecture, contributing and the reference of configuration keys are reachable from the README."""
    for target in ("ARCHITECTURE.md", "CONTRIBUTING.md", "config/config_params.md"):
        assert f"({target})" in README
