"""For all tests: the commands of this installation come first, and what a test needs from the system is named."""

import functools
import importlib.util
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers.warm import warm_workers

# No test times anything: an example of Hypothesis may take as long as a busy machine needs.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# Two workers of pytest share two cores; torch would use all cores in each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MODULES = {
    "equinox": "equinox", "flax": "flax", "hatchling": "hatchling", "jax": "jax", "keras": "keras",
    "lightgbm": "lightgbm", "lightning": "lightning", "mlflow": "mlflow", "notebook": "ipykernel",
    "optuna": "optuna", "optree": "optree", "peft": "peft", "polars": "polars", "pyarrow": "pyarrow", "ray": "ray",
    "sb3": "stable_baselines3", "sklearn": "sklearn", "skorch": "skorch", "sphinx": "sphinx",
    "transformers": "transformers", "wandb": "wandb", "xgboost": "xgboost",
}  # fmt: skip
THERE = {
    "strace": lambda: shutil.which("strace") is not None,
    "sqlite3": lambda: shutil.which("sqlite3") is not None,
    "browser": lambda: any(map(shutil.which, BROWSERS)),
    **{name: functools.partial(lambda module: importlib.util.find_spec(module) is not None, module)
       for name, module in MODULES.items()},
}  # fmt: skip
"""By the name that `@pytest.mark.needs` and `PBT_REQUIRE` call it: whether it is there."""


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "needs(tool): skipped where the tool is not there, failed if PBT_REQUIRE lists it"
    )


def need(tool):
    """Skip the test where the tool is not there; fail it where PBT_REQUIRE lists the tool."""
    if THERE[tool]():
        return
    if tool in os.environ.get("PBT_REQUIRE", "").split(","):
        pytest.fail(f"needs {tool}, which PBT_REQUIRE lists and which is not there", pytrace=False)
    pytest.skip(f"needs {tool}")


@pytest.fixture
def warm():
    """Worker processes of this test have torch imported when they start."""
    with warm_workers():
        yield


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One browser for all tests that need one; each has a page of its own."""
    from tests.dashboard.browser import Browser

    with Browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    for mark in item.iter_markers("needs"):
        for tool in mark.args:
            need(tool)


def pytest_collection_modifyitems(items):
    # The tests of a file share what its fixtures train: one worker of pytest runs them all.
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    unknown = {tool for item in items for mark in item.iter_markers("needs") for tool in mark.args} - THERE.keys()
    unknown |= set(filter(None, os.environ.get("PBT_REQUIRE", "").split(","))) - THERE.keys()
    if unknown:
        raise pytest.UsageError(f"needs or PBT_REQUIRE name {sorted(unknown)}; known: {sorted(THERE)}")


def pytest_terminal_summary(terminalreporter):
    skipped = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    if skipped:
        terminalreporter.write_line("not run: " + "; ".join(f"{n} x {why}" for why, n in sorted(skipped.items())))
