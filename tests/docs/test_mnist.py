"""What docs/mnist.md promises."""

import re
import shlex

import pytest

pytest.importorskip("pydantic")

from pbt.mnist.commands import single
from pbt.mnist.data.folder import LAYOUTS
from pbt.mnist.data.idx import SPECS
from pbt.runs.results import Run
from tests.helpers.paths import DOCS, ROOT

PAGE = (DOCS / "mnist.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_a_set_of_ones_own_is_written_and_learned(tmp_path, monkeypatch):
    """The program of the page writes a set that the command below it trains on, and the network learns it."""
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[0], "docs/mnist.md", "exec"), {})
    (command,) = re.findall(r"^python3 main\.py config/fc\.json (.*)$", PAGE, re.MULTILINE)
    small = ["--set", "gpus=", "--set", "num_epochs=5", "--set", "threads=1", "-m", "train", "--out", "run"]
    assert single([str(ROOT / "config" / "fc.json"), *shlex.split(command), *small]) == 0
    run = Run.open(tmp_path / "run")
    assert run.best.score > 0.9
    assert run.meta["application"]["config"]["train"]["num_val"] == 50


def test_the_page_names_every_file_and_place():
    """File names and the folders that are looked into are those of the program."""
    assert all(f"`{spec.name}`" in PAGE for spec in SPECS)
    assert all(f"`{layout}/`" in PAGE for layout in LAYOUTS if layout)
