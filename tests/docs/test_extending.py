"""The strategy of docs/extending.md is run as it stands there, and keeps the contract."""

import re

import pytest

from pbt.testing.strategies import StrategyContract
from tests.helpers.paths import DOCS

PAGE = DOCS / "extending.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
NAMES: dict[str, object] = {"__name__": __name__}
exec(BLOCKS[0], NAMES)


class TestHalving(StrategyContract):
    def make_strategy(self):
        return NAMES["Halving"]()


def test_it_is_short():
    """Thirty lines, without those that say what it is and those between."""
    text = re.sub(r'"""(.*?)"""', "", BLOCKS[0], flags=re.DOTALL)
    assert len([line for line in text.splitlines() if line.strip()]) <= 30


def test_it_halves(capsys):
    """Twenty members are halved at each of five rungs but the last, after which nothing is decided."""
    names = dict(NAMES)
    exec(BLOCKS[1], names)
    score, left = capsys.readouterr().out.split()
    assert int(left) == 2
    assert -0.05 < float(score) < -0.02
    alone = names["pbt"].run(**names["problems"].NQM | {"plan": NAMES["Halving"](interval=20, rung=10**6), "seed": 1})
    assert float(score) == alone.best.score


@pytest.mark.parametrize("block", BLOCKS[2:])
def test_the_rest_runs(block):
    """The page's own contract test is one."""
    names = dict(NAMES)
    exec(block, names)
    assert issubclass(names["TestHalving"], StrategyContract)
