"""The public names of the package, and what importing it costs."""

import ast
import json
import subprocess
import sys
from importlib import metadata

import pytest

import pbt
from pbt.pytorch import SupervisedTask
from tests.helpers.paths import SOURCE


def test_the_public_names_are_sorted_and_listed_once() -> None:
    """`pbt.__all__` is in the order of the alphabet, capitals first, without a name twice."""
    assert pbt.__all__ == sorted(set(pbt.__all__))


def test_the_public_names_are_all_that_the_package_imports() -> None:
    """`__all__` has exactly the names that `pbt/__init__.py` imports, and those that it loads on first use."""
    tree = ast.parse((SOURCE / "pbt" / "__init__.py").read_text())
    imports = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module != "typing"]
    imported = {alias.asname or alias.name for n in imports for alias in n.names}
    assert imported | {"SupervisedTask", "__version__"} == set(pbt.__all__)
    assert not imported & {"SupervisedTask", "__version__"}
    assert all(hasattr(pbt, name) for name in pbt.__all__)


def test_the_public_names_are_what_a_user_types() -> None:
    """The inner loop is not public; the version is that of the installed distribution."""
    assert {"HParams", "Limits", "SupervisedTask", "Copy", "Mutate", "Stay"} < set(pbt.__all__)
    assert not {"Engine", "Observer", "RunSpec", "Segment"} & set(vars(pbt))
    assert pbt.SupervisedTask is SupervisedTask
    assert pbt.__version__ == metadata.version("population-based-training")
    with pytest.raises(AttributeError, match="no attribute 'Engine'"):
        _ = pbt.Engine


def test_public_names_are_explained() -> None:
    """Each public name has a docstring."""
    assert [name for name in pbt.__all__ if not (getattr(pbt, name).__doc__ or "").strip()] == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import pbt` loads neither torch, ray, matplotlib, pydantic nor what only the command line needs."""
    heavy = ["cyclopts", "matplotlib", "pydantic", "ray", "rich", "tensorboardX", "torch"]
    code = f"import json, sys, pbt; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == []
