"""The pages of docs/api: every public name is on one of them, and each page has an example that runs."""

import importlib
import re
from pathlib import Path

import pytest

import pbt
from tests.helpers.paths import DOCS, SOURCE

PAGES = sorted((DOCS / "api").glob("*.md"))
NAMES = [name for page in PAGES for name in re.findall(r"^\| `(pbt\.[\w.]+)` \|", page.read_text(), re.MULTILINE)]
MARKS = {"frameworks": [pytest.mark.needs("sklearn"), pytest.mark.slow], "report": [pytest.mark.slow]}
"""By page; importing what these need takes seconds, and other tests have such programs."""
LISTED = (
    "pbt",
    "pbt.strategies",
    "pbt.pytorch",
    "pbt.report",
    "pbt.runs.callbacks",
    "pbt.problems",
    "pbt.errors",
    "pbt.initial",
)
"""Modules with public names: those in `__all__`, else the classes that they define."""
INTERNAL = {"__version__", "HOOKS", "CallbackRecord", "Callbacks"}


def public(module: str) -> set[str]:
    """The public names of a module."""
    found = importlib.import_module(module)
    own = [name for name, value in vars(found).items() if isinstance(value, type) and value.__module__ == module]
    return set(getattr(found, "__all__", own)) - INTERNAL


def frameworks() -> set[str]:
    """The tasks over other frameworks: each public class `...Task`; nothing is imported."""
    texts = {file.stem: file.read_text() for file in (SOURCE / "pbt" / "tasks").glob("*.py")}
    return {
        f"pbt.tasks.{stem}.{name}"
        for stem in texts
        for name in re.findall(r"^class ([A-Z]\w*Task)\(", texts[stem], re.MULTILINE)
    }


def test_every_public_name_has_its_place() -> None:
    """Each name is in one table, and a name in a table exists."""
    assert sorted(NAMES) == sorted(set(NAMES))
    documented = {name.rpartition(".")[2] for name in NAMES}
    assert {module: public(module) - documented for module in LISTED if public(module) - documented} == {}
    for name in NAMES:
        module, _, attribute = name.rpartition(".")
        if not module.startswith("pbt.tasks."):
            assert hasattr(importlib.import_module(module), attribute), name
    assert frameworks() <= set(NAMES)
    assert f"pbt.{pbt.run.__name__}" in NAMES


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=MARKS.get(page.stem, ())) for page in PAGES],
    ids=lambda page: page.stem,
)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of each page runs as it stands."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    exec(compile(block, f"docs/api/{page.name}", "exec"), {"__name__": "page"})
