"""What docs/data.md promises."""

import re

import pytest

from tests.helpers.paths import DOCS

PAGE = (DOCS / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("number", "holds"), [(0, 0.8), (1, 0.8), (2, -3.5)])
def test_examples_train(number, holds):
    """The programs of the page run as they stand, and what they train is better than chance."""
    found = {}
    exec(compile(BLOCKS[number], "docs/data.md", "exec"), found)
    assert len(BLOCKS) == 3
    score = found["run"].best.score
    assert (-score if number == 2 else score) > holds
