"""The notebooks among the examples run from the first cell to the last, in a kernel of their own."""

import os
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT, SOURCE

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def executed(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """The code cells of a notebook after its execution in a folder."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")])))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = nbformat.read(path, 4)
    assert not any(cell.get("outputs") for cell in book.cells), "notebooks are kept without outputs"
    NotebookClient(book, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return [cell for cell in book.cells if cell.cell_type == "code"]


def of_type(cells: list, kind: str) -> list:
    return [output.data[kind] for cell in cells for output in cell.outputs if kind in output.get("data", {})]


@pytest.mark.long
@pytest.mark.needs("notebook")
def test_the_first_hour(tmp_path, monkeypatch) -> None:
    """Progress of both runs, a summary of each, five figures, and a network that has learned."""
    cells = executed(ROOT / "examples" / "first_hour.ipynb", tmp_path, monkeypatch)
    tables = of_type(cells, "text/html")
    assert sum("80/80 member rounds" in table or "64/64 member rounds" in table for table in tables) == 2
    assert sum("best score" in table and "<th" in table for table in tables) == 2
    assert len(of_type(cells, "image/png")) == 5
    printed = "".join(output.text for cell in cells for output in cell.outputs if output.output_type == "stream")
    assert "steps   0 to" in printed
    assert float(printed.split("test accuracy")[1]) > 0.8


@pytest.mark.long
@pytest.mark.needs("notebook")
def test_does_evolution_help(tmp_path, monkeypatch) -> None:
    """Both comparisons end with a verdict."""
    cells = executed(ROOT / "examples" / "does_evolution_help.ipynb", tmp_path, monkeypatch)
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    assert sum("verdict" in text for text in printed) == 2
    assert len(of_type(cells, "image/png")) == 1


def test_every_notebook_is_run() -> None:
    assert [path.name for path in NOTEBOOKS] == ["does_evolution_help.ipynb", "first_hour.ipynb"]
