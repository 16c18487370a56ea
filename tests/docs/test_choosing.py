"""What docs/choosing.md names is there, and what it says of numbers is what its own tables say."""

import re

from benchmarks.zoo import COMPARED, PROBLEMS
from pbt.strategies.registry import PLANS
from tests.helpers.paths import DOCS

PAGE = (DOCS / "choosing.md").read_text(encoding="utf-8")
HEAD = next(line for line in PAGE.splitlines() if line.startswith("| plan |"))
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
    """The table has all plans and problems of the comparison, and only plans of the registry are advised."""
    named = set(re.findall(r"--plans\s+([\w,-]+)", PAGE))
    assert {name for group in named for name in group.split(",")} <= PLANS.keys()
    advised = set(re.findall(r"`([\w-]+)`", " ".join(row[1] for row in tables()["what you see"])))
    assert advised - {"series", "scores"} <= PLANS.keys() | set(PROBLEMS)
    assert sorted(row[0].strip("`") for row in tables()["plan"]) == sorted(COMPARED)
    assert [row[0].strip("`") for row in tables()["problem"]] == re.findall(r"`([\w-]+)`", HEAD) == list(PROBLEMS)


def test_bold_is_better_and_italics_are_worse() -> None:
    """Than `pbt`, in every column; two columns count them."""
    rows = tables()["plan"]
    (base,) = (row for row in rows if row[0] == "`pbt`")
    assert [float(row[1]) for row in rows] == sorted(float(row[1]) for row in rows)
    lower = [", loss" in cell for cell in HEAD.strip("|").split("|")]
    marked = 0
    for row in rows:
        cells = list(zip(row, base, lower, strict=True))[4:-1]
        better = [(number(cell) > number(of)) != less for cell, of, less in cells if cell.startswith("**")]
        worse = [(number(cell) < number(of)) != less for cell, of, less in cells if re.match(r"\*[^*]", cell)]
        assert all(better), row
        assert all(worse), row
        marked += len(better) + len(worse)
        assert row is base or [int(row[2]), int(row[3])] == [len(better), len(worse)]
    assert marked


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
