"""The files of `examples/cluster`: scripts are read by the shell and run under a simulated SLURM, YAML is parsed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pbt
from tests.cluster.places import until
from tests.helpers.paths import ROOT

yaml = pytest.importorskip("yaml", reason="needs yaml, which comes with Ray")

FOLDER = ROOT / "examples/cluster"
FILE = ROOT / "tests/executors/ray/ray_experiment.py"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
TEXTS = {file.name: file.read_text() for file in sorted(FOLDER.iterdir())}
TOOLS = {
    "scontrol": 'if [[ $1 == show ]]; then tr , "\\n" <<< "$3"; else echo "$@" >> "$CALLS"; fi',
    # Each node is a process of this machine.
    "srun": """
others=${SLURM_JOB_NODELIST#*,} only=
while [[ $1 == --* ]]; do
  [[ $1 == --nodelist=* ]] && only=${1#*=}
  shift
done
ended=
trap 'ended=1; kill $(jobs -p) 2> /dev/null' TERM
for node in ${only:-${others//,/ }}; do
  "$@" &
done
if [[ $ended ]]; then kill $(jobs -p) 2> /dev/null; fi
wait
""",
}
STUBS = {
    "ray": 'if [[ $1 == status ]]; then exit "${STATUS:-0}"; fi; exec sleep 60',
    "pbt": 'echo "pbt $*" >> "$CALLS"; exit "${CODE:-0}"',
}


@pytest.fixture
def slurm(tmp_path):
    """The environment of a job on two nodes, with tools that log their calls."""
    calls = tmp_path / "calls"
    calls.touch()
    return os.environ | {
        "PATH": f"{tools(tmp_path / 'bin', TOOLS)}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "127.0.0.1,127.0.0.2",
        "SLURM_CPUS_PER_TASK": "2",
    }


def tools(folder, texts):
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)
def test_scripts_are_read_by_the_shell(file):
    """And can be executed."""
    subprocess.run(["bash", "-n", str(file)], check=True, timeout=10)
    assert os.access(file, os.X_OK)


def test_one_command_everywhere():
    """It resumes or starts, without a progress display."""
    assert set(TEXTS) == {"kuberay.yaml", "sky.yaml", "slurm.sh", "spot.sh"}
    for text in TEXTS.values():
        (command,) = re.findall(r"^.*pbt run (?!task).*--resume.*|^.*pbt run task.*--resume.*", text, re.MULTILINE)
        assert "--resume --no-progress" in command


def test_kubernetes():
    """The run directory is on the volume in all pods, the cluster scales, and the driver is started again."""
    *_, job = yaml.safe_load_all(TEXTS["kuberay.yaml"])
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["volumeMounts"] == [{"name": "runs", "mountPath": "/runs"}]
        assert [volume["name"] for volume in pod["volumes"]] == ["runs"]
    assert "--out /runs/" in spec["entrypoint"]
    assert spec["backoffLimit"] > 0
    assert cluster["enableInTreeAutoscaling"] is True
    assert "redisAddress" in cluster["gcsFaultToleranceOptions"]


def test_skypilot():
    """Its scripts are read by the shell, and the run directory is on the volume."""
    job = yaml.safe_load(TEXTS["sky.yaml"])
    for script in (job["setup"], job["run"]):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=10)
    assert list(job["volumes"]) == ["/runs"]
    assert "--out /runs/" in job["run"]


@pytest.mark.parametrize(
    ("given", "code", "requeued"),
    [
        ({}, 0, False),
        ({"CODE": "75"}, 75, True),
        ({"CODE": "75", "SLURM_RESTART_COUNT": "3"}, 75, False),
        ({"CODE": "2"}, 2, False),
        ({"STATUS": "1", "PBT_WAIT_SECONDS": "0"}, 75, False),
    ],
)
def test_the_job_ends_and_is_requeued(slurm, tmp_path, given, code, requeued):
    """Its code is the command's; after an error of the infrastructure it is requeued, not without end.

    A head that does not start is not waited for without end.
    """
    tools(tmp_path / "bin", STUBS)
    done = subprocess.run(
        [FOLDER / "slurm.sh", "task.py:experiment", "--out", "a run"],
        env=slurm | given, timeout=30, check=False, capture_output=True, text=True,
    )  # fmt: skip
    called = Path(slurm["CALLS"]).read_text()
    assert done.returncode == code, done.stderr
    assert (f"requeue {os.getpid()}" in called) == requeued
    if "STATUS" in given:
        assert "Ray did not start on 127.0.0.1" in done.stderr
        assert "pbt" not in called
    else:
        assert re.search(
            r"pbt run task.py:experiment --out a run --executor ray --address 127.0.0.1:\d+ --resume", called
        )


@pytest.mark.slow
@pytest.mark.needs("ray")
@pytest.mark.xdist_group("ray")
def test_the_job_trains(slurm, tmp_path):
    """On a Ray of two nodes; ended at its time limit it is requeued, and goes on to the bits of an undisturbed run."""
    tools(tmp_path / "bin", {"pbt": f'exec {sys.executable} -m pbt "$@"'})
    path = tmp_path / "run"
    job = [FOLDER / "slurm.sh", f"{FILE}:slow", "--quiet", "--out", str(path)]
    with subprocess.Popen(job, env=slurm, start_new_session=True) as first:
        try:
            until(lambda: (path / "run.db").exists() and rounds_of(path) >= 1, 120, "the first round")
            first.send_signal(signal.SIGTERM)
            assert first.wait(60) == 143
        finally:
            end(first)
    assert f"requeue {os.getpid()}" in Path(slurm["CALLS"]).read_text()
    done = rounds_of(path)
    with subprocess.Popen(job, env=slurm, start_new_session=True) as second:
        try:
            assert second.wait(180) == 0
        finally:
            end(second)
    whole = [sys.executable, "-m", "pbt", "run", f"{FILE}:slow", "--quiet", "--out", str(tmp_path / "whole")]
    subprocess.run(whole, check=True, timeout=120)
    assert done < 4
    assert pbt.Run.open(path).events == pbt.Run.open(tmp_path / "whole").events


def rounds_of(path):
    try:
        return pbt.Run.open(path).view.round
    except pbt.PBTError:
        return 0


def end(process):
    """Kill what is left of a job, as SLURM does."""
    from tests.executors.ray.fake_autoscaler import end_session

    end_session(process)
