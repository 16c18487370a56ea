"""What docs/cluster.md promises: its commands exist, those of its scripts too, its Python runs."""

import re
import subprocess

import pytest

import pbt
from pbt.executors.ray import driver_states
from pbt.executors.ray.autoscaling import GROWTH_SECONDS, PENDING
from pbt.executors.ray.control_store import HEAD_SECONDS
from pbt.executors.ray.nodes import STRIKES
from pbt.executors.ray.sent_code import LIMIT
from pbt.executors.retry import SILENCE_SECONDS, START_SECONDS, Limits
from pbt.pytorch.data_record import MOST
from tests.executors.ray import ray_tasks
from tests.helpers.paths import DOCS, ROOT

PAGE = (DOCS / "cluster.md").read_text(encoding="utf-8")
COMMANDS = [line for line in PAGE.splitlines() if re.match(r"(pbt|python3|ray) ", line)]


def help_of(*command):
    return subprocess.run([*command, "--help"], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout


@pytest.mark.long
def test_every_option_exists():
    """Of our commands and of Ray's own."""
    texts = {
        "pbt run": help_of("pbt", "run"),
        "pbt resume": help_of("pbt", "resume"),
        "python3 main_PBT.py": help_of("python3", "main_PBT.py"),
        "ray start": help_of("ray", "start"),
        "ray status": help_of("ray", "status"),
    }
    assert len(COMMANDS) == 10
    script = PAGE + (ROOT / "examples/cluster/slurm.sh").read_text()
    found = re.findall(rf"({'|'.join(texts)})\b([^\n]*)", script)
    options = {(name, option) for name, rest in found for option in re.findall(r" (--[a-z-]+)", rest)}
    assert len(options) > 10
    assert not {(name, option) for name, option in options if option not in texts[name]}


@pytest.mark.slow
def test_on_a_laptop(tmp_path):
    """The first command, as it stands."""
    (command,) = [line for line in COMMANDS if "quadrants" in line]
    done = subprocess.run(
        [*command.split(), "--rounds", "3", "--out", str(tmp_path / "run"), "--quiet"],
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert pbt.Run.open(tmp_path / "run").view.ended == "finished"


@pytest.mark.usefixtures("local_ray")
def test_the_call(monkeypatch):
    """Every argument is taken; asked of a cluster that has less, the answer says what is missing."""
    _, block = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"pbt": pbt, "task": ray_tasks.walk, "space": {"lr": pbt.Float(0.01, 0.5, "log")}}
    with pytest.raises(pbt.PBTError, match=r"2 CPU, 0\.5 GPU, 1 fast-disk, which no node"):
        exec(block, names)


def test_data_in_the_driver():
    """The example of sent data trains in one process as it stands."""
    block, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(block, {"pbt": pbt})


def test_the_numbers():
    """As in the code."""
    assert (Limits().attempts, SILENCE_SECONDS, START_SECONDS, driver_states.HELD) == (3, 30, 120, 0.3)
    assert (MOST, STRIKES, HEAD_SECONDS) == (256 * 2**20, 2, 30)
    assert (LIMIT, PENDING, GROWTH_SECONDS) == (100 * 2**20, 64, 1800)
    for text in (
        "256 MiB",
        "100 MiB",
        "up to 64",
        "half an hour",
        "fails two rounds in a row",
        "three times",
        "for 30 s",
        "two minutes",
        "30 % of the object store",
    ):
        assert text in PAGE
