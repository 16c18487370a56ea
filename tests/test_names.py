"""One name, one meaning."""

import ast
from collections import defaultdict
from pathlib import Path

import pbt

SOURCES = sorted(Path(pbt.__file__).parent.rglob("*.py"))


def test_no_class_name_is_defined_in_two_modules() -> None:
    """Each class name, private ones included, belongs to one module of the package."""
    modules = defaultdict(set)
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                modules[node.name].add(str(source))
    twice = {name: files for name, files in modules.items() if len(files) > 1}
    assert len(modules) > 300
    assert twice == {}
