"""Errors of the infrastructure end a run, resumable, and are never a member's failure."""

import re
import subprocess
import sys
import time

import pytest

import pbt
from pbt import Cluster, Experiment, Placement
from pbt.core.events import Failed
from pbt.errors import InfrastructureError, PBTError
from pbt.executors.base import Failure, RoundTask
from pbt.executors.ray.executor import RayExecutor
from pbt.executors.ray.faults import brief, fault_of
from pbt.executors.ray.slots import ActorSlot
from pbt.executors.retry import Limits
from pbt.executors.worker import WorkerSpec
from pbt.store.files import StateFiles
from tests.executors.ray import ray_tasks
from tests.executors.ray.test_executor import EVOLVE, HERE, SPACE, train
from tests.executors.ray.test_nodes import make_head


@pytest.mark.long
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("name", ["inline", "processes", "ray"])
def test_too_little_memory(name, tmp_path):
    """The run stops with the need and the remedy; no member has failed; with memory it goes on to the same bits."""
    mark = tmp_path / "mark"
    mark.touch()
    task = ray_tasks.Hungry(str(mark))
    with pytest.raises(InfrastructureError, match=r"8\.00 PiB.* GiB are available.*fewer workers.*resume") as raised:
        train(task, tmp_path / "run", executor=name, workers=2 if name != "inline" else None)
    assert raised.value.exit_code == 75
    assert not [event for event in pbt.Run.open(tmp_path / "run").events if isinstance(event, Failed)]
    mark.unlink()
    run = train(task, tmp_path / "run", executor=name, workers=2 if name != "inline" else None, resume=True)
    assert run.events == train(ray_tasks.walk).events


def test_whose_fault():
    """By Ray's own errors; what is not known to be the infrastructure's costs an attempt."""
    import ray
    from ray.exceptions import ActorDiedError, ObjectLostError, OutOfDiskError, OutOfMemoryError, RayTaskError

    full = RayTaskError("run", "Traceback", OSError(28, "No space left on device"))
    found = [
        fault_of(ray, error)
        for error in (
            OutOfDiskError("spill"),
            OutOfMemoryError("low"),
            ObjectLostError("00" * 28, None, ""),
            full,
            ActorDiedError(),
            RayTaskError("run", "Traceback", ValueError("x")),
        )
    ]
    assert found == ["cluster", "cluster", "cluster", "cluster", "worker", "worker"]
    assert brief(full) == "[Errno 28] No space left on device"
    assert brief(ValueError("\x1b[36mblue\x1b[39m\n  second\nthird")) == "blue second"


@pytest.mark.usefixtures("local_ray")
class TestInterruptions:
    def make(self):
        executor = RayExecutor(WorkerSpec(task=ray_tasks.walk, states=StateFiles(None)), limits=Limits(attempts=3))
        slots = [ActorSlot(actor=None, opening=None, node=node) for node in ("a", "b")]
        executor._slots = slots
        task = RoundTask(member=1, round=2, start=None, hparams={}, first_step=0, steps=1, seed=0)
        return executor, task

    def test_they_cost_no_attempt_and_move_the_round(self):
        """It runs again on the other node, as the same attempt; without another node, where it was."""
        executor, task = self.make()
        executor._interrupt((task,), "had a full disk", "a")
        assert list(executor._queue) == [(task,)]
        assert [executor._nodes.takes(node, (task,)) for node in ("a", "b")] == [False, True]
        assert not executor._outcomes

    def test_they_end_the_run_where_they_persist(self):
        """After as many as a round has attempts: with the member, the node, the reason and the remedy."""
        executor, task = self.make()
        for _ in range(2):
            executor._interrupt((task,), "had a full disk", "a")
        with pytest.raises(InfrastructureError, match=r"member 1, round 2: .*node .* had a full disk, 3 times.*resume"):
            executor._interrupt((task,), "had a full disk", "a")


@pytest.mark.slow
def test_the_disk_of_the_object_store_is_full(tmp_path):
    """A real one: states exceed the store, and there is no room to spill; then a larger one finishes the run."""
    from ray.cluster_utils import Cluster as Nodes

    def run(store, full):
        system = {"local_fs_capacity_threshold": 0.001 if full else 1.0}
        head = {
            "num_cpus": 2,
            "include_dashboard": False,
            "object_store_memory": store * 2**20,
            "_system_config": system,
        }
        cluster = Nodes(initialize_head=True, head_node_args=head)
        try:
            experiment = Experiment(
                task=ray_tasks.Large(100 * 2**20),
                space=SPACE,
                plan=EVOLVE,
                population=4,
                rounds=2,
                seed=5,
                placement=Placement(executor="ray", cluster=Cluster(address=cluster.address)),
            )
            return experiment.run(tmp_path / "run", resume=True)
        finally:
            cluster.shutdown()

    with pytest.raises(PBTError) as raised:
        run(80, full=True)
    assert raised.value.exit_code == 75
    assert "\x1b" not in str(raised.value)
    done = run(600, full=False)
    assert not [event for event in done.events if isinstance(event, (Failed, Failure))]
    assert done.view.ended == "finished"


@pytest.mark.long
@pytest.mark.parametrize(("given_up", "goes_on"), [(8, 0), pytest.param(30, 90, marks=pytest.mark.slow)])
def test_the_head_dies(tmp_path, given_up, goes_on):
    """The program gets an exception within a bound, in the middle of a round, and Ray does not end it later either."""
    gathering = tmp_path / "gathering"
    gathering.mkdir()
    cluster = make_head()
    command = [sys.executable, str(HERE / "head_driver.py"), cluster.address, str(tmp_path / "run"), str(gathering)]
    driver = subprocess.Popen([*command, str(given_up), str(goes_on)], stdout=subprocess.PIPE, text=True)
    try:
        while not list(gathering.glob("worker-*")):
            assert driver.poll() is None
            time.sleep(0.05)
        cluster.head_node.kill_gcs_server()
        said, _ = driver.communicate(timeout=given_up + goes_on + 150)
    finally:
        driver.kill()
        driver.wait()
        cluster.shutdown()
    assert re.search(rf"caught 75 the head of the Ray cluster at .* not answered for {given_up} s.*resume", said)
    assert "the program goes on" in said
    (gathering / "open").touch()
    settings = {"plan": EVOLVE, "population": 2, "rounds": 3}
    resumed = pbt.run(ray_tasks.Gathers(str(gathering)), SPACE, run_dir=tmp_path / "run", resume=True, **settings)
    assert resumed.events == pbt.run(ray_tasks.walk, SPACE, **settings).events
