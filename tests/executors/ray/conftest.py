"""One Ray for all tests here that need no faults: it takes seconds to start."""

import importlib.util
import os

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", "of-these-tests-" + "0" * 32)

# All on one worker of pytest: two cores hold one cluster at a time.
pytestmark = [pytest.mark.needs("ray"), pytest.mark.xdist_group("ray")]


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "ray":
            for mark in pytestmark:
                item.add_marker(mark)
            # Ray leaves sockets and files to its exit.
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """An actor has ten minutes to start: on a busy machine its imports alone can take two."""
    monkeypatch.setattr("pbt.executors.ray.pool.START_SECONDS", 600.0)


@pytest.fixture(scope="package")
def server():
    """A Ray of three cores on this machine; None without Ray. Starting and ending one takes ten seconds and more.

    It ends with these tests, because it uses a tenth of a core even if nothing happens.
    """
    if importlib.util.find_spec("ray") is None:
        yield None
        return
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 3, "include_dashboard": False, "object_store_memory": 500 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def local_ray(server):
    """The `ray` module, connected to the Ray of these tests as by a user's own program."""
    if server is None:
        yield None
        return
    import ray

    ray.init(address=server.address, logging_level="ERROR", log_to_driver=False)
    yield ray
    ray.shutdown()
