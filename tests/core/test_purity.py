"""The core decides, and does nothing else."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pbt.core

ROOT = Path(pbt.core.__file__).parents[1]
SOURCES = [ROOT / "errors.py", ROOT / "space.py", *sorted((ROOT / "core").glob("*.py"))]
ALLOWED = {
    "re",
    "collections",
    "dataclasses",
    "difflib",
    "functools",
    "hashlib",
    "inspect",  # the source of a rule, for the description of a plan; no decision reads it
    "itertools",
    "math",
    "operator",
    "pbt",
    "random",
    "statistics",
    "struct",
    "textwrap",
    "types",
    "typing",
}
DOORS = {"open", "print", "input", "eval", "exec", "compile", "__import__", "globals", "breakpoint"}

# The package's own __init__ is left out: it is the facade of everything.
PROBE = """
import importlib, json, sys, types
package = types.ModuleType("pbt")
package.__path__ = [sys.argv[1]]
sys.modules["pbt"] = package
before = set(sys.modules)
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.fixture(scope="module")
def loaded():
    """The modules that importing the core brings into a fresh interpreter."""
    names = [".".join(source.relative_to(ROOT.parent).with_suffix("").parts) for source in SOURCES]
    command = [sys.executable, "-I", "-c", PROBE, str(ROOT), *names]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


def test_the_core_stands_on_the_standard_library(loaded):
    """Importing the core imports nothing of a third party: no torch, no numpy."""
    assert "pbt.core.strategy" in loaded
    tops = {name.partition(".")[0] for name in loaded}
    assert tops - set(sys.stdlib_module_names) == {"pbt"}


def test_the_core_starts_nothing(loaded):
    """Importing the core brings in no threads, processes, network, logging, files of data or pickles."""
    tops = {name.partition(".")[0] for name in loaded}
    assert not tops & {
        "asyncio",
        "concurrent",
        "logging",
        "multiprocessing",
        "pickle",
        "shutil",
        "socket",
        "sqlite3",
        "subprocess",
        "tempfile",
        "threading",
    }


def test_the_core_imports_only_itself(loaded):
    """Of this package the core needs its errors and the space, nothing that stands above it."""
    inner = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("pbt")}
    assert inner == {"pbt.core", "pbt.domains", "pbt.values", "pbt.errors", "pbt.scales", "pbt.space"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_no_door_to_the_outside(source):
    """No module of the core imports what could reach files, the clock, threads or a log, or opens anything."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.partition(".")[0] for alias in node.names} <= ALLOWED
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module.partition(".")[0] in ALLOWED
        elif isinstance(node, ast.Name):
            assert node.id not in DOORS
        elif isinstance(node, ast.Global | ast.AsyncFunctionDef):
            pytest.fail(f"{source.name}:{node.lineno} has {type(node).__name__}")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_no_global_randomness(source):
    """Of the `random` module only the class is used, which keeps its state to itself."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "random"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            assert node.attr == "Random"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_record_is_frozen(source):
    """Every dataclass of the core is frozen: state moves by new records only."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                text = ast.unparse(decorator)
                assert not text.startswith("dataclass") or "frozen=True" in text, f"{source.name}: {node.name}"
