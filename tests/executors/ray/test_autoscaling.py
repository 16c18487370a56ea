"""Clusters that grow, and nodes that are about to go."""

import json
import logging
import time
from pathlib import Path

import pytest

import pbt
from pbt import Cluster, Experiment, Limits, Placement
from pbt.errors import WorkerError
from pbt.executors.ray.autoscaling import Autoscaler, NodeType, of_report
from pbt.executors.ray.nodes import Nodes
from pbt.executors.ray.pool import ActorPool
from pbt.executors.ray.slots import ActorSlot
from tests.executors.ray import ray_tasks
from tests.executors.ray.fake_autoscaler import autoscaling_cluster
from tests.executors.ray.test_executor import EVOLVE, SPACE
from tests.executors.ray.test_nodes import in_background, make_head, notes


def experiment(address, task=ray_tasks.walk, *, rounds=3, limits=None, **options):
    where = Placement(executor="ray", cluster=Cluster(address=address, **options), limits=limits or Limits())
    where = where if address else Placement()
    return Experiment(task=task, space=SPACE, plan=EVOLVE, population=4, rounds=rounds, seed=5, placement=where)


@pytest.mark.slow
def test_a_cluster_grows(tmp_path, caplog, monkeypatch):
    """No node can hold a worker: one line says what is waited for, and the autoscaler adds nodes for all of them.

    A worker that no node type can hold is refused after a bound, with the numbers, and leaves no run directory.
    """
    with autoscaling_cluster(tmp_path, cpus=2, most=2) as address:
        with caplog.at_level(logging.INFO, logger="pbt"):
            run = experiment(address, cpus=2).run(tmp_path / "run")
        (line,) = [record.getMessage() for record in caplog.records if "autoscaler" in record.getMessage()]
        assert "4 workers (2 CPU)" in line
        assert run.events == experiment(None).run().events
        monkeypatch.setattr("pbt.executors.ray.pool.START_SECONDS", 6.0)
        with pytest.raises(WorkerError, match=r"each needs 5 CPU, and free are .* CPU.*autoscaler adds no node"):
            experiment(address, cpus=5).run(tmp_path / "other")
        assert not (tmp_path / "other").exists()


def test_node_types_and_reports():
    """What the autoscaler can start, and starts; a cluster without one reports its nodes under another name."""
    kinds = [NodeType("cpu", {"CPU": 8.0}, 4), NodeType("gpu", {"CPU": 8.0, "GPU": 1.0}, 0)]
    scaler = Autoscaler(kinds, 0)
    assert [scaler.can_hold(need) for need in ({"CPU": 8}, {"CPU": 9}, {"GPU": 1})] == [True, False, False]
    assert scaler.describe() == "its node types are cpu with 8 CPU"
    assert Autoscaler(None, 0).can_hold({"CPU": 10**6})

    def report(kind, **more):
        return json.dumps({"autoscaler_report": {"node_type_mapping": {"id": kind}, **more}}).encode()

    assert of_report(None) is None
    assert of_report(report("node_ab12")) is None
    assert of_report(report("head")) == Autoscaler(None, 0)
    growing = report("head", pending_launches={"large": 2}, pending_nodes=[["1", "large", "setting up"]])
    assert of_report(growing) == Autoscaler(None, 3)


class RoomyCluster:
    """A cluster with room for so many workers; it keeps what is asked of it."""

    def __init__(self, room, scaler=None, going=()):
        self.left, self.scaler, self.going, self.need = room, scaler, set(going), "1 CPU"
        self.started, self.killed = [], []

    def room(self, left_out):
        return self.left

    def start_actor(self, selector):
        self.started.append(selector)
        return ActorSlot(actor=None, opening="reference")

    def kill(self, slot):
        self.killed.append(slot.node)

    def look(self):
        pass


@pytest.mark.parametrize(("scaler", "started"), [(None, 2), (Autoscaler(None, 0), 5)])
def test_workers_without_room(scaler, started, caplog):
    """They are requested only of an autoscaler, are not waited for by the others, and one line names them."""
    session = RoomyCluster(2, scaler)
    slots = []
    pool = ActorPool(session, Nodes(), slots, None)
    with caplog.at_level(logging.INFO, logger="pbt"):
        pool.grow([()] * 5)
        pool.grow([()] * 5)
    assert len(slots) == started
    assert [record.getMessage() for record in caplog.records] == [
        f"ray: the autoscaler of the cluster starts nodes for {started - 2} workers (1 CPU)"
    ] * (started > 2)
    slots[0].opening = None
    pool.opened(time.monotonic())
    assert not pool.may_begin()
    slots[1].opening = None
    assert pool.may_begin()


def test_nodes_about_to_go():
    """Idle workers leave them, a round may end there, new workers avoid them, and each notice is returned once."""
    session = RoomyCluster(1, going={"a"})
    slots = [ActorSlot(actor=None, opening=None, node=node, share=share) for node, share in (("a", None), ("a", (1,)))]
    pool = ActorPool(session, Nodes(), slots, None)
    assert pool.heed_notices() == {"a"}
    assert pool.heed_notices() == set()
    assert session.killed == ["a"]
    assert [slot.share for slot in slots] == [(1,)]
    pool.grow([()])
    assert session.started == [{"ray.io/node-id": "!in(a)"}]


def drain(ray, address, node):
    """Give the cluster the notice of a preemption."""
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client = ray._raylet.GcsClient(address=address)
    assert client.drain_node(node.node_id, reason, "spot", int(time.time() * 1000) + 600_000)[0]


@pytest.mark.slow
def test_notices_are_heeded(tmp_path, monkeypatch, capsys):
    """Of two nodes with a notice one is taken away in its round, which costs no attempt; the other may end its round.

    Neither gets new rounds, both are in the journal, and the bits are those of an undisturbed run.
    """
    import ray

    noticed, heed = set(), ActorPool.heed_notices
    monkeypatch.setattr(ActorPool, "heed_notices", lambda pool: noticed.update(new := heed(pool)) or new)
    gathering = tmp_path / "gathering"
    gathering.mkdir()
    head = make_head()
    try:
        goes, stays = (head.add_node(num_cpus=1, object_store_memory=100 * 2**20) for _ in range(2))
        head.wait_for_nodes()
        run = experiment(head.address, ray_tasks.Placed(str(gathering)), rounds=4, limits=Limits(attempts=1))
        join = in_background(lambda: run.run(tmp_path / "run"))
        while len(workers := list(gathering.glob("worker-*"))) < 3:
            time.sleep(0.05)
        for node in (goes, stays):
            drain(ray, head.address, node)
        while noticed < {goes.node_id, stays.node_id}:
            time.sleep(0.05)
        head.remove_node(goes, allow_graceful=False)
        while all(Path(f"/proc/{worker.name.removeprefix('worker-')}").exists() for worker in workers):
            time.sleep(0.05)
        (gathering / "open").touch()
        join()
    finally:
        head.shutdown()
    assert "raylet" not in capsys.readouterr().out, "Ray's own messages are no results"
    placed = [path.name.split("-")[1:] for path in gathering.glob("round-*")]
    assert {round_ for round_, _, node in placed if node in (goes.node_id, stays.node_id)} <= {"1", "2"}
    said = " ".join(note["message"] for note in notes(tmp_path / "run", "node about to go"))
    assert goes.node_id[:8] in said
    assert stays.node_id[:8] in said
    (lost,) = notes(tmp_path / "run", "worker lost")
    assert "its node went" in lost["message"]
    assert experiment(None, rounds=4).run().events == pbt.Run.open(tmp_path / "run").events
