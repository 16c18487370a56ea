"""For all tests: the commands of this installation come first, and what a test needs from the system is named."""

import importlib.util
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
THERE = {
    "strace": lambda: shutil.which("strace") is not None,
    "browser": lambda: any(map(shutil.which, BROWSERS)),
    "ray": lambda: importlib.util.find_spec("ray") is not None,
}
"""By the name that `@pytest.mark.needs` and `PBT_REQUIRE` call it: whether it is there."""


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "needs(tool): skipped where the tool is not there, failed if PBT_REQUIRE lists it"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    required = set(filter(None, os.environ.get("PBT_REQUIRE", "").split(",")))
    for tool in (tool for mark in item.iter_markers("needs") for tool in mark.args):
        if not THERE[tool]():
            if tool in required:
                pytest.fail(f"needs {tool}, which PBT_REQUIRE lists and which is not there", pytrace=False)
            pytest.skip(f"needs {tool}")


def pytest_terminal_summary(terminalreporter):
    skipped = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    if skipped:
        terminalreporter.write_line("not run: " + "; ".join(f"{n} x {why}" for why, n in sorted(skipped.items())))
