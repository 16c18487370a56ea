"""What docs/choosing.md names is there, and what it says of numbers is what its own tables say."""

import re

import pytest

from pbt.problems import PROBLEMS
from pbt.strategies.registry import PLANS
from tests.helpers.paths import DOCS

PAGE = (DOCS / "choosing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def tables() -> dict[str, list[list[str]]]:
    """Title of the first column to the rows."""
    found = re.findall(r"((?:^\|.*\|\n)+)", PAGE, re.MULTILINE)
    split = [
        [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()] for block in found
    ]
    return {rows[0][0]: rows[2:] for rows in split}


def number(cell: str) -> float:
    return float(cell.strip("*"))


def test_plans_and_problems_exist() -> None:
    """Every plan of the first table, every problem of its head, and every plan that is advised."""
    named = set(re.findall(r"^\| `([\w-]+)`", PAGE, re.MULTILINE)) | set(re.findall(r"--plans\s+([\w,-]+)", PAGE))
    assert {name for group in named for name in group.split(",")} <= PLANS.keys()
    head = next(line for line in PAGE.splitlines() if line.startswith("| plan |"))
    assert set(re.findall(r"`([\w-]+)`:?", head)) <= PROBLEMS.keys()
    advised = " ".join(row[1] for row in tables()["what you see"])
    assert set(re.findall(r"`([\w-]+)`", advised)) - {"series"} <= PLANS.keys() | PROBLEMS.keys()


@pytest.mark.parametrize("column", range(1, 6))
def test_bold_is_better_and_italics_are_worse(column: int) -> None:
    """Than `pbt`, in every column."""
    rows = tables()["plan"]
    base = number(rows[0][column])
    for name, *cells in rows:
        cell = cells[column - 1]
        if cell.startswith("**"):
            assert number(cell) > base, name
        elif cell.startswith("*"):
            assert number(cell) < base, name


def test_the_advice_is_what_the_tables_say() -> None:
    """Shortest rounds lose to the best constant; the lowest losses are between twenty and fifty rounds."""
    rounds = {int(re.findall(r"\((\d+)\)", row[0])[0]): float(row[1]) for row in tables()["steps of a round (rounds)"]}
    assert rounds[200] > 0.0264
    assert sorted(rounds, key=rounds.__getitem__)[:2] == [20, 50]
    members = {int(row[0]): float(row[1]) for row in tables()["members"]}
    assert min(members, key=members.__getitem__) == 80
    shares = [float(row[1]) for row in tables()["share replaced, of 20"]]
    assert max(shares) / min(shares) < 1.2


def test_the_example_of_a_constraint() -> None:
    """It runs, and its constraint holds for given and for drawn values."""
    (block,) = BLOCKS
    found: dict = {}
    exec(block, found)
    history = found["run"].history()
    assert history["part"][0] == 64
    assert all(batch >= 2 * part for batch, part in zip(history["batch"], history["part"], strict=True))
