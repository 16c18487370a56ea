"""Real runs that several test files look at."""

from pathlib import Path

import pytest

import pbt
from pbt.report.matplotlib_figures import common as parts
from pbt.runs.results import Run
from tests.report.histories import CLIMB


@pytest.fixture(scope="session")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with every kind of hyperparameter and with failures."""
    path: Path = tmp_path_factory.mktemp("climbed") / "run"
    return pbt.run(**CLIMB, run_dir=path)


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An asynchronous run in which members copy states with fewer steps than their own."""
    path: Path = tmp_path_factory.mktemp("apart") / "run"
    plan = pbt.Plan(exploit=pbt.binary_tournament(), interval=5, mode="async")
    return pbt.run(**CLIMB | {"plan": plan}, run_dir=path)


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of few pixels: no test looks at them that closely."""
    monkeypatch.setattr(parts, "DPI", 30)
