"""Nodes that differ: in data they are refused, and what fails on one of them is trained on another."""

import os
import time
from functools import partial

import pytest
import torch

import pbt
from pbt import Cluster, Experiment, Placement
from pbt.core.events import Failed
from pbt.errors import TaskError, UsageError
from pbt.executors.base import Failure, RoundTask
from pbt.executors.cluster_data import cluster_data, hold
from pbt.executors.ray.nodes import STRIKES, Nodes
from pbt.pytorch import SupervisedTask, optimizer
from tests.executors.ray import ray_tasks
from tests.executors.ray.test_executor import EVOLVE, SPACE
from tests.executors.ray.test_nodes import make_head, notes, start_driver

DIGITS = SupervisedTask(
    model=partial(torch.nn.Linear, 4, 3),
    data=ray_tasks.digits,
    optimizer=partial(torch.optim.SGD, lr=0.1),
    bind={"lr": optimizer("lr")},
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of a core each; the second one is odd."""
    cluster = make_head()
    add_odd(cluster, tmp_path_factory.mktemp("odd"))
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def add_odd(cluster, folder):
    return cluster.add_node(
        num_cpus=1, object_store_memory=200 * 2**20, env_vars={**os.environ, ray_tasks.ODD: str(folder)}
    )


def train(cluster, task, path=None, *, rounds=3, **options):
    where = Placement(executor="ray", cluster=Cluster(address=cluster.address, **options)) if cluster else Placement()
    experiment = Experiment(task=task, space=SPACE, plan=EVOLVE, population=4, rounds=rounds, seed=5, placement=where)
    return experiment.run(path)


@pytest.mark.long
def test_other_data_on_a_node(cluster, tmp_path):
    """As many examples of the same form, but other ones: refused before the first round, with the node and the data."""
    odd = cluster.list_all_nodes()[-1].node_id[:8]
    with pytest.raises(TaskError, match=rf"{odd}.*the train data and the validation data differ"):
        train(cluster, DIGITS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_task_says_what_it_is_made_of(cluster, tmp_path):
    """A task in another form has a `fingerprint` of its own, which is compared in the same way."""
    with pytest.raises(TaskError, match="the table differ"):
        train(cluster, ray_tasks.Stated(str(tmp_path)))


def test_a_broken_node_costs_no_member(cluster, tmp_path):
    """It lacks a file: its rounds are trained elsewhere, it is left out and named, and the bits are those of inline."""
    run = train(cluster, ray_tasks.Misses(), tmp_path / "run")
    assert run.events == train(None, ray_tasks.walk).events
    (out,) = notes(tmp_path / "run", "node left out")
    assert cluster.list_all_nodes()[-1].node_id[:8] in out["message"]
    assert "images.npy" in out["message"]
    assert len(notes(tmp_path / "run", "tried elsewhere")) >= STRIKES


@pytest.mark.slow
def test_a_failure_of_a_member_stays_its_own(cluster, tmp_path):
    """A round that fails on a good node as well is the member's failure, as on one machine."""
    run = train(cluster, ray_tasks.Misses(wrong=(1,)), tmp_path / "run")
    assert run.events == train(None, ray_tasks.Misses(wrong=(1,))).events
    assert [(event.member, event.round) for event in run.events if isinstance(event, Failed)] == [(1, 2)]
    assert len(notes(tmp_path / "run", "node left out")) == 1


@pytest.mark.slow
def test_an_unfit_node_that_joins_is_left_out(tmp_path):
    """It is named, and the run ends on the others with the same bits."""
    gathering = tmp_path / "gathering"
    gathering.mkdir()
    head = make_head()
    driver = start_driver(head, tmp_path / "run", "stating", GATHERING=str(gathering))
    try:
        while not list(gathering.glob("worker-*")):
            assert driver.poll() is None
            time.sleep(0.05)
        add_odd(head, tmp_path)
        while not (tmp_path / "stated").exists():
            assert driver.poll() is None
            time.sleep(0.05)
        (gathering / "open").touch()
        assert driver.wait(120) == 0
    finally:
        driver.kill()
        driver.wait()
        head.shutdown()
    inline = Experiment(task=ray_tasks.walk, space=SPACE, plan=EVOLVE, population=4, rounds=9, seed=1)
    assert pbt.Run.open(tmp_path / "run").events == inline.run().events
    (out,) = notes(tmp_path / "run", "node left out")
    assert "the table differ" in out["message"]


@pytest.mark.long
def test_data_is_sent(cluster, tmp_path):
    """Arrays, a folder and the working folder reach every node, and the driver reads the data as given."""
    import numpy as np

    arrays = {"x": np.arange(100.0)}
    run = train(cluster, ray_tasks.sent_arrays, rounds=1, data=arrays)
    assert {round(member.score - member.hparams["lr"]) for member in run.view.members} == {4950}
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "b.bin").write_bytes(bytes(77))
    seen = tmp_path / "seen"
    seen.mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "beside.txt").write_text("abc")
    env = {"env_vars": {"PBT_TEST_SEEN": str(seen), "TMPDIR": str(tmp_path)}, "working_dir": str(tmp_path / "code")}
    run = train(cluster, ray_tasks.sent_folder, rounds=1, data=tmp_path / "data", runtime_env=env)
    assert {round(member.score - member.hparams["lr"]) for member in run.view.members} == {80}
    (folder,) = seen.iterdir()
    assert "pbt-data-" in folder.name
    assert cluster_data() == tmp_path / "data"


