"""One of each: no more than eight lines of code occur twice in the package."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.helpers.paths import SOURCE

WINDOW = 9


def code_lines(text: str) -> list[tuple[int, str]]:
    """The lines of code, numbered and stripped: no comments, docstrings, imports or blank lines."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            assert isinstance(node, ast.stmt)
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = ((number, line.partition("  # ")[0].strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(n, line) for n, line in lines if line and not line.startswith("#") and n not in left_out]


def duplicates(folder: Path) -> dict[tuple[str, ...], str]:
    """For every group of files that share a window of lines: the first such lines, as `path:line` each."""
    places = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        lines = code_lines(path.read_text(encoding="utf-8"))
        for i in range(len(lines) - WINDOW + 1):
            window = tuple(line for _, line in lines[i : i + WINDOW])
            places[window].append((path.relative_to(folder).as_posix(), lines[i][0]))
    found: dict[tuple[str, ...], str] = {}
    for several in places.values():
        if len(several) > 1:
            found.setdefault(tuple(name for name, _ in several), ", ".join(f"{name}:{n}" for name, n in several))
    return found


def test_nothing_is_written_twice() -> None:
    """No nine consecutive lines of code occur at two places."""
    assert list(duplicates(SOURCE).values()) == []


@pytest.mark.parametrize(("shared", "expected"), [(9, 1), (8, 0)])
def test_duplicates_are_found(tmp_path: Path, shared: int, expected: int) -> None:
    """Nine lines are found in another file at another indentation, with other comments; eight are not reported."""
    lines = [f"x{i} = {i}" for i in range(shared)]
    (tmp_path / "a.py").write_text("\n".join(["import os", *lines, "y = 1"]))
    (tmp_path / "b.py").write_text(
        "\n".join(["def f():", '    """Text."""', *(f"    {line}  # why" for line in lines)])
    )
    assert list(duplicates(tmp_path)) == [("a.py", "b.py")] * expected
