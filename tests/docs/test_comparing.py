"""What docs/comparing.md promises: every command of it ends well, and every plan is in its table."""

import re
import shlex

import pytest

from pbt.cli.app import main
from pbt.problems import PROBLEMS
from pbt.strategies.registry import PLANS
from tests.compare.comparisons import write_task
from tests.helpers.paths import DOCS

PAGE = (DOCS / "comparing.md").read_text(encoding="utf-8")
SMALL = {"--seeds": "1", "--rounds": "2"}
"""Instead of hours."""


def commands() -> list[list[str]]:
    """The commands of the page, as words."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def smaller(words: list[str]) -> list[str]:
    """A comparison of one seed and two rounds; other commands are quick as they are."""
    if words[1] != "compare":
        return [*words[1:], "-q"]
    kept = [word for before, word in zip(["", *words], words, strict=False) if not {before, word} & SMALL.keys()]
    return [*kept[1:], *(word for pair in SMALL.items() for word in pair), "-q", "--workers", "2"]


@pytest.mark.usefixtures("warm")
def test_the_commands(tmp_path, monkeypatch):
    """Every command of the page ends well, in its order."""
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path)
    told = commands()
    assert [words[1] for words in told] == ["compare", "compare", "run", "run", "resume", "compare"]
    for words in told:
        assert main(smaller(words)) == 0, words
    for name in ("compare-task-experiment", "nqm", "fresh"):
        assert {"comparison.json", "comparison.png", "comparison.svg"} <= {
            path.name for path in (tmp_path / "runs" / name).iterdir()
        }
    assert (tmp_path / "runs" / "fresh" / "pbt" / "seed-100").is_dir()


def test_every_plan_and_every_problem_is_named():
    """The table has the registry's names, in their order, and the text the shipped problems."""
    cells = re.findall(r"^\| (`[^|]*) \| [^|]* \|$", PAGE, re.MULTILINE)
    assert [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)] == list(PLANS)
    assert [name for name in PROBLEMS if f"`{name}`" not in PAGE] == []


def test_its_links_lead_somewhere():
    """The pages that it names are there."""
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (DOCS / target).exists(), target