@pytest.mark.parametrize("data", [5, {}, {"x": object()}, "/nowhere/at/all"])
def test_data_that_cannot_be_sent(data):
    """Refused where it is given."""
    with pytest.raises(UsageError, match=r"Cluster\(data=\.\.\.\).*folder"):
        Cluster(data=data)


def test_no_data_was_sent():
    """The error names the remedy."""
    hold(None)
    with pytest.raises(TaskError, match=r"Cluster\(data=\.\.\.\)"):
        cluster_data()


def round_of(member):
    return RoundTask(member=member, round=1, start=None, hparams={}, first_step=0, steps=1, seed=0)


def failed(member, cause="exception"):
    return Failure(member=member, round=1, attempt=1, cause=cause, message=f"of {member}")


class TestNodes:
    def test_a_node_is_left_out_for_what_others_do(self):
        """After two rounds in a row; the first failure is no reason yet."""
        nodes = Nodes()
        for member in (1, 2):
            assert nodes.failed(round_of(member), failed(member), "bad", ["bad", "good"])
            assert not nodes.takes("bad", (round_of(member),))
            assert nodes.takes("good", (round_of(member),))
        assert not nodes.takes("bad", (round_of(3),)), "suspected: no further rounds until it is known"
        assert nodes.succeeded(round_of(1), "good") == []
        assert nodes.succeeded(round_of(2), "good") == [("bad", failed(2))]

    def test_a_success_acquits(self):
        """Failures count in a row."""
        nodes = Nodes()
        for member in (1, 2, 3):
            nodes.failed(round_of(member), failed(member), "bad", ["bad", "good"])
            assert nodes.succeeded(round_of(member), "good") == []
            nodes.succeeded(round_of(9), "bad")

    def test_what_fails_twice_is_the_members(self):
        """With the message of the first failure; a bad score is never tried again, nor without another node."""
        nodes = Nodes()
        assert nodes.failed(round_of(1), failed(1), "a", ["a", "b"])
        assert not nodes.failed(round_of(1), failed(9), "b", ["a", "b", "c"])
        assert nodes.final(round_of(1)) == failed(1)
        assert not nodes.failed(round_of(2), failed(2, "score"), "a", ["a", "b"])
        assert not nodes.failed(round_of(3), failed(3), "a", ["a", "a"])
