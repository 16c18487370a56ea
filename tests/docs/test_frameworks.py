"""The programs of docs/frameworks run as they stand, against the real libraries."""

import re

import pytest

from tests.helpers.paths import DOCS

PAGES = {
    "boosting": ("lightgbm", "xgboost"),
    "jax": ("jax", "equinox", "flax"),
    "keras": ("keras",),
    "lightning": ("lightning",),
    "sb3": ("sb3",),
    "sklearn": ("sklearn", "skorch"),
    "transformers": ("transformers",),
}
"""The libraries that each page needs."""


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(*tools)) for name, tools in PAGES.items()])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras with torch
def test_programs_train(name):
    """The blocks of a page are programs of at most 25 lines that find a score without a failed member."""
    page = (DOCS / "frameworks" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    found = {"__name__": "program"}
    assert blocks
    for block in blocks:
        assert len([line for line in block.splitlines() if line.strip()]) <= 25
        exec(compile(block, f"docs/frameworks/{name}.md", "exec"), found)
        assert not found["run"].failures()
        assert found["run"].model() is not None
        assert len(found["run"].history()["score"]) == found["run"].meta["population"] * found["run"].meta["rounds"]
