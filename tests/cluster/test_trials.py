"""A short trial of the script: a worker is killed, and the run has the bits of an undisturbed one."""

import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT


@pytest.mark.slow
@pytest.mark.needs("ray")
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("options", [[], ["--raylets"]])
def test_a_trial(options):
    """On hosts of their own where this machine allows them, and as raylets of this machine."""
    command = [sys.executable, "-m", "tests.cluster", "--kind", "worker", *options]
    done = subprocess.run(command, cwd=ROOT, timeout=300, check=False, stdout=subprocess.PIPE, text=True)
    assert "worker: 1 of 1 identical" in done.stdout
    assert done.returncode == 0
