"""What docs/callbacks.md promises: every block is run, and the table is that of the hooks."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from pbt.runs.callbacks import HOOKS, Callback, MemberReport
from pbt.runs.results import Run
from tests.helpers.paths import DOCS, ROOT

PAGE = (DOCS / "callbacks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def play(number: int, names: dict[str, Any]) -> dict[str, Any]:
    """Run a block of the page."""
    exec(compile(BLOCKS[number], f"callbacks.md, block {number}", "exec"), names)
    return names


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's own callback says what it is for, and TensorBoard writes where the page says."""
    monkeypatch.chdir(tmp_path)
    names = play(0, {"__name__": "page"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"round \d+: nothing better than 3\.000 for 3 rounds", lines[0])
    play(1, names)
    assert list((tmp_path / "runs" / "scalars" / "tensorboard").iterdir())
    assert len(BLOCKS) == 3


@pytest.mark.long
@pytest.mark.needs("mlflow", "wandb")
@pytest.mark.filterwarnings("ignore")
def test_the_trackers_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both are installed, they leave the files that the page names, and no warning of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    play(2, play(0, {"__name__": "page"}))
    run = tmp_path / "runs" / "tracked"
    assert {path.name for path in run.iterdir()} >= {"mlflow.json", "wandb.json", "wandb"}
    assert (tmp_path / "mlflow.db").is_file()
    assert len(list(run.glob("wandb/offline-run-*"))) == 6
    from pbt.store.reader import RunReader

    assert [note for note in RunReader(run).journal() if note.kind == "callback"] == []
    assert len(Run.open(run).tree.reports) == 50


def test_the_table_of_hooks() -> None:
    """Every hook has a row with the fields of its record."""
    rows = dict(re.findall(r"^\| `(on_\w+)` \| [^|]+ \| (.*) \|$", PAGE, re.MULTILINE))
    assert tuple(rows) == HOOKS
    for hook, told in rows.items():
        ((_, record),) = (pair for pair in get_type_hints(getattr(Callback, hook)).items() if pair[0] != "return")
        kind, *names = re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", told)))
        assert kind == record.__name__
        has = {field.name for field in fields(record)} | ({"score"} if record is MemberReport else set())
        assert has <= set(names)
        assert set(names) - has <= {"pbt", "Run", "finished", "interrupted", "failed"}


def test_the_extras_of_the_page_are_there() -> None:
    """Each tracker's extra is one that the package has."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"population-based-training\[(\w+)\]", PAGE)
    assert extras == ["tensorboard", "mlflow", "wandb"]
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)
