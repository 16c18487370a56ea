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


def test_type_checkers_see_the_names_that_are_loaded_on_first_use() -> None:
    """`__all__` has the names that `pbt/__init__.py` imports for type checkers, each from the module that loads it."""
    tree = ast.parse((SOURCE / "pbt" / "__init__.py").read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("pbt.")]
    seen = {alias.name: n.module for n in imports for alias in n.names}
    assert seen.pop("version_of") == "pbt.executors.machine"
    seen.pop("DISTRIBUTION")
    assert sorted([*seen, "__version__"]) == pbt.__all__
    assert all(getattr(pbt, name) is getattr(sys.modules[str(module)], name) for name, module in seen.items())
    assert set(pbt.__all__) <= set(dir(pbt))


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
    assert loaded("import pbt; pbt.run, pbt.Command", heavy) == []
    assert loaded("import pbt", [*heavy, "numpy", "pbt.core", "pbt.runs"]) == []


def test_a_command_loads_nothing_that_only_another_needs() -> None:
    """`pbt --version` loads no run, and `pbt status` neither numpy nor what trains, so that they answer at once."""
    training = ["numpy", "torch", "pbt.runs.engine", "pbt.executors.worker", "pbt.strategies", "pbt.tasks", "asyncio"]
    main = "import io, sys; from contextlib import redirect_stdout as to; from pbt.cli.app import main; "
    assert loaded(main + "exec('with to(io.StringIO()): main([\"--version\"])')", [*training, "pbt.runs"]) == []
    assert loaded(main + 'exec(\'with to(io.StringIO()): main(["status", "--help"])\')', training) == []


def loaded(code: str, names: list[str]) -> list[str]:
    """The modules among `names` that are loaded after `code` ran in a new interpreter."""
    code += f"\nimport json, sys; print(json.dumps([name for name in {names} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: list[str] = json.loads(done.stdout)
    return found
