"""What docs/tasks.md promises."""

import re

import pytest

from pbt.pytorch import bind
from tests.helpers.paths import DOCS

PAGE = (DOCS / "tasks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("number", "score"), [(0, -0.2), (1, -1.0), (2, -0.9), (3, -0.1), (4, 0.6)])
def test_examples_train(number, score):
    """The programs of the page run as they stand, and what they train comes near to what is asked for."""
    found = {}
    exec(compile(BLOCKS[number], "docs/tasks.md", "exec"), found)
    assert len(BLOCKS) == 5
    assert found["run"].best.score > score


def test_the_table_of_settings_names_what_there_is():
    """Every setting of a SupervisedTask that can be bound has its row."""
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)\(", PAGE, re.MULTILINE)
    assert {(name, name) for name in bind.SETTINGS} <= set(rows)
