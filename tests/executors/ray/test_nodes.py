"""Three nodes on this machine, on loopback: what happens to a run when nodes go and come, and its driver dies."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import pbt
from pbt import Cluster, Experiment, Placement
from pbt.errors import WorkerError
from pbt.store.reader import RunReader
from tests.executors.ray import ray_tasks
from tests.executors.ray.test_executor import EVOLVE, HERE, SPACE, wait_for_round

TASK = ray_tasks.Slow(0.3)


@pytest.fixture(scope="module")
def started():
    """The cluster of the last test, which its nodes have left if it was stopped; a cluster takes long to start."""
    clusters = []
    yield clusters
    for cluster in clusters:
        cluster.shutdown()


@pytest.fixture
def nodes(started):
    """A cluster of three nodes of one core each, which only this process and its children reach."""
    if not started or not started[0].list_all_nodes():
        started[:] = [make_head()]
    cluster = started[0]
    while len(there := cluster.list_all_nodes()) > 3:
        cluster.remove_node(there[-1])
    for _ in range(3 - len(there)):
        add(cluster)
    cluster.wait_for_nodes()
    return cluster


def make_head():
    from ray.cluster_utils import Cluster as Nodes

    # A node that is killed is noticed in seconds, not half a minute.
    health = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": health, "object_store_memory": 200 * 2**20}
    return Nodes(initialize_head=True, head_node_args=head)


def add(nodes):
    return nodes.add_node(num_cpus=1, object_store_memory=200 * 2**20)


def experiment(address, population=4, rounds=6, task=TASK):
    return Experiment(
        task=task,
        space=SPACE,
        plan=EVOLVE,
        population=population,
        rounds=rounds,
        seed=5,
        placement=Placement(executor="ray", cluster=Cluster(address=address)) if address else Placement(),
    )


def in_background(action):
    """Run this beside the test; what it raises is raised by the answer's `join`."""
    raised = []

    def run():
        try:
            action()
        except BaseException as error:  # noqa: BLE001 (raised again below)
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join():
        thread.join(120)
        assert not thread.is_alive()
        for error in raised:
            raise error

    return join


def notes(path, kind):
    with RunReader(path) as reader:
        return [entry.details for entry in reader.journal() if entry.kind == kind]


@pytest.mark.slow
def test_a_node_goes_in_the_middle_of_a_round(nodes, tmp_path):
    """What it trained and held is trained again elsewhere; the bits are those of an undisturbed run."""
    gone = nodes.list_all_nodes()[-1]

    def remove():
        wait_for_round(tmp_path / "run", 2)
        nodes.remove_node(gone, allow_graceful=False)

    join = in_background(remove)
    run = experiment(nodes.address, population=3).run(tmp_path / "run")
    join()
    assert run.events == experiment(None, population=3, task=ray_tasks.walk).run().events
    assert notes(tmp_path / "run", "worker lost")


@pytest.mark.long
def test_a_node_that_comes_is_used(nodes, tmp_path):
    """While three rounds are trained and a fourth waits for room, a new node gets an actor, which trains the fourth."""
    gathering = tmp_path / "gathering"
    gathering.mkdir()
    driver = start_driver(nodes, tmp_path / "run", "gathering", GATHERING=str(gathering))

    def wait_for_workers(number):
        while len(workers := {path.name for path in gathering.glob("worker-*")}) < number:
            assert driver.poll() is None
            time.sleep(0.05)
        assert len(workers) == number

    wait_for_workers(3)
    add(nodes)
    wait_for_workers(4)
    (gathering / "open").touch()
    assert driver.wait(120) == 0
    inline = Experiment(task=ray_tasks.walk, space=SPACE, plan=EVOLVE, population=4, rounds=3, seed=1)
    assert pbt.Run.open(tmp_path / "run").events == inline.run().events


def start_driver(nodes, path, name="slow", **environment):
    command = [sys.executable, "-m", "pbt", "run", f"{HERE / 'ray_experiment.py'}:{name}", "--quiet"]
    flags = ["--executor", "ray", "--address", nodes.address, "--out", str(path)]
    return subprocess.Popen([*command, *flags], start_new_session=True, env=os.environ | environment)


@pytest.mark.slow
def test_a_cluster_without_a_token_is_not_entered(nodes, tmp_path):
    """The cluster of these tests asks for one: a program without it is told so, in a line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "pbt", "run", f"{HERE / 'ray_experiment.py'}:experiment", "--quiet"]
    done = subprocess.run(
        [*command, "--executor", "ray", "--address", nodes.address],
        capture_output=True, text=True, timeout=100, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "RAY_AUTH_MODE=token" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_others_have_the_cores(nodes, tmp_path, monkeypatch):
    """A cluster that has room, but not now: waited for with a bound, then said who asks for what."""
    monkeypatch.setattr("pbt.executors.ray.pool.START_SECONDS", 4.0)
    hold = (
        "import sys, time, ray\n"
        "ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)\n"
        "A = ray.remote(num_cpus=1)(type('A', (), {'here': lambda self: 1}))\n"
        "held = [A.remote() for _ in range(3)]\n"
        "ray.get([a.here.remote() for a in held]); print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", hold, nodes.address], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(WorkerError, match=r"needs 1 CPU, and free are nothing of 3 CPU"):
            experiment(nodes.address).run(tmp_path / "run")
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.slow
def test_the_driver_is_killed_and_the_run_goes_on_on_another_cluster(nodes, tmp_path):
    """No state was only in the cluster: the first one is stopped altogether, and inline takes over the same bits."""
    from ray.cluster_utils import Cluster as Nodes

    driver = start_driver(nodes, tmp_path / "run")
    wait_for_round(tmp_path / "run", 1)
    driver.send_signal(signal.SIGKILL)
    driver.wait(10)
    lost_at = pbt.Run.open(tmp_path / "run").view.round
    nodes.shutdown()
    other = Nodes(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        resume = [sys.executable, "-m", "pbt", "resume", str(tmp_path / "run"), f"{HERE / 'ray_experiment.py'}:slow"]
        subprocess.run([*resume, "--quiet", "--address", other.address], timeout=120, check=True)
    finally:
        other.shutdown()
    again = [
        sys.executable,
        "-m",
        "pbt",
        "run",
        f"{HERE / 'ray_experiment.py'}:slow",
        "--quiet",
        "--executor",
        "inline",
    ]
    subprocess.run([*again, "--out", str(tmp_path / "whole")], timeout=120, check=True)
    assert pbt.Run.open(tmp_path / "run").events == pbt.Run.open(tmp_path / "whole").events
    assert lost_at >= 1
    assert [note["changes"] for note in notes(tmp_path / "run", "resumed")] == [[]]
