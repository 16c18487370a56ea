"""A run of very many rounds takes no more memory, descriptors or disk for states than a short one."""

import json
import os
import subprocess
import sys

import pytest

MEMORY = 4 << 20
"""Bytes that may come in after a fifth of the run: the database's cache, which has a bound of two megabytes."""
STATES = 8 * 50_000
"""Bytes: the newest, the two last rounds' and the best of whoever has states worth a file."""


@pytest.mark.long
@pytest.mark.parametrize("rounds", [200, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_nothing_grows_but_the_log(tmp_path, rounds) -> None:
    """Memory, descriptors and states stay as they are, the database grows by so much a round, a resume takes 2 s."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "tests.crash.long_run", str(tmp_path / "run"), str(rounds)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    points = found["points"]
    settled, last = points[len(points) // 5], points[-1]
    assert last["round"] == rounds
    assert last["memory"] - settled["memory"] < MEMORY
    assert len({point["descriptors"] for point in points}) == 1
    assert max(point["states"] for point in points) <= STATES
    middle = points[len(points) // 2 - 1]
    growth = (middle["database"] - settled["database"]) / (middle["round"] - settled["round"])
    later = (last["database"] - middle["database"]) / (last["round"] - middle["round"])
    assert later == pytest.approx(growth, rel=0.1)
    assert found["resume"] < 2
